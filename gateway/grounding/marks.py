"""Marks of citation in what a model writes: `【2】`, or `[2]` as most of them prefer. Pure, and the same for a text and for its pieces.

What can only be a mark may be taken out of the text. A number in square brackets may be something else (an index, a footnote of the
model's own): it stays, and counts as a mark where a passage has that number.
"""

import re
from collections.abc import Callable
from typing import Final, final

import msgspec

_MARK: Final = re.compile(
    r"[ \t]*【\s*(?P<strict>\d{1,4}(?:\s*[,;]\s*\d{1,4})*)\s*(?:†[^【】]{0,100})?】"
    r"|(?<!\w)\[(?P<plain>\d{1,3}(?:\s*[,;]\s*\d{1,3})*)\](?![(:])"
)
_MAY_GO_ON: Final = re.compile(r"(?:[ \t]*【[^【】]{0,120}|\[[\d,;\s]{0,40}\]?|[ \t]{1,200})\Z")
_NUMBER: Final = re.compile(r"\d+")


class Note(msgspec.Struct, frozen=True):
    """Passage `number` is cited at `index` of the text, in characters, by a mark up to `end`."""

    index: int
    number: int
    end: int = 0


class Piece(msgspec.Struct, frozen=True):
    """Text to be shown, and what is cited in it."""

    text: str
    notes: tuple[Note, ...] = ()


@final
class Marker:
    """One text's. `known` says which numbers passages have; `strip`: marks that can be nothing else are taken out."""

    def __init__(self, known: Callable[[int], bool], *, strip: bool) -> None:
        self._known = known
        self._strip = strip
        self._held = ""
        self._before = ""  # the last character that was shown, which may forbid a mark
        self._length = 0

    def feed(self, text: str) -> Piece:
        """What may be shown by now: the end is held back as long as it may be the beginning of a mark."""
        whole = self._held + text
        waits = _MAY_GO_ON.search(whole)
        end = len(whole) if waits is None else waits.start()
        self._held = whole[end:]
        return self._taken(whole[:end])

    def close(self) -> Piece:
        """The rest."""
        rest, self._held = self._held, ""
        return self._taken(rest)

    def _taken(self, text: str) -> Piece:
        before = self._before
        source, at = before + text, len(before)
        shown: list[str] = []
        notes: list[Note] = []

        def show(part: str) -> None:
            shown.append(part)
            self._length += len(part)

        for mark in _MARK.finditer(source, at):
            strict = mark["strict"]
            numbers = [int(one) for one in _NUMBER.findall(strict or mark["plain"]) if self._known(int(one))]
            if not numbers:
                continue
            show(source[at : mark.start()])
            start = self._length
            if strict is None or not self._strip:
                show(mark[0])
            notes += [Note(start, one, self._length) for one in dict.fromkeys(numbers)]
            at = mark.end()
        show(source[at:])
        if source:
            self._before = source[-1]
        return Piece("".join(shown), tuple(notes))


def read(text: str, known: Callable[[int], bool], *, strip: bool) -> Piece:
    """Of a whole text."""
    marker = Marker(known, strip=strip)
    first, rest = marker.feed(text), marker.close()
    return Piece(first.text + rest.text, first.notes + rest.notes)
