"""One request that was understood, on its way to an answer, and the paths that it may have come by."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Protocol, final

from gateway import bodies, wire
from gateway.catalog import Model
from gateway.continuation import Continuation
from gateway.endpoint import Endpoint
from gateway.exchange import Exchange
from gateway.guards.guarded import Guarded
from gateway.keys import Key
from gateway.record import Record
from gateway.resilience.wishes import NONE, Overrides
from gateway.snapshot import Snapshot

if TYPE_CHECKING:  # for calls that are answered from documents
    from gateway.grounding.looked import Looked


Vet = Callable[[str, Callable[[str], None]], Awaitable[None]]
"""Reads passages, and puts what becomes of them into the call's body by the function that it is given. Raises GatewayError."""


class Contest(Protocol):
    """Attempts at the same time: whichever claims the client first answers it."""

    def claim(self, call: "Call") -> None: ...


FIELDS: Final = (
    "behalf",
    "body",
    "continuation",
    "deadline",
    "endpoint",
    "exchange",
    "grounds",
    "guarded",
    "match",
    "model",
    "overrides",
    "race",
    "record",
    "request",
    "snapshot",
    "vet",
)


@final
class Call:
    """`match` is what the model's wildcard stood for. `body` is the client's, or what a budget or a fallback made of it.

    `deadline` is one for all tries, on the event loop's clock.
    """

    __slots__ = FIELDS

    def __init__(
        self,
        endpoint: Endpoint,
        exchange: Exchange,
        body: bytes,
        request: bodies.Request,
        model: Model,
        match: str,
        snapshot: Snapshot,
        record: Record,
    ) -> None:
        self.body = body
        self.endpoint = endpoint
        self.exchange = exchange
        self.request = request
        self.model = model
        self.match = match
        self.snapshot = snapshot
        self.record = record
        self.deadline = record.started_at + model.timeouts.total_s
        self.overrides: Overrides = NONE
        self.continuation: Continuation | None = None  # of a stream that may go on elsewhere
        self.grounds: Looked | None = None
        self.guarded: Guarded | None = None  # where it has guards
        self.behalf: Key | None = None  # whose guards those are, if not those of whom it is recorded for
        self.vet: Vet | None = None  # guards, for what is added to the request behind them
        self.race: Contest | None = None  # it is one of several attempts at the same time

    def twin(self) -> "Call":
        """Another one of the same, with a record of its own."""
        other = Call(
            self.endpoint, self.exchange, self.body, self.request, self.model, self.match, self.snapshot, self.record
        )
        for name in FIELDS:
            setattr(other, name, getattr(self, name))
        other.record = self.record.twin()
        return other

    def becomes(self, name: str, model: Model, match: str) -> None:
        """From here on it is a call of another model, under a name of that one's. Raises BadRequest if the body cannot be rewritten."""
        self.model, self.match = model, match
        self.request.model = name
        if self.endpoint.door is None:  # a door names the model when it sends
            self.body = wire.rewrite(self.body, name, ask_usage=False)
        self.record.model, self.record.metric_model = name, model.name
