"""A collection that is watched by one process: its first window, drift of questions and of documents, another version of its vectors."""

import asyncio
from collections.abc import Iterator
from functools import partial

import msgspec
import numpy as np
import pytest
from sqlalchemy import Engine

from gateway.database import appending, connect, reading
from inference.monitors import store
from inference.monitors.monitor import Monitor, Terms, Window
from inference.monitors.spread import Vectors
from inference.monitors.watcher import CORPUS_S, Watcher
from tests.monitors.topics import asked

MONITOR = Monitor("mon_1", "collection", "docs", "vs_1", Terms(rows=60), 0.0)
ONE, OTHER = np.eye(8)[0], np.eye(8)[7]


class Held(msgspec.Struct):
    version: int
    newest: int
    vectors: Vectors


class House:
    """The watcher, its clock, and a collection that tests fill."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.now = 1000.0
        self.held: Held | None = None
        self.random = np.random.default_rng(11)
        self.told: list[Window] = []
        transactions = partial(reading, engine), partial(appending, engine)
        self.watcher = Watcher(*transactions, self._draw, lambda _, window: self.told.append(window), lambda: self.now)
        with appending(engine) as tx:
            store.add(tx, MONITOR)

    def holds(self, documents: int, shares: np.ndarray, version: int = 1, newest: int = 100) -> None:
        self.held = Held(version, newest, asked(self.random, documents, shares))

    def ask(self, rows: int, shares: np.ndarray, version: int = 1) -> None:
        for vector in asked(self.random, rows, shares):
            self.watcher.offer(MONITOR, version, vector)
            self.watcher.offer(MONITOR, version, vector)  # again, which says nothing new

    def turn(self) -> None:
        asyncio.run(self.watcher.turn([MONITOR]))

    def windows(self) -> list[Window]:
        with reading(self.engine) as tx:
            return list(reversed(store.windows(tx, MONITOR.id, 100)))

    async def _draw(self, collection_id: str, after: int, most: int) -> Held | None:
        assert (collection_id, most) == (MONITOR.subject, 500)
        held = self.held
        if held is None or held.newest > after:
            return held
        return Held(held.version, held.newest, held.vectors[:0])


@pytest.fixture
def house(database_url: str) -> Iterator[House]:
    engine = connect(database_url)
    yield House(engine)
    engine.dispose()


def test_questions_are_held_against_the_first_window_of_them(house: House) -> None:
    """As soon as there are enough, each of them once; what is like the first is no drift, what is not is told."""
    house.holds(80, ONE)
    house.ask(59, ONE)
    house.turn()
    house.ask(1, ONE)
    house.turn()
    assert house.windows() == []
    for shares, drifted in ((ONE, False), (OTHER, True)):
        house.ask(60, shares)
        house.turn()
        assert (house.windows()[-1].rows, house.windows()[-1].drifted) == (60, drifted)
    assert [one.number for one in house.told] == [2]
    assert {one.column for one in house.told[0].findings if one.drifted} == {"embedding", "nearest"}


def test_a_slow_collection_has_windows_by_time(house: House) -> None:
    """Of fewer questions than are wanted, and never of too few to be judged."""
    slow = msgspec.structs.replace(MONITOR, terms=Terms(rows=500, seconds=3600))
    house.holds(80, ONE)
    for wanted in (0, 1):
        for rows in (29, 1):
            before = len(house.windows())
            for vector in asked(house.random, rows, ONE):
                house.watcher.offer(slow, 1, vector)
            house.now += 3600
            asyncio.run(house.watcher.turn([slow]))
            assert len(house.windows()) == (wanted if rows == 1 else before)
    assert house.windows()[0].rows == 30


def test_new_documents_are_held_against_those_that_were_there(house: House) -> None:
    house.holds(80, ONE)
    house.turn()
    for newest, shares, drifted in ((200, ONE, False), (300, OTHER, True)):
        house.holds(40, shares, newest=newest)
        for _ in range(2):  # the second time there is nothing new
            house.now += CORPUS_S
            house.turn()
        assert (house.windows()[-1].stream, house.windows()[-1].drifted) == ("corpus", drifted)
    assert len(house.windows()) == 2
    house.holds(29, OTHER, newest=400)
    house.now += CORPUS_S
    house.turn()
    assert len(house.windows()) == 2, "too few documents to say anything"


def test_another_version_of_the_vectors_begins_anew(house: House) -> None:
    """Vectors of two models have nothing to do with each other. What a canary asks is nobody's drift."""
    house.holds(80, ONE)
    house.ask(60, ONE)
    house.turn()
    house.ask(60, OTHER, version=2)
    house.turn()
    assert house.windows() == []
    house.holds(80, OTHER, version=2, newest=300)
    house.ask(60, OTHER, version=2)
    house.turn()
    house.ask(60, OTHER, version=2)
    house.turn()
    assert [(one.version, one.drifted) for one in house.windows()] == [(2, False)]


def test_a_collection_that_is_gone_is_no_error(house: House) -> None:
    house.ask(60, ONE)
    house.turn()
    house.holds(3, ONE)
    house.ask(60, ONE)
    house.turn()
    assert house.windows() == []
