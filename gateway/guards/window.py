"""A window that slides over one text as it comes: what leaves it was looked at, with all that could still change what it is.

A whole text takes the same way in one piece, so that it is read the same however it was cut.
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol, final

from gateway.guards.scanner import LONGEST, Finding, Scanner, merged
from gateway.guards.view import View, without_invisible

MOST_RAW: Final = 8 * LONGEST  # characters that wait at most: an escape has six of them
_CONTEXT: Final = 8
# What a credential or an address is made of: a run of it at the end may be the beginning of one.
_RUN: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.+/=@:%~$&!*#?'-"


class Piece(Protocol):
    """One text on its way."""

    def feed(self, text: str) -> str:
        """What may go on."""

    def finish(self) -> str:
        """The rest, of a text that is through."""


Replace = Callable[[str, str], str]
"""Of what was found, and its category: what stands in its place. May raise, to end it all."""


@final
class Window:
    """`replace` is asked for each finding, in order. `runs`: whether what it looks for has no blanks in it, and is held by that.

    `reader` looks at the text as it is written, without look-alikes turned into each other.
    """

    __slots__ = ("_context", "_raw", "_reader", "_replace", "_runs", "_scanner", "_written_context")

    def __init__(self, scanner: Scanner, replace: Replace, *, runs: bool, reader: Scanner | None = None) -> None:
        self._scanner = scanner
        self._reader = reader
        self._written_context = ""
        self._replace = replace
        self._runs = runs
        self._context = ""
        self._raw = ""

    def feed(self, text: str) -> str:
        self._raw += text
        return self._passed(last=False) if self._raw else ""

    def finish(self) -> str:
        return self._passed(last=True) if self._raw else ""

    def only(self, text: str) -> str:
        """A text that is there whole: it is looked at once."""
        self._raw = text
        return self.finish()

    def _passed(self, *, last: bool) -> str:
        view = View(self._raw, self._context, self._written_context)
        found = merged(self._found(view))
        settled = len(view.text) if last else self._settled(view, found)
        done = [one for one in found if one.end <= settled]
        cut = len(self._raw) if last else view.raw(settled)
        out = self._written(view, done, cut)
        self._context = view.text[max(0, settled - _CONTEXT) : settled]
        self._written_context = view.written[max(0, settled - _CONTEXT) : settled]
        self._raw = self._raw[cut:]
        if len(self._raw) > MOST_RAW:
            self._raw = without_invisible(self._raw)
        return out

    def _found(self, view: View) -> list[Finding]:
        found, reader = self._scanner.find(view.text, view.context), self._reader
        if reader is not None and (reader is not self._scanner or view.written != view.text):
            found = [*found, *reader.find(view.written, view.context)]
        return found

    def _settled(self, view: View, found: Sequence[Finding]) -> int:
        """Up to where nothing will change, whatever comes."""
        text, start = view.text, view.context
        settled = self._scanner.unsettled(text, start)
        if self._runs:
            tail = text[max(start, len(text) - LONGEST) :]
            settled = min(settled, len(text) - len(tail) + len(tail.rstrip(_RUN)))
        for one in reversed(found):
            if one.end > settled or one.end == len(text):
                settled = min(settled, one.start)
        return max(settled, start)

    def _written(self, view: View, found: Sequence[Finding], cut: int) -> str:
        raw = self._raw
        if not found:
            return raw if cut == len(raw) else raw[:cut]
        parts: list[str] = []
        at = 0
        for one in found:
            begin, end = view.raw(one.start), view.raw_end(one.end)
            parts.append(raw[at:begin])
            parts.append(self._replace(raw[begin:end], one.category))
            at = end
        parts.append(raw[at:cut])
        return "".join(parts)


@final
class Chained:
    """One after another: the second sees what the first let through."""

    __slots__ = ("_pieces",)

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._pieces = pieces

    def feed(self, text: str) -> str:
        for piece in self._pieces:
            text = piece.feed(text)
        return text

    def finish(self) -> str:
        text = ""
        for piece in self._pieces:
            text = (piece.feed(text) if text else "") + piece.finish()
        return text
