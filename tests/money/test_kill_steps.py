"""A server that dies at any step of a call's path: nothing settled is lost, nothing is there twice, nobody is served for free.

A few steps in every run, all of them in `make soak`."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path

import httpx
import pytest
from _pytest.mark.structures import ParameterSet

from gateway import ledger
from gateway.database import connect
from tests.fixtures.crowd import Crowd
from tests.fixtures.fleet import USD, Fleet, Line, Places, ask, fleet, price
from tests.fixtures.server import SERVE
from tests.fixtures.upstream import Upstream
from tests.upstream.behaviour import Behaviour

CLIENTS = 8


def of(*steps: tuple[str, int], soak: bool = False) -> list[ParameterSet]:
    """Which crossing of each step kills."""
    return [pytest.param(*step, marks=[pytest.mark.soak] if soak else []) for step in steps]


SERVING = (
    *of(("after send", 40), ("before settlement", 40), ("after borrow", 2), ("after rows", 3), ("after checkpoint", 1)),
    *of(("before intent", 40), ("after intent", 40), ("before close", 40), ("after settlement", 40), soak=True),
    *of(("before write", 61), ("after write", 60), ("after write", 61), soak=True),
    *of(("before borrow", 2), ("before report", 2), ("after report", 2), soak=True),
    *of(("after commit", 3), ("before checkpoint", 1), soak=True),
)
RECOVERING = (
    *of(("after ending", 1), ("after recovered rows", 1), ("after session's end", 1)),
    *of(("before ending", 1), ("before recovered rows", 1), ("after rows", 1), soak=True),
    *of(("before session's end", 1), ("after deletion", 1), soak=True),
)
LEAVING = (
    *of(("before session's end", 1)),
    *of(("before farewell", 1), ("after session's end", 1), soak=True),
)

pytestmark = pytest.mark.timeout(90)


@pytest.mark.parametrize(("step", "number"), SERVING)
async def test_a_server_killed_while_it_serves_keeps_its_books(
    step: str, number: int, upstream: Upstream, tmp_path: Path
) -> None:
    """Killed at the step for the n-th time, it starts again on the same data and the books are as the upstream's."""
    async with alone(upstream, tmp_path, kill_at(step, number, tmp_path)) as one:
        server = one.servers[0]
        key, made = one.new_key(budget={"limit_usd": 5, "period": "total"})
        (tmp_path / "armed").touch()

        crowd = Crowd([server], key, ask(max_tokens=20, padding=40), CLIENTS)
        await crowd.run(lambda _: not server.running())
        await back_and_right(one, made["budget"]["id"], tmp_path, crowd)


@pytest.mark.parametrize(("step", "number"), RECOVERING)
async def test_a_recovery_that_is_killed_is_done_again(
    step: str, number: int, upstream: Upstream, tmp_path: Path
) -> None:
    """Killed under load, then killed while it recovers, it ends as if it had been killed once."""
    async with alone(upstream, tmp_path) as one:
        server = one.servers[0]
        key, made = one.new_key(budget={"limit_usd": 5, "period": "total"})
        crowd = Crowd([server], key, ask(max_tokens=20, padding=40), CLIENTS)
        async with asyncio.TaskGroup() as group:
            group.create_task(crowd.run(lambda _: not server.running()))
            await crowd.reaches(60)
            server.kill()

        (tmp_path / "armed").touch()
        server.program = kill_at(step, number, tmp_path)
        with suppress(httpx.HTTPError):  # it may live long enough to say that it is ready, or not
            server.start(with_key=False)
        assert server.wait() == -9
        await back_and_right(one, made["budget"]["id"], tmp_path, crowd)


@pytest.mark.parametrize(("step", "number"), LEAVING)
async def test_a_farewell_that_is_killed_leaves_nothing_open(
    step: str, number: int, upstream: Upstream, tmp_path: Path
) -> None:
    """A drained server that dies while it closes its books is like any other dead one."""
    async with alone(upstream, tmp_path, kill_at(step, number, tmp_path)) as one:
        server = one.servers[0]
        key, made = one.new_key(budget={"limit_usd": 5, "period": "total"})
        crowd = Crowd([server], key, ask(max_tokens=20, padding=40), CLIENTS)
        await crowd.run(lambda crowd: crowd.served >= 60)
        (tmp_path / "armed").touch()
        server.terminate()
        assert server.wait() == -9
        await back_and_right(one, made["budget"]["id"], tmp_path, crowd)


def alone(upstream: Upstream, folder: Path, program: Sequence[str] = SERVE) -> AbstractAsyncContextManager[Fleet]:
    """One server on SQLite, as somebody has it who configured nothing."""
    behaviour = Behaviour(headers_after_s=0.005, prompt_tokens=600, completion_tokens=17)
    return fleet(1, Places(f"sqlite:///{folder / 'penstock.db'}", None), upstream, folder, behaviour, program=program)


def kill_at(step: str, number: int, folder: Path) -> tuple[str, ...]:
    """What to start instead of the server."""
    return ("-m", "tests.kill.at", step, str(number), str(folder))


async def back_and_right(one: Fleet, budget: str, folder: Path, crowd: Crowd) -> None:
    """Starts the server as it is sold, and compares its books with the upstream's."""
    server = one.servers[0]
    server.kill()
    server.program = SERVE
    began = time.monotonic()
    await asyncio.to_thread(server.start, with_key=False)
    seen = one.seen()
    await settled_all(one, budget, began)
    lines = one.ledger()

    by_id = {line.id: line for line in lines}
    assert len(by_id) == len(lines), "a call was settled twice"
    assert by_id.keys() >= seen.keys(), "a call reached the upstream and has no entry"
    for id_, cost in journaled(folder).items():
        assert by_id[id_].cost_nanousd == cost, "what was settled in the journal is not what the ledger says"
        assert by_id[id_].reason == "done"
    crashed = [line for line in lines if line.reason == "crash"]
    for line in lines:
        entry = seen.get(line.id)
        if line in crashed:
            assert line.source == "estimated"
            assert entry is None or line.cost_nanousd >= price(entry)
        else:
            assert entry is not None
            assert line.cost_nanousd == price(entry)
    assert len(crashed) <= CLIENTS
    assert {answer.id for answer in crowd.answers if answer.status == 200} <= by_id.keys()
    assert not list((folder / "server-0" / "data" / "journal").glob("*.draft"))
    whole(folder, lines)
    state = one.budget(budget)
    assert round(state["settled_usd"] * USD) == sum(line.cost_nanousd for line in lines)


async def settled_all(one: Fleet, budget: str, began: float) -> None:
    """Once the dead session's journal is gone and nothing is held, all of it is in the books."""
    folder = one.servers[0].data / "journal"

    def sessions() -> list[Path]:
        return list(folder.iterdir())

    while len(sessions()) > 1 or one.budget(budget)["held_usd"] != 0:
        assert time.monotonic() < began + 40, (sessions(), one.budget(budget))
        await asyncio.sleep(0.05)
    print(f"recovered in {time.monotonic() - began:.2f} s, start included")


def journaled(folder: Path) -> dict[str, int]:
    """What the killed process saw its journal take, by call. None: the process was the plain one."""
    file = folder / "settled"
    if not file.exists():
        return {}
    return {id_: int(cost) for id_, cost in (line.split() for line in file.read_text().splitlines())}


def whole(folder: Path, lines: Sequence[Line]) -> None:
    engine = connect(f"sqlite:///{folder / 'penstock.db'}")
    verdict = ledger.verify(engine)
    engine.dispose()
    assert not verdict.broken, verdict.broken
    assert verdict.entries == len(lines)
