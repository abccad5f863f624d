"""The questions of a partition: what a graph finds is what comparing with all of them finds, whatever came and went meanwhile."""

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gateway.cache.entry import Entry
from gateway.cache.index import BEHIND, FEW, GRAPH_FROM, Asked, Index, Partition
from gateway.cache.log import QuestionLog
from gateway.cache.meaning import Question
from gateway.cache.meanings import Meaning, Meanings
from gateway.cache.policy import Semantic
from gateway.cache.redis import RedisStore
from tests.fixtures.redis import RedisServer

Rows = NDArray[np.float32]
ALL = 1 << 60  # questions that no graph is made from
NEVER = 1e9


def questions(random: np.random.Generator, count: int, dimensions: int) -> Rows:
    """About topics, each asked for in some twenty ways."""
    topics = random.normal(size=(count // 20 + 1, dimensions))
    return unit(topics[random.integers(0, len(topics), count)] + 0.6 * random.normal(size=(count, dimensions)))


def others(random: np.random.Generator, rows: Rows, count: int) -> Rows:
    """Near some of them."""
    some = rows[random.integers(0, len(rows), count)]
    return unit(some + 0.2 / np.sqrt(rows.shape[1]) * random.normal(size=some.shape))


def unit(rows: Any) -> Rows:
    made: Rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return made


def asked(number: int, vector: Any, until: float = NEVER) -> Asked:
    return Asked(number.to_bytes(32, "big"), until, f"question {number}", vector)


def recall(one: Partition, every: Partition, vectors: Rows, unix: float) -> float:
    """The share of what comparing with all finds that the other finds as well; by what is nearest, its first is among it."""
    found, wanted = 0, 0
    for vector in vectors:
        exact = [near.key for near in every.nearest(vector, 0.5, unix)]
        near = {near.key for near in one.nearest(vector, 0.5, unix)}
        wanted += len(exact)
        found += len(near.intersection(exact))
    assert wanted
    return found / wanted


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 1 << 32),
    most=st.sampled_from([700, 1500, 10_000]),
    steps=st.lists(st.sampled_from(["some", "many", "again", "drop", "wait", "grow"]), min_size=4, max_size=10),
)
def test_a_graph_finds_what_comparing_with_all_finds(seed: int, most: int, steps: list[str]) -> None:
    """After any order of new, renewed, dropped, forgotten and expired questions, with a graph that is behind by some."""
    random = np.random.default_rng(seed)
    graph, every = Partition(most, graph_from=256), Partition(most, graph_from=ALL)
    rows, unix = questions(random, 4000, 24), 0.0
    came = 0

    def add(number: int) -> None:
        until = unix + float(random.choice([50, 5000]))
        for one in (graph, every):
            one.add(asked(number, rows[number], until), unix)

    async def course() -> None:
        nonlocal came, unix
        for step in ("many", "grow", *steps):
            if step in {"some", "many"}:
                more = min(len(rows) - came, 60 if step == "some" else BEHIND + 100)
                for number in range(came, came + more):
                    add(number)
                came += more
            elif step == "grow":
                await graph.grow()
                assert graph._graph is not None or len(graph) < 256
            elif step == "wait":
                unix += 20
            else:
                for number in random.integers(0, came, 150):
                    if step == "again":
                        add(int(number))
                    else:
                        for one in (graph, every):
                            one.drop(int(number).to_bytes(32, "big"))
            unix += 1
            assert recall(graph, every, others(random, rows[:came], 40), unix) >= 0.99

    asyncio.run(course())
    assert len(every) <= most
    assert len(graph) <= most


async def test_a_large_partition_has_a_graph_and_its_nearest_are_right() -> None:
    """With vectors as long as the embedded model's, more of them than a partition may have; kept up in the background."""
    random = np.random.default_rng(7)
    rows = questions(random, 7000, 384)
    tasks: list[asyncio.Task[Any]] = []
    index = Index(lambda coroutine: tasks.append(asyncio.get_running_loop().create_task(coroutine)))
    every = Partition(5000, graph_from=ALL)
    other = index.of(b"other", 5000)
    other.add(asked(1 << 20, rows[-1]), 0.0)
    for number, row in enumerate(rows):
        partition = index.of(b"large", 5000)
        partition.add(asked(number, row), 0.0)
        every.add(asked(number, row), 0.0)
        index.trim()
        index.grow(partition)
        if number % 100 == 0:
            await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    partition = index.of(b"large", 5000)
    while partition.due:
        await partition.grow()
    assert len(partition) == len(every) == 5000
    assert partition._graph is not None
    assert partition._graph.live >= 5000 - BEHIND
    assert recall(partition, every, others(random, rows[2000:], 200), 0.0) >= 0.99
    assert not [near for vector in rows[:50] for near in partition.nearest(vector, 0.999, 0.0)], (
        "what is gone is not found"
    )
    assert [near.key for near in other.nearest(rows[-1], 0.5, 0.0)] == [(1 << 20).to_bytes(32, "big")], (
        "nor what is another's"
    )


async def test_without_the_library_all_are_compared_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried once, and nothing that is there is missed."""
    monkeypatch.setitem(sys.modules, "hnswlib", None)
    tasks: list[asyncio.Task[Any]] = []
    index = Index(lambda coroutine: tasks.append(asyncio.get_running_loop().create_task(coroutine)))
    rows = questions(np.random.default_rng(2), GRAPH_FROM + 100, 8)
    partition = index.of(b"large")
    for number, row in enumerate(rows):
        partition.add(asked(number, row), 0.0)
        index.grow(partition)
        await asyncio.sleep(0)
    assert len(tasks) == 1
    for number in (0, 2000, len(rows) - 1):
        assert partition.nearest(rows[number], 0.99, 0.0)[0].key == number.to_bytes(32, "big")


async def test_what_is_over_does_not_stand_before_what_is_not() -> None:
    """However many there are, in the graph and beside it."""
    random = np.random.default_rng(3)
    partition = Partition(10_000, graph_from=256)
    (centre,) = questions(random, 1, 24)
    near = unit(centre + 0.05 * random.normal(size=(1000, 24)))
    for number, row in enumerate(near):
        partition.add(asked(number, row, until=10.0), 0.0)
    for number, row in enumerate(unit(centre + 0.2 * random.normal(size=(20, 24)))):
        partition.add(asked(5000 + number, row), 0.0)
    await partition.grow()
    assert partition.nearest(centre, 0.5, 5.0)[0].key < (1000).to_bytes(32, "big")
    left = partition.nearest(centre, 0.5, 10.0)
    assert (len(left), len(partition)) == (FEW, 20)
    assert all(one.key >= (5000).to_bytes(32, "big") for one in left)


async def test_rows_that_are_gone_take_no_room() -> None:
    """However often questions are answered anew while a few stay."""
    random = np.random.default_rng(5)
    rows = questions(random, 50, 8)
    partition = Partition(100, graph_from=ALL)
    for turn in range(600):
        partition.add(asked(turn // 40, rows[turn // 40]), 0.0)
        for number in range(20, 50):
            partition.add(asked(number, rows[number], until=NEVER + turn), 0.0)
    assert len(partition) == 45
    assert partition._vectors.next < 8000
    assert partition._vectors.held <= 4 * 1024
    assert partition.nearest(rows[3], 0.99, 0.0)[0].key == (3).to_bytes(32, "big")


async def test_what_one_process_answered_another_finds(redis_server: RedisServer) -> None:
    """More of it than either reads at once: the rest comes while nobody waits. Each searches a graph of its own."""
    count = 5200
    rows = questions(np.random.default_rng(11), count, 32)
    terms = Semantic(max_entries=20_000)
    partition = bytes(range(32))
    first, second = Replica(redis_server.url), Replica(redis_server.url)
    try:
        for start in range(0, count, 50):
            part = range(start, min(count, start + 50))
            await asyncio.gather(
                *(first.log.write(partition, asked(number, rows[number]), 3600, 20_000) for number in part)
            )
        for number in (0, 2600, count - 1):
            first.store.put(Entry(number.to_bytes(32, "big"), 0.0, NEVER, "chat", False, b"%d" % number))
        await first.settled()
        for number in (0, 2600, count - 1):
            meaning = Meaning(Question(f"question {number}", partition), rows[number])
            match = await second.meanings.find(meaning, "m", terms, lambda _: True)
            if match is None:  # it was not read as far as that yet
                await second.settled()
                match = await second.meanings.find(meaning, "m", terms, lambda _: True)
            assert match is not None
            assert match.entry.content == b"%d" % number
        await second.settled()
        read = second.meanings._index.of(partition, 20_000)
        assert len(read) > 2048
        assert read._graph is not None
        stranger = Meaning(Question("question 0", bytes(32)), rows[0])
        assert await second.meanings.find(stranger, "m", terms, lambda _: True) is None
    finally:
        redis_server.cli("DEL", f"tests-meaning:meaning:{partition.hex()}")
        for one in (first, second):
            await one.settled()
            await one.store.close()


class Replica:
    """A process as far as its cache by meaning goes."""

    def __init__(self, url: str) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self.store = RedisStore(url, 1 << 20, lambda: 0.0, self._spawn, prefix="tests-meaning", deadline_s=10)
        self.log = QuestionLog(self.store)
        self.meanings = Meanings(store=self.store, log=self.log, embed=nothing, spawn=self._spawn, unix=lambda: 0.0)

    async def settled(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _spawn(self, coroutine: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def nothing(texts: object) -> Any:
    raise AssertionError(texts)
