"""What the process itself logs, at a collector: with its trace, and without what an exception or an address may quote."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import structlog
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from admin import logs
from admin.telemetry.feed import Refused, Unacceptable
from admin.telemetry.otlp import Logs, Message
from admin.telemetry.process_logs import ProcessLogs
from gateway.contents.redaction import redact
from tests.fixtures.collector import attributes
from tests.fixtures.server import refused_port
from tests.telemetry.watched import Watched
from tests.upstream.behaviour import Behaviour

CANARY = "canary-7f1e"
KEY = "sk-" + "ps-0123456789abcdefABCDEF0123456789"


def made(level: str = "info", room: int = 8, inside: tuple[int, int] | None = None) -> ProcessLogs:
    return ProcessLogs(level, room, redact, lambda: inside, lambda: 1_796_000_000.0)


def logged(own: ProcessLogs, level: str, event: str, **fields: Any) -> None:
    own(None, level, {"level": level, "event": event, **fields})


class Sender:
    """Keeps what it is given; `fails` is raised instead, once each."""

    def __init__(self, *fails: Exception) -> None:
        self.sent: list[ExportLogsServiceRequest] = []
        self._fails = list(fails)

    def send(self, message: Message) -> None:
        if self._fails:
            raise self._fails.pop(0)
        assert isinstance(message, ExportLogsServiceRequest)
        self.sent.append(message)

    def close(self) -> None: ...

    @property
    def events(self) -> Sequence[str]:
        return [record.event_name for one in self.sent for record in one.resource_logs[0].scope_logs[0].log_records]


def test_a_failure_says_where_it_happened_and_not_what_was_said() -> None:
    """Of an exception its kind and its frames; a key in a field is taken out, a query is left out, and what is long is cut."""
    own, sender = made(), Sender()
    try:
        int(f"{CANARY} is no number")
    except ValueError as error:
        fields = {"path": f"/v1/x?q={CANARY}", "key": KEY, "count": 3, "long": "x" * 5000}
        logged(own, "error", "request.failed", exc_info=error, **fields)
    Logs(sender, {}, "1", own).tick()
    (record,) = sender.sent[0].resource_logs[0].scope_logs[0].log_records
    told = attributes(record.attributes)
    assert told["exception.type"] == "ValueError"
    assert "test_process_logs.py" in told["exception.stacktrace"]
    assert told["penstock.path"] == "/v1/x"
    assert told["penstock.count"] == 3
    assert len(told["penstock.long"]) <= 300
    assert (record.severity_text, record.event_name) == ("ERROR", "request.failed")
    for secret in (CANARY, KEY):
        assert secret.encode() not in sender.sent[0].SerializeToString()


def test_an_event_is_in_the_trace_that_it_names_or_that_runs() -> None:
    own = made(inside=(0xA, 0xB))
    event = {"level": "info", "event": "searched"}
    own(None, "info", event)
    assert event["trace_id"] == f"{0xA:032x}", "the log on stderr says it, too"
    logged(own, "info", "failed", trace_id=f"{0xC:032x}", span_id=f"{0xD:016x}")
    assert [(one.trace, one.span) for one in own.taken(9)] == [(0xA, 0xB), (0xC, 0xD)]


def test_what_is_below_the_level_or_about_telemetry_is_not_sent() -> None:
    """Else a collector that is away would fill its own queue."""
    own = made("warning")
    logged(own, "info", "server.started")
    logged(own, "warning", "telemetry.refused")
    logged(own, "warning", "leases.silent")
    assert [one.name for one in own.taken(9)] == ["leases.silent"]


def test_a_collector_that_is_away_loses_the_oldest_and_is_told_how_many() -> None:
    own, sender = made(room=2), Sender(Refused("busy"), Unacceptable("never"))
    sink = Logs(sender, {}, "1", own)
    logged(own, "info", "first")
    with pytest.raises(Refused):
        sink.tick()
    with pytest.raises(Unacceptable):  # the same again, which is then given up
        sink.tick()
    for name in ("second", "third", "fourth"):
        logged(own, "info", name)
    sink.tick()
    sink.tick()
    assert sender.events == ["third", "fourth", "process_logs.dropped"]


@pytest.fixture
def usual_logging() -> Iterator[None]:
    """Not as another test of this process has set it up, which may hear errors alone."""
    others = structlog.get_config()
    structlog.reset_defaults()
    yield
    structlog.configure(**others)


@pytest.mark.usefixtures("usual_logging")
def test_loggers_that_are_in_use_are_heard_and_left() -> None:
    own = made()
    before = list(structlog.get_config()["processors"])
    logs.add(own)
    try:
        structlog.get_logger("x").warning("heard")
    finally:
        logs.remove(own)
    structlog.get_logger("x").warning("not heard")
    assert structlog.get_config()["processors"] == before
    assert [one.name for one in own.taken(9)] == ["heard"]


def test_a_server_tells_its_collector_what_it_logs(watched: Watched) -> None:
    """A guard that cannot be asked: the log has the trace of the call that it was for."""
    with refused_port() as port:
        url = f"http://127.0.0.1:{port}/{CANARY}"
        body = {"name": "gone", "kind": "http", "url": url, "on_error": "fail_open"}
        assert watched.server.admin.post("/guards", json=body).status_code == 201
        route = watched.routes(Behaviour(), guards=["gone"])
        status, trace = watched.ask(route.name, f"{CANARY} said")
    assert status == 200
    record = watched.collector.wait(
        lambda one: next((each for each in one.logs() if each.event_name == "guard.failed"), None)
    )
    assert record.trace_id.hex() == trace
    (request,) = watched.spans(trace, 2)["server"]
    assert record.span_id == request.span_id
    assert attributes(record.attributes)["penstock.guard"] == "gone"
    assert trace in watched.server.output
    assert CANARY.encode() not in watched.collector.everything
