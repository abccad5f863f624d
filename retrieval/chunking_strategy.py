"""How a document is cut into passages, as clients ask for it."""

from typing import Final, Literal

import msgspec

from retrieval.errors import BadRequest

AUTO_TOKENS: Final = 800
AUTO_OVERLAP: Final = 400
MIN_TOKENS: Final = 100
MAX_TOKENS: Final = 4096
MIN_CHILD_TOKENS: Final = 32
CHILD_TOKENS: Final = 160
CONTEXT_TOKENS: Final = 200  # that a model may say before a passage

Kind = Literal["auto", "static", "sentences", "headings", "code", "semantic"]


class Chunking(msgspec.Struct, frozen=True):
    """At most `max_tokens` a passage, the last `overlap_tokens` of which begin the next one.

    `child_tokens`: pieces of at most so many are searched, and the passages that they are of are shown. `context_model`: it says of each
    what is searched where in its document that stands. A `max_tokens` of 0 is for `resolved` to tell.
    """

    type: Kind = "auto"
    max_tokens: int = AUTO_TOKENS
    overlap_tokens: int = AUTO_OVERLAP
    child_tokens: int | None = None
    context_model: str | None = None


def sized(kind: Kind, max_tokens: int, overlap_tokens: int) -> Chunking:
    """Raises BadRequest outside of OpenAI's bounds."""
    where = f"chunking_strategy.{kind}"
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
    return Chunking(kind, max_tokens, overlap_tokens)


def with_children(chunking: Chunking, max_tokens: int) -> Chunking:
    """Raises BadRequest for children that are as large as what they are of."""
    most = (chunking.max_tokens or AUTO_TOKENS) - 1
    if not MIN_CHILD_TOKENS <= max_tokens <= most:
        raise BadRequest(
            f"max_chunk_size_tokens of children must be between {MIN_CHILD_TOKENS} and {most}: less than that of their passages",
            param="chunking_strategy.children.max_chunk_size_tokens",
            code="invalid_value",
        )
    return msgspec.structs.replace(chunking, child_tokens=max_tokens)


def resolved(asked: Chunking | None, window: int | None) -> Chunking:
    """As it is done for a model that reads `window` tokens: what it would not see of a passage, no vector would know of."""
    if asked is None:
        return auto(window)
    if window is not None and asked.context_model is not None:
        window -= context_tokens(window)
    seen = None if window is None else max(MIN_CHILD_TOKENS, window * 7 // 8)
    children = asked.child_tokens
    if children is not None and seen is not None:
        children = min(children, seen)
    if asked.max_tokens:
        return msgspec.structs.replace(asked, child_tokens=children)
    if children is not None:  # what is shown need not be read by the model
        return msgspec.structs.replace(asked, max_tokens=AUTO_TOKENS, overlap_tokens=0, child_tokens=children)
    usual = auto(window)
    overlap = usual.overlap_tokens if asked.type == "auto" else 0
    return msgspec.structs.replace(asked, max_tokens=usual.max_tokens, overlap_tokens=overlap)


def context_tokens(window: int | None) -> int:
    """Of what a model says before a passage, so many are embedded with it: the passage is to have most of the `window`."""
    return CONTEXT_TOKENS if window is None else min(CONTEXT_TOKENS, window // 4)


def auto(window: int | None) -> Chunking:
    """OpenAI's sizes, or smaller: what passes the `window` of the embedding model, in tokens, no vector would know of."""
    if window is None or window >= AUTO_TOKENS:
        return Chunking()
    tokens = max(MIN_TOKENS, window * 7 // 8)  # the model's tokens are not those that are counted here
    return Chunking("auto", tokens, tokens // 4)
