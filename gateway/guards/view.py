"""A text as a reader sees it: without what hides a word from a pattern, and with a way back to the characters that were sent.

Fullwidth and mathematical letters, digits of other scripts and look-alikes of Latin letters become ASCII, invisible characters vanish,
and escapes of JSON become the character that they stand for. For looking only: what is passed on are the characters themselves.
"""

import re
import unicodedata
from array import array
from functools import cache
from typing import Final, final

# What hides inside a word without a trace: format characters, variation selectors, fillers, joiners, combining grapheme joiner.
INVISIBLE: Final = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_INVISIBLE: Final = re.compile(f"[{INVISIBLE}]+")
_MOVES: Final = re.compile(rf"[{INVISIBLE}]+|\\(?:u[0-9A-Fa-f]{{4}}|[\"\\/bfnrt])")
_CUT_ESCAPE: Final = re.compile(r"\\(?:u[0-9A-Fa-f]{0,3})?\Z")
_SIMPLE: Final = {"b": " ", "f": " ", "n": "\n", "r": "\n", "t": " ", '"': '"', "\\": "\\", "/": "/"}

_LOOKALIKES: Final = {
    # Cyrillic
    "а": "a", "е": "e", "о": "o", "р": "p", "с": "c", "у": "y", "х": "x", "і": "i", "ј": "j", "ѕ": "s", "ԁ": "d", "ԛ": "q", "ԝ": "w",
    "һ": "h", "ӏ": "l", "ѵ": "v", "А": "A", "В": "B", "Е": "E", "К": "K", "М": "M", "Н": "H", "О": "O", "Р": "P", "С": "C", "Т": "T",
    "У": "Y", "Х": "X", "І": "I", "Ј": "J", "Ѕ": "S", "Ԍ": "G", "Ԛ": "Q", "Ԝ": "W", "Ӏ": "I", "З": "3",
    # Greek
    "ο": "o", "α": "a", "ν": "v", "ρ": "p", "τ": "t", "υ": "u", "ι": "i", "κ": "k", "Α": "A", "Β": "B", "Ε": "E", "Ζ": "Z", "Η": "H",
    "Ι": "I", "Κ": "K", "Μ": "M", "Ν": "N", "Ο": "O", "Ρ": "P", "Τ": "T", "Υ": "Y", "Χ": "X",
    # Dashes, dots, spaces, at signs
    "‐": "-", "‑": "-", "‒": "-", "–": "-", "—": "-", "―": "-", "−": "-", "﹣": "-", "․": ".", "。": ".", "﹒": ".", "･": ".",
    "﹫": "@", "∶": ":", "\u00a0": " ", "\u1680": " ", "\u202f": " ", "\u205f": " ", "\u3000": " ", }  # fmt: skip


@final
class View:
    """`text` begins with `context` characters of what was passed on before, and lacks a piece of an escape that has no end yet.

    `written` is the same, character for character, with its letters as they are: a word of Russian or Greek is no word of look-alikes.
    """

    __slots__ = ("_ends", "_starts", "context", "text", "written")

    def __init__(self, raw: str, context: str = "", written_context: str | None = None) -> None:
        self.context = len(context)
        self._starts: array[int] | None = None
        self._ends: array[int] | None = None
        cut = _CUT_ESCAPE.search(raw, max(0, len(raw) - 6)) if "\\" in raw[-6:] else None
        seen = raw if cut is None else raw[: cut.start()]
        written = seen
        if not seen.isascii():
            seen = seen.translate(_folded())
        if "\\" in seen or not seen.isascii():
            seen, written = self._moved(seen, written)
        self.text = context + seen if context else seen
        self.written = (context if written_context is None else written_context) + written

    def raw(self, at: int) -> int:
        """Where the character at a place of `text` begins in the raw text."""
        at = max(0, at - self.context)
        starts = self._starts
        if starts is None:
            return at
        return starts[at] if at < len(starts) else self._end(len(starts) - 1)

    def raw_end(self, at: int) -> int:
        """Where the text before a place ends: what is invisible behind it is not part of it."""
        return 0 if at <= self.context else self._end(at - 1 - self.context)

    def _end(self, at: int) -> int:
        ends = self._ends
        if ends is None:
            return at + 1
        return ends[at] if ends else 0

    def _moved(self, seen: str, written: str) -> tuple[str, str]:
        parts: list[str] = []
        own: list[str] = []
        starts, ends = array("I"), array("I")
        at = 0
        for found in _MOVES.finditer(seen):
            parts.append(seen[at : found.start()])
            own.append(written[at : found.start()])
            starts.extend(range(at, found.start()))
            ends.extend(range(at + 1, found.start() + 1))
            at = found.end()
            meant = _meant(found[0])
            if meant:
                parts.append(meant)
                own.append(_character(found[0]) or meant)
                starts.append(found.start())
                ends.append(at)
        if not at:
            return seen, written
        parts.append(seen[at:])
        own.append(written[at:])
        starts.extend(range(at, len(seen)))
        ends.extend(range(at + 1, len(seen) + 1))
        self._starts, self._ends = starts, ends
        return "".join(parts), "".join(own)


def without_invisible(raw: str) -> str:
    """For a text that has so many of them that it cannot be kept."""
    return _INVISIBLE.sub("", raw)


def _meant(found: str) -> str:
    if not found.startswith("\\"):
        return ""
    if found[1] != "u":
        return _SIMPLE[found[1]]
    char = _character(found).translate(_folded())
    return "" if _INVISIBLE.match(char) else char


def _character(found: str) -> str:
    """Of an escape by number; nothing of another one."""
    digits = found[2:]
    return chr(int(digits, 16)) if digits else ""


@cache
def _folded() -> dict[int, str]:
    """One character for one character, so that places stay places. Made with the first text that is not plain."""
    table = {ord(char): plain for char, plain in _LOOKALIKES.items()}
    table |= dict.fromkeys(range(0x2000, 0x200B), " ")
    blocks = (
        range(0xFF01, 0xFF5F),
        range(0x1D400, 0x1D800),
        range(0x24B6, 0x24EA),
        range(0x2460, 0x2469),
        range(0x2100, 0x2150),
    )
    for block in blocks:
        for code in block:
            plain = unicodedata.normalize("NFKC", chr(code))
            if len(plain) == 1 and plain.isascii():
                table.setdefault(code, plain)
    for code in range(0x660, 0x1FBFA):  # digits of other scripts
        if (digit := unicodedata.decimal(chr(code), None)) is not None:
            table.setdefault(code, str(digit))
    for code in (*range(0x2070, 0x207A), *range(0x2080, 0x208A)):
        if (digit := unicodedata.digit(chr(code), None)) is not None:
            table.setdefault(code, str(digit))
    table |= {0xB9: "1", 0xB2: "2", 0xB3: "3"}
    return table
