"""What is said of a monitor: what it watches, on what terms, and what was found in a window. Pure.

Of a collection two streams are watched: what is searched for (`queries`), against the first window of it and against the corpus, and
documents that came later (`corpus`), against those that were there when the monitor began.
"""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

Stream = Literal["queries", "corpus"]
Test = Literal["mmd", "ks"]
STREAMS: Final[tuple[Stream, ...]] = ("queries", "corpus")
TESTS: Final[tuple[Test, ...]] = ("mmd", "ks")
FEWEST: Final = 30  # rows of which anything is said


class Terms(msgspec.Struct, frozen=True):
    """A window of queries ends with `rows` of them, or after `seconds` with those that there are, if these are enough to be judged.

    `alpha`: the share of windows that are called drifted by chance alone, over all of their tests. `alert`: whether webhooks hear of it.
    """

    rows: int = 200
    seconds: float | None = None
    tests: Sequence[Test] = TESTS
    alpha: float = 0.01
    alert: bool = True


class Monitor(msgspec.Struct, frozen=True):
    """Without its baseline. `subject`: the collection's id, `name`: what it was called by whoever made the monitor."""

    id: str
    kind: Literal["collection"]
    name: str
    subject: str
    terms: Terms
    created_at: float


class Finding(msgspec.Struct, frozen=True):
    """Of one column. `threshold`: drifted is what has a smaller `p_value`."""

    column: str
    test: Test
    statistic: float
    p_value: float
    threshold: float

    @property
    def drifted(self) -> bool:
        return self.p_value < self.threshold


class Window(msgspec.Struct, frozen=True):
    """`rows`: distinct questions, or documents. Times are Unix seconds."""

    number: int
    stream: Stream
    version: int
    rows: int
    since: float
    until: float
    findings: Sequence[Finding]

    @property
    def drifted(self) -> bool:
        return any(each.drifted for each in self.findings)
