"""The same search in what a text has in base64: who hides a thing there has not made it another thing."""

import re
from base64 import b64decode
from collections.abc import Iterator
from typing import Final, final

from gateway.guards.scanner import Finding, Scanner

# Longer ones are looked at in pieces of this size.
_RUN: Final = re.compile(r"[A-Za-z0-9+/_-]{24,8192}={0,2}")
_STANDARD: Final = str.maketrans("-_", "+/")


@final
class Decoding:
    """`inner`, in the text itself and in its runs of base64, one layer deep. A finding in there is the whole run."""

    def __init__(self, inner: Scanner) -> None:
        self._inner = inner

    def find(self, text: str, start: int) -> list[Finding]:
        return [*self._inner.find(text, start), *self._decoded(text, start)]

    def unsettled(self, text: str, start: int) -> int:
        return self._inner.unsettled(text, start)

    def _decoded(self, text: str, start: int) -> Iterator[Finding]:
        for run in _RUN.finditer(text, start):
            plain = run[0].rstrip("=").translate(_STANDARD)
            for skipped in range(4):  # it may be glued to something else
                part = plain[skipped:]
                part = part[: len(part) - (len(part) % 4 == 1)]
                seen = b64decode(part + "=" * (-len(part) % 4)).decode("latin-1")
                yield from (Finding(run.start(), run.end(), one.category) for one in self._inner.find(seen, 0))
