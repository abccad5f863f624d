"""Predictions at the gateway's till: the key, the limits, the hold, the ledger and the record are those of every other call."""

from collections.abc import Callable, Mapping
from typing import Final, final

from gateway import errors
from gateway.answer_head import answer_head
from gateway.authentication import ADMIN, Authenticator
from gateway.completion import tags_of
from gateway.ids import RequestIds
from gateway.keys import Key
from gateway.metering import Meter
from gateway.need import Need, Offer
from gateway.record import LEFT, Record
from gateway.snapshot import Current, Snapshot
from gateway.usage import usage
from gateway.used import NOTHING
from inference.errors import InferenceError
from inference.serving.errors import Refused

PROVIDER: Final = "inference"
ONE_CALL: Final = usage()
SESSION: Final = b"x-penstock-session"
MOST_USER: Final = 200


@final
class Caller:
    """`inference.serving.desk.Caller`."""

    def __init__(self, key: Key) -> None:
        self._key = key
        self.admin = key is ADMIN

    def may_use(self, model: str) -> bool:
        return self.admin or self._key.may_use(model)


@final
class Visit:
    """`inference.serving.desk.Visit`."""

    def __init__(self, desk: "Desk", record: Record, headers: Mapping[bytes, bytes], path: str) -> None:
        self._desk = desk
        self._record = record
        self._headers = headers
        self._path = path
        self._snapshot: Snapshot | None = None
        self.id = record.id
        self.at = record.at
        self.started_at = record.started_at
        self.cost_nanos = 0

    @property
    def owner(self) -> tuple[str, str | None, str | None]:
        key = self._record.key
        assert key is not None
        return key.id, key.team_id, key.org_id

    @property
    def unit(self) -> str:
        session = self._headers.get(SESSION)
        return self._record.user or (self.id if session is None else session.decode("latin-1"))

    def enter(self) -> None:
        desk = self._desk
        self._snapshot = snapshot = desk.current.snapshot
        try:
            self._record.key = key = desk.authenticator.caller(snapshot, self._headers)
            if not key.may_call(self._path):
                raise errors.AccessDenied(f"This key may not call {self._path}", code="route_access_denied")
        except errors.GatewayError as error:
            raise refused(error) from None

    def about(self, model: str, user: str | None = None) -> None:
        record, key = self._record, self._record.key
        assert key is not None
        if not key.may_use(model):
            raise refused(errors.AccessDenied(f"This key may not use the model '{model}'", param="model"))
        if user:
            record.user = user[:MOST_USER]
        tags = self._headers.get(b"x-penstock-tags")
        if tags is not None:
            record.tags = tags_of(tags)

    def require_named(self, path: str) -> None:
        key = self._record.key
        assert key is not None
        if key is not ADMIN and (key.routes is None or not key.may_call(path)):
            why = f"Only a key whose own list of routes has {path} may call it"
            raise refused(errors.AccessDenied(why, code="route_access_denied"))

    def found(self, model: str, version: int) -> None:
        record = self._record
        record.model = record.metric_model = model
        record.provider = PROVIDER
        record.deployment = f"{model}:{version}"

    async def hold(self, nanos: int) -> None:
        record, snapshot, meter = self._record, self._snapshot, self._desk.meter
        assert snapshot is not None
        offer = Offer(None, Need(nanos, 0, 0), nanos, ONE_CALL)
        try:
            if not meter.open_at_once(snapshot.rules, record, offer):
                await meter.open_borrowing(snapshot.rules, record, offer)
        except errors.GatewayError as error:
            raise refused(error) from None
        record.attempts = 1
        record.sent = True

    def done(self, model_s: float) -> None:
        record = self._record
        record.status = 200
        record.usage, record.usage_source = ONE_CALL, "counted"
        record.upstream_s = model_s
        record.finished_at = self._desk.now()
        self.cost_nanos = self._desk.meter.cost(record) or 0

    def failed(self, error: InferenceError) -> None:
        record = self._record
        record.status, record.error_code = error.status, error.code or error.type
        if record.sent:
            record.usage, record.usage_source, record.cost_nanousd = NOTHING, "counted", 0
            self.cost_nanos = 0

    def head(self, content_type: bytes) -> bytes:
        cost = b"x-penstock-cost-usd: %d.%09d\r\n" % divmod(self.cost_nanos, 1_000_000_000)
        return answer_head(self._record, None, content_type) + cost

    def fail_head(self) -> bytes:
        return b"x-request-id: %b\r\n" % self.id.encode()

    def close(self) -> None:
        record = self._record
        record.finished_at = self._desk.now()
        if not record.status:
            record.status, record.error_code = 499, LEFT
        self._desk.meter.close(record, b"")
        self._desk.finished(record)


@final
class Desk:
    """`inference.serving.desk.Desk`. `unix` and `now` are clocks; `finished` is given each record once."""

    def __init__(
        self,
        *,
        current: Current,
        authenticator: Authenticator,
        meter: Meter,
        finished: Callable[[Record], None],
        unix: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self.current = current
        self.authenticator = authenticator
        self._unix = unix
        self._ids = RequestIds()
        self.meter = meter
        self.finished = finished
        self.now = now

    def caller(self, headers: Mapping[bytes, bytes]) -> Caller:
        try:
            return Caller(self.authenticator.caller(self.current.snapshot, headers))
        except errors.GatewayError as error:
            raise refused(error) from None

    def open(self, headers: Mapping[bytes, bytes], endpoint: str, path: str, started_at: float) -> Visit:
        at = self._unix()
        return Visit(self, Record(self._ids.at(at), endpoint, at, started_at), headers, path)


def refused(error: errors.GatewayError) -> Refused:
    """The same in the words of the other plane."""
    return Refused(error.status, error.message, error.type, error.code, param=error.param, headers=tuple(error.headers))
