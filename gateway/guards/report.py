"""What guards did about one request: for its answer's head, its record and the metrics. Names and categories, never a text."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, final

from gateway.errors import BadRequest, GatewayError

Outcome = Literal["pass", "flag", "redact", "mask", "repair", "error", "block"]
HEADER: Final = "x-penstock-guards"
_WEIGHT: Final[Mapping[str, int]] = {"pass": 0, "flag": 1, "redact": 2, "mask": 2, "repair": 2, "error": 3, "block": 4}
MOST_CATEGORIES: Final = 8


class Refused(BadRequest):
    """A guard does not let it pass."""

    code = "content_policy_violation"


class GuardFailed(GatewayError):
    """A guard that has to speak did not."""

    status, type, code = 503, "overloaded", "guard_unavailable"


@final
class Report:
    """Of one request. `tried`: of guards that are on trial, what they would have done. `streams`: of `gateway.guards.marks`."""

    __slots__ = ("_categories", "_outcomes", "streams", "tried")

    def __init__(self) -> None:
        self._outcomes: dict[str, Outcome] = {}
        self._categories: dict[str, dict[str, None]] = {}
        self.tried: set[str] = set()
        self.streams: dict[str, Any] = {}

    def note(self, guard: str, outcome: Outcome, categories: Iterable[str] = (), *, trial: bool = False) -> None:
        """The weightiest of several outcomes stays."""
        known = self._outcomes.get(guard)
        if known is None or _WEIGHT[outcome] > _WEIGHT[known]:
            self._outcomes[guard] = outcome
        if trial and outcome != "pass":
            self.tried.add(guard)
        named = self._categories.setdefault(guard, {})
        for category in categories:
            if len(named) < MOST_CATEGORIES:
                named[category] = None

    @property
    def outcomes(self) -> Mapping[str, Outcome]:
        return self._outcomes

    @property
    def lines(self) -> bytes:
        """For an answer's head."""
        return f"{HEADER}: {self.header}\r\n".encode() if self._outcomes else b""

    @property
    def header(self) -> str:
        return ", ".join(f"{name}={self._told(name)}" for name in self._outcomes)

    @property
    def kept(self) -> tuple[str, ...]:
        """For the record of the request: `pii=redact:email+phone`."""
        return tuple(
            f"{name}={self._told(name)}" + (f":{'+'.join(self._categories[name])}" if self._categories[name] else "")
            for name in self._outcomes
        )

    def _told(self, name: str) -> str:
        return f"dry_run-{self._outcomes[name]}" if name in self.tried else self._outcomes[name]


def refused(guard: str, categories: Iterable[str], why: str | None = None) -> Refused:
    named = ", ".join(dict.fromkeys(categories))
    told = why or named
    return Refused(f"The guard '{guard}' refuses this" + (f": {told}" if told else ""), param=None)
