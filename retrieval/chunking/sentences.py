"""Where sentences begin: by punctuation and what stands around it. Decided locally, so that text far away changes nothing."""

import re
from collections.abc import Iterator
from typing import Final

_END: Final = re.compile(
    r"[.!?…]{1,64}+[\"'\u201d\u2019)\]]*\s+"  # marks (a few at a time: a search from each of many is no end), what closes, a blank
    r"|[。！？]+[」』”）]*\s*"  # noqa: RUF001 — the marks of Chinese and Japanese
    r"|\n[ \t]*\n\s*"  # an empty line
    r"|\n(?=[ \t]*(?:[-*+•]|\d{1,3}[.)]|#{1,6})[ \t])"  # the next item or heading
)
_ABBREVIATIONS: Final = frozenset({
    "mr", "mrs", "ms", "dr", "prof", "st", "jr", "sr", "vs", "etc", "e.g", "i.e", "cf", "fig", "figs", "eq", "vol",
    "pp", "ed", "approx", "inc", "ltd", "co", "corp", "dept", "est", "al", "resp", "sec", "ch", "p", "z.b", "d.h",
    "u.a", "bzw", "ca", "usw", "bspw",
})  # fmt: skip
_BEFORE_NUMBERS: Final = frozenset({"no", "nos", "nr"})
_LAST_WORD: Final = re.compile(r"[\w.]+\Z")
_LOOK_BACK: Final = 24


def starts(text: str, begin: int, end: int) -> Iterator[int]:
    """Offsets in `(begin, end]` at which a sentence begins, in order."""
    for match in _END.finditer(text, max(0, begin - 200), min(len(text), end + 200)):
        at = match.end()
        if at > end:
            return
        if at > begin and at < len(text) and _ends_here(text, match):
            yield at


def spans(text: str, begin: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
    """The sentences of `text[begin:end]`, without the blank space around them. Every other character is in one."""
    stop = len(text) if end is None else end
    at = begin
    for cut in (*starts(text, begin, stop), stop):
        piece = text[at:cut]
        if piece.strip():
            yield at + len(piece) - len(piece.lstrip()), at + len(piece.rstrip())
        at = cut


def _ends_here(text: str, match: re.Match[str]) -> bool:
    """Whether a mark ends its sentence: not after an abbreviation or an initial, not before a small letter."""
    mark = match[0][0]
    if mark not in ".!?…":
        return True
    if match[0].count("\n") > 1:
        return True
    following = text[match.end()]
    if following.islower():
        return False
    if mark != ".":
        return True
    word = _LAST_WORD.search(text, max(0, match.start() - _LOOK_BACK), match.start())
    if word is None:
        return True
    last = word[0].strip(".")
    initial = len(last) == 1 and last.isalpha() and last.isupper() and not following.isdigit() and last != "I"
    numbered = last.lower() in _BEFORE_NUMBERS and following.isdigit()
    return not initial and not numbered and last.lower() not in _ABBREVIATIONS
