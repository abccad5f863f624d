"""Patterns and words of a configuration's own, by RE2: in time that grows with the text alone, whatever the pattern."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, final

from gateway.guards.scanner import LONGEST, Finding

if TYPE_CHECKING:
    from re import Pattern

UNKNOWN: Final = "a pattern of RE2: https://github.com/google/re2/wiki/Syntax"
_MEMORY: Final = 8 << 20  # of one pattern's automaton


def compiled(pattern: str) -> "Pattern[str]":
    """Raises ValueError for what is none."""
    import re2  # noqa: PLC0415 — for those who have patterns

    options = re2.Options()
    options.max_mem = _MEMORY
    options.log_errors = False
    try:
        made: Pattern[str] = re2.compile(pattern, options)
    except re2.error as error:
        why = error.args[0] if error.args else "invalid"
        raise ValueError(f"not {UNKNOWN} ({why.decode() if isinstance(why, bytes) else why})") from None
    if made.search("") is not None:
        raise ValueError("finds the empty text, so everything is a match")
    return made


def of_word(word: str) -> str:
    """The pattern of a word or phrase, in any case and by itself."""
    left = r"\b" if word[0].isalnum() and word[0].isascii() else ""
    right = r"\b" if word[-1].isalnum() and word[-1].isascii() else ""
    return f"(?i){left}{re.escape(word)}{right}"


def longest(pattern: str, window: int) -> int:
    """How many characters of a text it may take until it is known whether it begins there; `window` where there is no limit."""
    parser: Any = vars(re)["_parser"]  # the only one that knows
    try:
        _, most = parser.parse(pattern).getwidth()
    except Exception:  # noqa: BLE001 — RE2 knows patterns that Python does not
        return window
    return max(1, min(int(most), window)) + 1


@final
class Patterns:
    """`patterns` are pairs of a category and a pattern. On a stream a match is found by its first `window` characters."""

    def __init__(self, patterns: Sequence[tuple[str, str]], window: int = 512) -> None:
        self._patterns = [(category, compiled(pattern)) for category, pattern in patterns]
        window = min(window, LONGEST)
        self._held = max((longest(pattern, window) for _, pattern in patterns), default=1)

    def find(self, text: str, start: int) -> list[Finding]:
        found = (
            Finding(*one.span(), category) for category, form in self._patterns for one in form.finditer(text, start)
        )
        return [one for one in found if one.end > one.start]

    def unsettled(self, text: str, start: int) -> int:
        return max(start, len(text) - self._held)
