"""What the gateway counts. The hot path adds to plain numbers; `admin.exposition` makes Prometheus' text of
them when somebody asks for it.

Labels come from the configuration (model names) or from closed sets, never from a client, so that cardinality is bounded.
"""

from bisect import bisect_left
from typing import Final, final

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
INTER_TOKEN_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
OVERHEAD_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0)
MOST_SERIES: Final = 2_000  # a series is 1 KB here, and 60 lines for Prometheus
OTHER: Final = "other"


@final
class Histogram:
    """Counts per bucket, not yet cumulative."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        seen = 0
        rows = []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            seen += count
            rows.append((bound, float(seen)))
        return rows


@final
class Series:
    """The numbers of one combination of endpoint and model."""

    __slots__ = (
        "completion_tokens",
        "cost_nanousd",
        "duration",
        "first_token",
        "inter_token",
        "overhead",
        "prompt_tokens",
        "statuses",
    )

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.duration = Histogram(BUCKETS_S)
        self.first_token = Histogram(BUCKETS_S)
        self.inter_token = Histogram(INTER_TOKEN_BUCKETS_S)
        self.overhead = Histogram(OVERHEAD_BUCKETS_S)
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.cost_nanousd = 0


class Metrics:
    """All series."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str], Series] = {}
        self.failures: dict[tuple[str, str], int] = {}  # attempts that failed, by (deployment, class)

    def series(self, endpoint: str, model: str) -> Series:
        key = (endpoint, model)
        found = self._series.get(key)
        if found is None:
            if len(self._series) >= MOST_SERIES:
                key = (OTHER, OTHER)
            found = self._series.setdefault(key, Series())
        return found

    def failed(self, deployment: str, failure: str) -> None:
        place = deployment, failure
        if place not in self.failures and len(self.failures) >= MOST_SERIES:
            place = OTHER, OTHER
        self.failures[place] = self.failures.get(place, 0) + 1

    def every(self) -> tuple[tuple[tuple[str, str], Series], ...]:
        """All series by (endpoint, model)."""
        return tuple(self._series.items())


@final
class Searches:
    """Of collections: counts by outcome, and how long they took."""

    __slots__ = ("duration", "outcomes")

    def __init__(self) -> None:
        self.outcomes: dict[str, int] = {}
        self.duration = Histogram(BUCKETS_S)

    def add(self, seconds: float, outcome: str) -> None:
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        self.duration.observe(seconds)
