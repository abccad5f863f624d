"""What looks for something in a text, and says how much of the text's end it has to see more of first."""

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

LONGEST: Final = (
    8192 + 128
)  # characters of the longest thing that is looked for; a longer one is found by its beginning


class Finding(NamedTuple):
    """A place in the text that was looked at, and what stands there."""

    start: int
    end: int
    category: str


class Scanner(Protocol):
    """Without state: one for all texts."""

    def find(self, text: str, start: int) -> list[Finding]:
        """What begins at `start` or later; what stands before is only there to be looked back at."""

    def unsettled(self, text: str, start: int) -> int:
        """Where something may begin whose end is not there yet; the length of the text if nothing may."""


def merged(findings: Sequence[Finding]) -> list[Finding]:
    """In order, and none over another: of two the one that begins first, of two that begin together the longer one."""
    kept: list[Finding] = []
    for one in sorted(findings, key=lambda each: (each.start, -each.end)):
        if not kept or one.start >= kept[-1].end:
            kept.append(one)
        elif one.end > kept[-1].end:  # they overlap: nothing of either may stay
            kept[-1] = kept[-1]._replace(end=one.end)
    return kept
