"""A process that dies between two attempts: what was settled is there once, and what was not is settled at its worst."""

from collections.abc import Sequence
from pathlib import Path
from threading import Thread

import httpx
import msgspec
import pytest

from gateway.journal_batch import OpenCalls, batches
from gateway.journal_files import Run
from gateway.journal_records import Intent, Settled
from tests.fixtures.deployments import PRICE, Routes
from tests.fixtures.ledger import intent, settled
from tests.fixtures.server import Server
from tests.fixtures.upstream import Upstream
from tests.upstream.behaviour import Behaviour

OPENED = intent(1)
ENDED = settled(1)
HEDGE = msgspec.structs.replace(OPENED, id=f"{OPENED.id}-2")


def attempt(number: int) -> Settled:
    return msgspec.structs.replace(ENDED, id=f"{ENDED.id}-{number}", attempts=number)


def end(attempts: int) -> Settled:
    return msgspec.structs.replace(ENDED, attempts=attempts)


@pytest.mark.parametrize(
    ("records", "left"),
    [
        ((OPENED,), [OPENED.id]),
        ((OPENED, attempt(1)), []),
        ((OPENED, attempt(1), OPENED), [OPENED.id]),
        ((OPENED, attempt(1), OPENED, attempt(2)), []),
        ((OPENED, attempt(1), OPENED, end(2)), []),
        ((OPENED, HEDGE, attempt(2)), [OPENED.id]),
        ((OPENED, HEDGE, attempt(1)), [HEDGE.id]),
        ((OPENED, HEDGE, attempt(1), end(2)), []),
        ((OPENED, HEDGE, attempt(2), end(2)), []),
    ],
)
def test_what_is_open_after_each_step(records: Sequence[Intent | Settled], left: list[str]) -> None:
    """An attempt's settlement ends its request's intent, unless it was announced by itself; a request's end leaves nothing."""
    open_ = OpenCalls()
    for batch in batches(Run(0, [msgspec.msgpack.encode(record) for record in records])):
        open_.take(batch)
    assert [one.id for one in open_.intents()] == left


def test_a_server_killed_between_two_attempts_bills_the_first_once(upstream: Upstream, tmp_path: Path) -> None:
    """It waits for its second try when it dies: the refused first one is settled, and nothing else was sent."""
    handle = upstream.script(Behaviour(status=500))
    slow = {"attempts": 1, "base_s": 60, "max_s": 60}
    place = {"id": "a", "base_url": handle.base_url, "model": "x", "price": PRICE}
    server = Server({"models": [{"name": "slow", "deployments": [place], "retries": slow}]}, tmp_path).start()
    try:
        asker = Thread(target=_ask_in_vain, args=(server,))
        asker.start()
        handle.ended()
        server.http.get("/health/live")  # the turn of the event loop in which the refusal was read is over
        server.kill()
        asker.join()
        server.start(with_key=False)
        routes = Routes(server, upstream)
        first = routes.settled(1)
        assert [(one["id"].partition("-")[2], one["cost_nanousd"], one["error_code"]) for one in first] == [
            ("1", 0, "upstream_error")
        ]
    finally:
        server.stop()


def _ask_in_vain(server: Server) -> None:
    with pytest.raises(httpx.HTTPError):
        server.post("/v1/chat/completions", server.ask("slow"))
