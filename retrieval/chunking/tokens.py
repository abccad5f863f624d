"""How long a text is, in tokens: the measure of all limits. A measure says where in the text each token ends."""

import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, final

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SEGMENT: Final = 256 * 1024  # characters that are tokenised at once
_LONGEST_RUN: Final = 512  # of characters without a blank, or of blanks: the merges of BPE take quadratic time in them
_RUNS: Final = re.compile(rf"\S{{{_LONGEST_RUN}}}|\s{{{_LONGEST_RUN}}}")
_WORD_PIECE: Final = re.compile(r"[^\W\d_]{1,8}|\d{1,3}|_+|[^\w\s]|\S")
_CL100K_PATTERN: Final = (  # tiktoken_ext/openai_public.py
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)


class Measure(Protocol):
    """One tokenizer. `ends(text)`: the offset after each token, in characters, never falling; equal for tokens inside a character."""

    def ends(self, text: str) -> "array[int]": ...


@final
class Estimate:
    """No tokenizer at all: words in pieces of eight letters, about what OpenAI's tokenizers give for English, more for code."""

    def ends(self, text: str) -> "array[int]":
        return array("Q", (match.end() for match in _WORD_PIECE.finditer(text)))


@final
class Cl100k:
    """OpenAI's cl100k_base by tiktoken, from its table of ranks (`embedding.cl100k` finds one that is installed)."""

    def __init__(self, ranks: dict[bytes, int]) -> None:
        from tiktoken import Encoding  # noqa: PLC0415 — optional, and a tenth of a second

        self._encoding = Encoding("cl100k_base", pat_str=_CL100K_PATTERN, mergeable_ranks=ranks, special_tokens={})

    def ends(self, text: str) -> "array[int]":
        found = array("Q")
        for start, end in _segments(text):
            at = start
            for token in self._encoding.encode_ordinary(text[start:end].encode("utf-8", "replace").decode()):
                piece = self._encoding.decode_single_token_bytes(token)
                at += sum(byte & 0xC0 != 0x80 for byte in piece)  # bytes that begin a character
                found.append(at)
        return found


@final
class Vocabulary:
    """The tokenizer of an embedding model: what counts against its window. Without special tokens."""

    def __init__(self, vocabulary: "Tokenizer") -> None:
        self._vocabulary = vocabulary

    def ends(self, text: str) -> "array[int]":
        found = array("Q")
        for start, end in _segments(text):
            offsets = self._vocabulary.encode(text[start:end], add_special_tokens=False).offsets
            found.extend(start + offset for _, offset in offsets)
        return found


def vocabulary(file: Path) -> Vocabulary:
    """From a `tokenizer.json`, without the truncation and padding that it may ask for."""
    from tokenizers import Tokenizer  # noqa: PLC0415 — optional

    loaded = Tokenizer.from_str(file.read_text(encoding="utf-8"))
    loaded.no_truncation()
    loaded.no_padding()
    return Vocabulary(loaded)


def _segments(text: str) -> Iterator[tuple[int, int]]:
    """Pieces that a tokenizer can take: of bounded length, cut before a blank where there is one, endless runs cut anywhere."""
    at = 0
    while at < len(text):
        end = min(len(text), at + _SEGMENT)
        run = _RUNS.search(text, at, end)
        if run is not None:
            end = run.end()
        elif end < len(text):
            blank = max(text.rfind(" ", at + 1, end), text.rfind("\n", at + 1, end))
            end = blank if blank > at else end
        yield at, end
        at = end
