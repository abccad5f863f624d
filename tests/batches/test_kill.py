"""A batch whose servers are killed ends complete: no line lost, doubled or billed twice.

What each kill may cost: the lines in flight. The upstream had them, so they are settled at their worst case (`crash`), and unless their
result was written already, the next owner asks again, under another id. The same with ten thousand lines, five kills and live traffic in
`make soak`.
"""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest
from sqlalchemy import Engine

from gateway.database import connect
from tests.fixtures.batches import chat_line, results, start, wait
from tests.fixtures.crowd import Crowd
from tests.fixtures.fleet import INPUT, OUTPUT, USD, Line, Places, price, shipped
from tests.fixtures.server import ONCE, Json, Server
from tests.fixtures.upstream import ScriptHandle, Upstream, scripted_upstream
from tests.upstream.behaviour import Behaviour
from tests.upstream.journal import Entry

LINES = 300
CONCURRENCY = 16
MOST_WORSE = 1.2
ROUNDS = 3, 8  # at least, at most
MEASURED_S = 5.0
BUDGET = {"limit_usd": 100, "period": "total"}


class Pair:
    """Two servers on one data folder, as workers are, or on one database and one folder of files, as machines are."""

    def __init__(self, upstream: Upstream, folder: Path, *behaviours: Behaviour, database: str | None = None) -> None:
        self.script = upstream.script(*behaviours)
        self.live = upstream.script(Behaviour(headers_after_s=0.05, prompt_tokens=100, completion_tokens=10))
        self.aside = upstream.script(*behaviours)
        rates = {"input": INPUT / 1000, "output": OUTPUT / 1000}

        def model(name: str, script: ScriptHandle) -> Json:
            one = {"id": name, "base_url": script.base_url, "model": "m", "api_key": "sk-up", "price": rates}
            return {"name": name, "deployments": [one], "retries": ONCE}

        config: Json = {
            "models": [model("billed", self.script), model("live", self.live), model("aside", self.aside)],
            "batches": {"concurrency": CONCURRENCY},
        }
        if database is None:
            self.servers = [Server(config, folder) for _ in range(2)]
        else:
            environ = Places(database, None).environ
            config["files"] = {"directory": str(folder / "files")}
            homes = [folder / "first", folder / "second"]
            for home in homes:
                home.mkdir()
            self.servers = [Server(config, home, environ=environ) for home in homes]
        self.engine: Engine = connect(database or f"sqlite:///{folder / 'data' / 'penstock.db'}")

    def seen(self) -> dict[str, Entry]:
        """What reached the upstream for the batch, by the gateway's id of the call."""
        entries = self.script.entries()
        found = {str(entry.header("x-request-id")): entry for entry in entries}
        assert len(found) == len(entries), "the upstream saw a call twice"
        return found

    def reaches(self, lines: int) -> None:
        self.script.wait(lambda entries: len(entries) >= lines, timeout_s=120)


@contextmanager
def pair(upstream: Upstream, folder: Path, *behaviours: Behaviour, database: str | None = None) -> Iterator[Pair]:
    made = Pair(upstream, folder, *behaviours, database=database)
    try:
        yield made
    finally:
        for server in made.servers:
            if hasattr(server, "_process"):
                server.stop()
        made.engine.dispose()


def client_of(server: Server, key: str) -> openai.OpenAI:
    return openai.OpenAI(api_key=key, base_url=server.base_url, max_retries=0, timeout=20)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.soak)])
def shared_database(request: pytest.FixtureRequest) -> str | None:
    """None: one machine, and its SQLite."""
    if request.param == "sqlite":
        return None
    new: Callable[[str], str] = request.getfixturevalue("new_postgres")
    return new(request.getfixturevalue("migrated_postgres"))


def test_a_batch_outlives_two_servers(upstream: Upstream, tmp_path: Path, shared_database: str | None) -> None:
    """The first one is killed, another takes over, is killed as well, and the first one comes back."""
    behaviour = Behaviour(headers_after_s=0.15, prompt_tokens=100, completion_tokens=10)
    with pair(upstream, tmp_path, behaviour, database=shared_database) as two:
        first, second = two.servers
        second.start(with_key=False)
        first.start(with_key=False)
        key, budget = new_key(first)
        with client_of(first, key) as client:
            id_ = start(
                client, lines(LINES)
            ).id  # whoever is asked works on it, unless the other one looks in that moment
        two.reaches(60)
        first.kill()
        two.reaches(160)
        second.kill()
        first.start(with_key=False)
        with client_of(first, key) as client:
            batch = wait(client, id_)
            complete(two, client, batch, LINES, kills=2)
        if shared_database is not None:
            second.start(with_key=False)  # a machine's journal is its own to recover
        books_are_right(two, first, budget, kills=2)


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_ten_thousand_lines_and_five_kills_beside_live_traffic(tmp_path: Path) -> None:
    """The proof of the issue. Live traffic's 99th percentile is not more than a fifth worse while the batch runs."""
    count, chance = 10_000, random.Random()
    behaviour = Behaviour(headers_after_s=0.04, prompt_tokens=100, completion_tokens=10)
    (tmp_path / "upstream").mkdir()
    with scripted_upstream(tmp_path / "upstream", log=60_000) as upstream, pair(upstream, tmp_path, behaviour) as two:
        working, resting = two.servers
        await asyncio.to_thread(working.start, with_key=False)
        key, budget = new_key(working)
        alone, beside = await asyncio.to_thread(beside_a_batch, two, working)
        began = time.monotonic()
        with client_of(working, key) as client:
            id_ = await asyncio.to_thread(lambda: start(client, lines(count)).id)
        await asyncio.to_thread(two.reaches, 50)
        for kill in range(5):
            await asyncio.to_thread(
                two.reaches, min(count - 400, len(two.script.entries()) + chance.randrange(200, 600))
            )
            working.kill()
            await asyncio.sleep(chance.random())
            working, resting = resting, working
            await asyncio.to_thread(working.start, with_key=False)
            print(f"kill {kill + 1}: {len(two.script.entries())} calls so far")
        with client_of(working, key) as client:
            batch = await asyncio.to_thread(lambda: wait(client, id_, timeout_s=600))
            took_s = time.monotonic() - began
            again = complete(two, client, batch, count, kills=5)
        crashed = books_are_right(two, working, budget, kills=5)
    print(
        f"\n{count} lines in {took_s:.0f} s over five kills: {again} asked again, {crashed} settled at their worst case"
        f"\nlive traffic's p99, the best of each: alone {alone * 1000:.1f} ms, beside a batch {beside * 1000:.1f} ms"
    )
    assert beside <= MOST_WORSE * alone


def beside_a_batch(two: Pair, server: Server) -> tuple[float, float]:
    """The 99th percentile of live calls without and with a batch at work, by turns: what others do on this machine only makes it worse."""
    live_key, batch_key = new_key(server)[0], new_key(server)[0]
    alone: list[float] = []
    beside: list[float] = []
    with client_of(server, batch_key) as client:
        while len(alone) < ROUNDS[0] or (len(alone) < ROUNDS[1] and min(beside) > MOST_WORSE * min(alone)):
            alone.append(asyncio.run(p99(server, live_key)))
            before = len(two.aside.entries())
            id_ = start(client, lines(10_000, "aside")).id
            begun(two.aside, before + 50)
            beside.append(asyncio.run(p99(server, live_key)))
            served = len(two.aside.entries()) - before
            assert client.batches.retrieve(id_).status == "in_progress"
            client.batches.cancel(id_)
            assert wait(client, id_).status == "cancelled"
            print(f"p99 alone {alone[-1] * 1000:.1f} ms, beside {beside[-1] * 1000:.1f} ms and {served} lines")
    return min(alone), min(beside)


def begun(script: ScriptHandle, calls: int) -> None:
    script.wait(lambda entries: len(entries) > calls)


def new_key(server: Server) -> tuple[str, str]:
    made: Json = server.admin.post("/keys", json={"name": "batch", "budget": BUDGET}).json()
    server.await_key(made["key"], known=True)
    return made["key"], made["budget"]["id"]


def lines(count: int, model: str = "billed") -> list[Json]:
    return [chat_line(f"line-{n}", model, f"number {n}", max_tokens=50) for n in range(count)]


async def p99(server: Server, key: str) -> float:
    """Of live calls, in seconds."""
    body = {"model": "live", "max_tokens": 50, "messages": [{"role": "user", "content": "live"}]}
    crowd = Crowd([server], key, body, 8)
    until = time.monotonic() + MEASURED_S
    await crowd.run(lambda _: time.monotonic() > until)
    assert {answer.status for answer in crowd.answers} == {200}
    took = sorted(answer.took_s for answer in crowd.answers)
    return took[len(took) * 99 // 100]


def complete(two: Pair, client: openai.OpenAI, batch: openai.types.Batch, count: int, *, kills: int) -> int:
    """Each line has one result, which is its own answer. How many were asked again."""
    assert batch.status == "completed", batch
    assert batch.request_counts is not None
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (
        count,
        count,
        0,
    )
    found = results(client, batch.output_file_id)
    assert found.keys() == {f"line-{n}" for n in range(count)}
    seen = two.seen()
    for name, line in found.items():
        number = name.removeprefix("line-")
        assert line["response"]["body"]["choices"][0]["message"]["content"] == f"{name}|number {number}"
        assert json.loads(seen[line["response"]["request_id"]].body)["user"] == name
    again = len(seen) - count
    assert 0 <= again <= kills * CONCURRENCY
    return again


def books_are_right(two: Pair, server: Server, budget: str, *, kills: int) -> int:
    """One settlement for each call, at its price or, for those in flight at a kill, its worst case. How many those were."""
    seen = two.seen()
    entries = settled(two, lambda lines: {line.id for line in lines} >= seen.keys())
    by_id = {line.id: line for line in entries}
    assert len(by_id) == len(entries), "a call was settled twice"
    done: Counter[str] = Counter()
    for id_, entry in seen.items():
        line = by_id[id_]
        if line.reason == "crash":
            assert line.source == "estimated"
            assert line.cost_nanousd >= price(entry)
        else:
            assert (line.source, line.cost_nanousd) == ("provider", price(entry))
            done[json.loads(entry.body)["user"]] += 1
    assert max(done.values()) == 1, "a line was billed twice"
    crashed = [line for line in entries if line.reason == "crash"]
    assert 0 < len(crashed) <= kills * CONCURRENCY
    mine = sum(by_id[id_].cost_nanousd for id_ in seen)
    never_sent = sum(line.cost_nanousd for line in crashed if line.id not in seen)
    deadline = time.monotonic() + 30
    while (state := server.admin.get(f"/budgets/{budget}").json())["held_usd"] != 0:
        assert time.monotonic() < deadline, state
        time.sleep(0.1)
    assert round(state["settled_usd"] * USD) == mine + never_sent
    return len(crashed)


def settled(two: Pair, wanted: Callable[[Sequence[Line]], bool]) -> list[Line]:
    deadline = time.monotonic() + 60
    while not wanted(entries := shipped(two.engine)):
        assert time.monotonic() < deadline, "a call has no settlement"
        time.sleep(0.1)
    return entries
