"""A server with receivers that are well, slow and dead: each by itself, and nobody who asks notices."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from admin.webhooks import signature
from tests.fixtures.collector import Collector, collecting
from tests.fixtures.deployments import Routes
from tests.fixtures.server import Server
from tests.fixtures.upstream import Upstream
from tests.telemetry.until import until
from tests.upstream.behaviour import Behaviour

SECRET = "shared with the receiver"
CANARY = "canary-71c2"


class Told:
    """The server, and who is told."""

    def __init__(self, server: Server, routes: Routes, well: Collector, wanting: Collector, log: Path) -> None:
        self.server = server
        self.routes = routes
        self.well = well
        self.wanting = wanting
        self.log = log

    def metric(self, name: str, sink: str) -> float:
        families = text_string_to_metric_families(self.server.http.get("/metrics").text)
        samples = [one for family in families for one in family.samples if one.name == f"penstock_telemetry_{name}"]
        return next(one.value for one in samples if one.labels["sink"].startswith(sink))

    def settled(self) -> None:
        """What the other test asked has been passed on, so that there is room: the queue is short here, and what finds none is dropped."""

        def counts() -> tuple[float, ...]:
            return self.metric("delivered_total", "json_log"), self.metric("waiting", "webhook_127")

        before = counts()

        def still() -> bool:
            nonlocal before
            last, before = before, counts()
            time.sleep(0.5)
            return last == before and not before[1]

        until(still)


@pytest.fixture(scope="module")
def told(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    folder = tmp_path_factory.mktemp("receivers")
    with collecting() as well, collecting() as wanting, collecting() as slow:
        slow.hold_s = 600
        config = {
            "models": [],
            "records": {"content": {"enabled": True}},
            "telemetry": {
                "interval_s": 0.1,
                "queue": 32,
                "batch": 4,
                "otlp": {"endpoint": "http://127.0.0.1:1", "signals": ["traces"]},
                "json_log": {"path": str(folder / "requests.jsonl")},
                "webhooks": [
                    {"url": f"{well.url}/well", "secret": SECRET},
                    {"url": f"{wanting.url.replace('127.0.0.1', 'localhost')}/wanting", "content": True},
                ],
                "langfuse": {"url": slow.url, "public_key": "pk-canary-9", "secret_key": "sk-canary-9"},
            },
        }
        server = Server(config, folder).start()
        yield Told(server, Routes(server, upstream), well, wanting, folder / "requests.jsonl")
        alive = server.running()
        server.stop()
        assert alive, server.output
        assert "telemetry.dropped" in server.output


def test_each_receiver_gets_what_it_should(told: Told) -> None:
    """A line in the log, a signed record, and what was said only where that is wanted."""
    told.settled()
    route = told.routes(Behaviour(text=f"{CANARY} answered"))
    answer = told.routes.ask(route, text=f"{CANARY} asked", headers={"x-penstock-tags": "here"})
    id_ = answer.headers["x-request-id"]

    def found(collector: Collector) -> list[dict[str, object]]:
        records = [one for each in collector.received for one in json.loads(each.body)["records"]]
        return [one for one in records if one["id"] == id_]

    (record,) = told.well.wait(found)
    (full,) = told.wanting.wait(found)
    assert record["tags"] == ["here"]
    assert record["deployment"] == route.places[0].id
    assert CANARY.encode() not in told.well.everything
    assert CANARY in str(full["request_text"])
    assert CANARY in str(full["answer_text"])
    sent = next(each for each in told.well.received if id_.encode() in each.body)
    assert sent.headers["x-penstock-signature"] == signature(SECRET, sent.body)
    assert until(lambda: id_ in told.log.read_text())
    assert CANARY not in told.log.read_text()
    assert CANARY not in told.server.output


def test_who_is_dead_or_slow_is_nobodys_trouble(told: Told) -> None:
    """Calls go on, others are told; what found no room is counted, and how long something waits."""
    route = told.routes(Behaviour())

    def dropped() -> bool:
        """As fast as the machine asks; the slow one is slower once its queue is full."""
        for _ in range(60):
            assert told.routes.ask(route).status_code == 200
        return told.metric("dropped_total", "langfuse") > 0

    until(dropped)
    until(lambda: told.metric("failures_total", "otlp_traces") > 0)
    until(lambda: told.metric("lag_seconds", "langfuse") > 0)
    assert told.metric("waiting", "langfuse") <= 32
    until(lambda: told.metric("delivered_total", "json_log") > 0)
    assert "sk-canary-9" not in told.server.output
    assert b"canary-9" not in told.well.everything
