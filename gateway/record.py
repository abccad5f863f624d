"""What is remembered of one request: facts, never content."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, final

from gateway.journal_records import Routed, Try
from gateway.keys import Key
from gateway.used import Source, Usage

if TYPE_CHECKING:  # a record carries its open hold and knows nothing of it
    from gateway.metering import Ticket
    from gateway.watching import Watched

LEFT: Final = "client_disconnected"  # the error code of a call whose client did not wait for its end


FIELDS: Final = (
    "answer_id",
    "at",
    "attempts",
    "cost_nanousd",
    "deployment",
    "earlier_nanousd",
    "endpoint",
    "error_code",
    "finished_at",
    "first_token_at",
    "id",
    "key",
    "metric_model",
    "model",
    "provider",
    "received",
    "refused",
    "relief",
    "routed",
    "sent",
    "started_at",
    "status",
    "stream",
    "tags",
    "ticket",
    "trail",
    "upstream_s",
    "usage",
    "usage_source",
    "user",
    "watched",
)


@final
class Record:
    """Filled while a request runs. Times are seconds on the event loop's clock, but `at`, which is Unix seconds."""

    __slots__ = FIELDS

    def __init__(self, id_: str, endpoint: str, at: float, started_at: float) -> None:
        self.id = id_
        self.endpoint = endpoint
        self.at = at
        self.started_at = started_at
        self.finished_at = started_at
        self.first_token_at: float | None = None
        self.upstream_s = 0.0
        self.key: Key | None = None
        self.model: str | None = None
        self.metric_model = ""
        self.deployment: str | None = None
        self.provider: str | None = None
        self.status = 0
        self.stream = False
        self.attempts = 0
        self.usage: Usage | None = None
        self.usage_source: Source | None = None
        self.cost_nanousd: int | None = None
        self.error_code: str | None = None
        self.tags: list[str] | None = None
        self.user: str | None = None
        self.ticket: Ticket | None = None
        self.relief = b""  # header lines that say how the call was made to fit its budget
        self.sent = False  # an upstream may have seen the request
        self.refused = False  # it answered, and did no work
        self.received = 0  # pieces of an answer that came, about one token each
        self.earlier_nanousd = (
            0  # what attempts before this one cost, and what was looked up for it, under ids of their own
        )
        self.trail: list[Try] | None = None  # every attempt in order, once one has failed
        self.watched: Watched | None = None  # of who exports traces
        self.routed: Routed | None = None  # where there was something to decide
        self.answer_id: str | None = None  # what stands in the answer as its id, where an upstream has answered

    def twin(self) -> "Record":
        """Another one that says the same."""
        other = Record(self.id, self.endpoint, self.at, self.started_at)
        other.follow(self)
        return other

    def follow(self, other: "Record") -> None:
        """From here on it says what the other one says."""
        for name in FIELDS:
            setattr(self, name, getattr(other, name))

    def split_off(self) -> "Record":
        """The attempt that just failed, as a record of its own; this one stands as before it."""
        attempt = self.twin()
        attempt.id = f"{self.id}-{self.attempts}"
        attempt.trail = None
        self.ticket = self.usage = self.usage_source = self.cost_nanousd = None
        self.sent = self.refused = False
        self.received = 0
        return attempt

    @property
    def told(self) -> Mapping[str, str]:
        """For a log: which request it is about, and which trace, where somebody watches."""
        about = {"request": self.id}
        return about if self.watched is None else {**about, **self.watched.told}

    @property
    def overhead_s(self) -> float:
        """Time from the first byte read that was not spent waiting for an upstream; waiting for a turn here counts."""
        return max(0.0, self.finished_at - self.started_at - self.upstream_s)
