"""How a document is cut into passages, as clients ask for it."""

from typing import Final, Literal

import msgspec

from retrieval.errors import BadRequest

AUTO_TOKENS: Final = 800
AUTO_OVERLAP: Final = 400
MIN_TOKENS: Final = 100
MAX_TOKENS: Final = 4096


class Chunking(msgspec.Struct, frozen=True):
    """At most `max_tokens` a passage, the last `overlap_tokens` of which begin the next one."""

    type: Literal["auto", "static"] = "auto"
    max_tokens: int = AUTO_TOKENS
    overlap_tokens: int = AUTO_OVERLAP


def static(max_tokens: int, overlap_tokens: int) -> Chunking:
    """Raises BadRequest outside of OpenAI's bounds."""
    where = "chunking_strategy.static"
    if not MIN_TOKENS <= max_tokens <= MAX_TOKENS:
        raise BadRequest(
            f"max_chunk_size_tokens must be between {MIN_TOKENS} and {MAX_TOKENS}",
            param=f"{where}.max_chunk_size_tokens",
            code="invalid_value",
        )
    if not 0 <= overlap_tokens <= max_tokens // 2:
        raise BadRequest(
            "chunk_overlap_tokens must not be more than half of max_chunk_size_tokens",
            param=f"{where}.chunk_overlap_tokens",
            code="invalid_value",
        )
    return Chunking("static", max_tokens, overlap_tokens)


def auto(window: int | None) -> Chunking:
    """OpenAI's sizes, or smaller: what passes the `window` of the embedding model, in tokens, no vector would know of."""
    if window is None or window >= AUTO_TOKENS:
        return Chunking()
    tokens = max(MIN_TOKENS, window * 7 // 8)  # the model's tokens are not those that are counted here
    return Chunking("auto", tokens, tokens // 4)
