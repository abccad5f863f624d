"""Alerts of budgets: each threshold once per window, over replicas and restarts, told to webhooks that may fail."""

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from structlog.testing import capture_logs

from admin.alerts import Alerts
from admin.webhooks import DELIVERY, SIGNATURE, Webhook, signature
from gateway.scopes import SLOTS, Budget, Period, Scope, bind
from gateway.shares import Share, Shares
from tests.fixtures.server import Server
from tests.fixtures.upstream import Upstream
from tests.upstream.behaviour import Behaviour

USD = 1_000_000_000
NOW = 1_795_000_000.0


class Receiver:
    """A real server on this machine that refuses the first messages. `got`: time, headers and body of each try."""

    def __init__(self, failures: int) -> None:
        self.got: list[tuple[float, dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.got.append((time.monotonic(), headers, body))
                self.send_response(503 if len(receiver.got) <= failures else 204)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 — the base class names it
                """Nothing: pytest shows what matters."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook/with-a-password"

    def wait(self, count: int, timeout_s: float = 10) -> None:
        deadline = time.monotonic() + timeout_s
        while len(self.got) < count:
            assert time.monotonic() < deadline, self.got
            time.sleep(0.02)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Callable[[int], Receiver]]:
    made: list[Receiver] = []

    def new(failures: int) -> Receiver:
        made.append(Receiver(failures))
        return made[-1]

    yield new
    for each in made:
        each.close()


def share(period: Period = "day", *, unix: float = NOW, rolling: bool = False, generation: int = 0) -> Share:
    budget = Budget("bud_1", Scope("team", "t"), USD, period, rolling=rolling, generation=generation)
    return Shares().of(bind(budget, "t"), unix)


async def run_for(background: Coroutine[Any, Any, None], work: Awaitable[None]) -> None:
    """Runs what never ends for as long as the work takes."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(background)
        await work
        task.cancel()


async def report(alerts: Alerts, *seen: tuple[Share, int]) -> None:
    """Until all of it was told, or need not be."""
    for each, settled in seen:
        alerts.seen(each, settled)
    await run_for(alerts.run(), alerts._waiting.join())


async def told(alerts: Alerts, *seen: tuple[Share, int]) -> list[float]:
    """The thresholds that are logged after these reports."""
    return await logged(report(alerts, *seen))


async def logged(work: Awaitable[object]) -> list[float]:
    """The thresholds that are logged meanwhile. Structlog captures for the whole process: only one of these at a time."""
    with capture_logs() as logs:
        await work
    assert "alerts.waiting" not in {entry["event"] for entry in logs}, logs
    return [entry["threshold"] for entry in logs if entry["event"] == "budget.threshold"]


async def test_each_threshold_is_told_once_over_replicas_and_restarts(engine: Engine) -> None:
    """Two processes see the same, and a third begins with an empty memory."""
    replicas = [Alerts(engine, (), lambda: NOW) for _ in range(2)]
    twice = (share(), USD * 6 // 10), (share(), USD * 6 // 10)
    assert await logged(asyncio.gather(*(report(each, *twice) for each in replicas))) == [0.5]
    assert sum(sum(each.counts.values()) for each in replicas) == 1
    restarted = Alerts(engine, (), lambda: NOW)
    assert await told(restarted, (share(), USD * 6 // 10)) == []
    assert await told(restarted, (share(), USD)) == [0.8, 1.0]
    assert restarted.counts == {"80": 1, "100": 1}


async def test_the_next_window_and_a_reset_tell_again(engine: Engine) -> None:
    """A day later, or in a new generation of the budget, nothing is spent yet."""
    now = [NOW]
    alerts = Alerts(engine, (), lambda: now[0])
    assert await told(alerts, (share(), USD // 2)) == [0.5]
    assert await told(alerts, (share(generation=1), USD // 2)) == [0.5]
    now[0] += 86_400
    assert await told(alerts, (share(unix=now[0]), USD // 2)) == [0.5]
    assert await told(alerts, (share("total", unix=now[0]), USD // 2)) == []  # the same account, and told before


async def test_a_rolling_window_tells_once_per_its_length(engine: Engine) -> None:
    """Its slots are accounts of their own, and none of them is a reason to tell again."""
    now = [NOW]
    alerts = Alerts(engine, (), lambda: now[0])
    length, slots = SLOTS["hour"]
    found = []
    for _ in range(slots + 2):
        found += await told(alerts, (share("hour", unix=now[0], rolling=True), USD // 2))
        now[0] += length
    assert found == [0.5, 0.5]


async def test_labels_of_the_metric_are_bounded(engine: Engine) -> None:
    """Thresholds are whatever somebody writes."""
    alerts = Alerts(engine, (), lambda: NOW)
    for number in range(5):
        levels = tuple((10 * number + step) / 100 for step in range(1, 11))
        budget = Budget(f"bud_{number}", Scope("team", "t"), USD, "day", thresholds=levels)
        await told(alerts, (Shares().of(bind(budget, "t"), NOW), USD))
    assert len(alerts.counts) == 21
    assert alerts.counts["other"] == 30


async def test_a_webhook_that_fails_twice_gets_it_at_the_third_try(receiver: Callable[[int], Receiver]) -> None:
    """The same bytes under the same delivery, signed, with growing pauses; and what follows is not lost."""
    there = receiver(2)
    webhook = Webhook(there.url, "a secret", backoff_s=0.1)
    webhook.offer(b'{"n":1}')
    webhook.offer(b'{"n":2}')
    await run_for(webhook.run(), asyncio.to_thread(there.wait, 4))
    times, headers, bodies = zip(*there.got, strict=True)
    assert bodies == (b'{"n":1}', b'{"n":1}', b'{"n":1}', b'{"n":2}')
    assert len({each[DELIVERY] for each in headers[:3]}) == 1
    assert headers[0][SIGNATURE] == signature("a secret", b'{"n":1}')
    assert times[1] - times[0] > 0.09
    assert times[2] - times[0] > 0.28  # twice as long the second time


async def test_a_webhook_that_never_answers_is_given_up_and_nobody_waits(receiver: Callable[[int], Receiver]) -> None:
    """After five tries; offering more than there is room for drops and says so, without the address."""
    there = receiver(1_000_000)
    webhook = Webhook(there.url, None, backoff_s=0.01)
    with capture_logs() as logs:
        began = time.monotonic()
        for _ in range(1_001):
            webhook.offer(b"{}")
        assert time.monotonic() - began < 5
        await run_for(webhook.run(), asyncio.to_thread(there.wait, 6))
    dropped = [entry for entry in logs if entry["event"] == "webhook.dropped"]
    assert [entry["reason"] for entry in dropped][:2] == ["too many messages are waiting", "status 503"]
    assert "password" not in json.dumps(logs)
    assert SIGNATURE not in there.got[0][1]


def test_a_real_process_tells_a_webhook_once_even_if_it_is_started_again(
    upstream: Upstream, tmp_path: Path, receiver: Callable[[int], Receiver]
) -> None:
    """From the call that passes the threshold to the receiver that refuses twice, and not again after a restart."""
    there = receiver(2)
    script = upstream.script(Behaviour(prompt_tokens=500, completion_tokens=100))
    where = {"id": "m", "base_url": script.base_url, "model": "m", "price": {"input": 1, "output": 1}}
    config: dict[str, Any] = {
        "models": [{"name": "m", "deployments": [where]}],
        "alerts": {"webhooks": [{"url": there.url, "secret": "long enough"}]},
    }
    server = Server(config, tmp_path).start()
    try:
        made = server.admin.post("/keys", json={"name": "k"}).json()
        body = {"scope": {"kind": "key", "id": made["id"]}, "limit_usd": 0.001, "period": "total", "thresholds": [0.5]}
        budget = server.admin.post("/budgets", json=body).json()
        server.await_key(made["key"], known=True)
        server.new_key()  # made after the budget, so the budget is in force where the key is known
        answer = server.post("/v1/chat/completions", server.ask("m", max_tokens=100), key=made["key"])
        assert answer.status_code == 200, answer.text
        there.wait(3)
        _, headers, raw = there.got[-1]
        message = json.loads(raw)
        assert headers[SIGNATURE] == signature("long enough", raw)
        assert (message["budget"], message["scope"]) == (budget["id"], f"key:{made['id']}")
        assert (message["threshold"], message["settled_usd"], message["limit_usd"]) == (0.5, 0.0006, 0.001)
        assert (message["period"], message["resets_at"]) == ("total", None)
        metrics = server.http.get("/metrics").text
        assert 'penstock_budget_alerts_total{threshold="50"} 1.0' in metrics
        server.restart()
        assert server.post("/v1/chat/completions", server.ask("m", max_tokens=1), key=made["key"]).status_code == 429
        time.sleep(1.2)
        assert len(there.got) == 3
    finally:
        server.stop()
