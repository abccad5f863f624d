"""Chance does to a store what people and faults do while it is cut anew: at rest both ways to search are right, and nothing is left."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, select

from retrieval.asking import Question, Wanted
from retrieval.chunking_strategy import Chunking
from retrieval.database import Database
from retrieval.errors import Conflict, Refused
from retrieval.reembedding import moves, store
from retrieval.reembedding.record import ENDED, Reembedding, Terms
from retrieval.tables import document_cuts, passage_embeddings, passages
from tests.fixtures.anew import SMALL, House, Models
from tests.fixtures.editions import require_sound
from tests.fixtures.plane import Folder
from tests.fixtures.retrieval import ANN, BEN

MODELS = ("words", "better", "other")
STRATEGIES = (SMALL, None, Chunking("static", 70, 0))
CUTS = (None, Chunking("static", 40, 0), Chunking("static", 55, 10))
AWAY = Refused(503, "away", "upstream_error", None, again=True, wait_s=0.05)


class Storm:
    """`house` works, and `other` has the same store in its memory and only searches."""

    def __init__(self, house: House, other: House, seed: int) -> None:
        self.house, self.other, self.chance = house, other, random.Random(seed)
        self.home = ""
        self.there: dict[str, str] = {}  # what its text is of, by the file
        self.made = 0
        self.begun = 0

    async def run(self, steps: int) -> None:
        self.home = await self.house.store()
        doing: list[Callable[[], Awaitable[None]]] = [
            *(self.add, self.add, self.change, self.remove, self.begin, self.begin),
            *(self.move, self.move, self.move, self.fail, self.mend, self.check),
        ]
        for _ in range(4):
            await self.add()
        for _ in range(steps):
            try:
                await self.chance.choice(doing)()
            except Conflict:  # not in this state
                continue
            if self.chance.random() < 0.3:
                await asyncio.sleep(0.3 * self.chance.random())
        await self.check()
        await self.rest()
        await self.check()
        require_nothing_left(self.house, self.home)

    async def add(self, file_id: str | None = None) -> None:
        self.made += 1
        name = f"n{self.made}x"
        words = [f"{name}{at // 40}" if at % 40 == 0 else name for at in range(self.chance.choice([120, 250, 400]))]
        id_ = self.house.files.put(ANN, " ".join(words), id_=file_id)
        await self.house.retrieval.attach(ANN, self.home, Wanted(id_, chunking=self.chance.choice(STRATEGIES)))
        self.there[id_] = name

    async def change(self) -> None:
        await self.add(self.chance.choice(sorted(self.there)))

    async def remove(self) -> None:
        if len(self.there) > 2:
            id_ = self.chance.choice(sorted(self.there))
            del self.there[id_]
            await self.house.retrieval.detach(ANN, self.home, id_)

    async def begin(self) -> None:
        terms = Terms(
            auto=self.chance.random() < 0.3,
            keep_s=self.chance.choice([0.5, 1000.0]),
            max_attempts=self.chance.choice([2, 1000]),
        )
        self.house.begin(self.home, self.chance.choice(MODELS), terms, self.chance.choice(CUTS))
        self.begun += 1

    async def move(self) -> None:
        home, share = self.home, self.chance.choice([0.0, 1.0])
        found: list[Callable[[Connection, str], Reembedding]] = [
            *(2 * [lambda tx, one: moves.promote(tx, home, one, force=False)]),
            lambda tx, one: moves.lend(tx, home, one, share, [BEN.key_id]),
            lambda tx, one: moves.roll_back(tx, home, one, None),
            lambda tx, one: moves.finish(tx, home, one),
            lambda tx, one: moves.cancel(tx, home, one),
            lambda tx, one: moves.resume(tx, home, one),
        ]
        what, there = self.chance.choice(found), self.all()
        if there:
            newest = there[0].id
            self.house.database.write(lambda tx: what(tx, newest))

    async def fail(self) -> None:
        self.house.models.failing[self.chance.choice(MODELS)] = AWAY

    async def mend(self) -> None:
        self.house.models.failing.clear()

    async def check(self) -> None:
        """With models that are well: everything is found where it is, by meaning and by words, by everybody."""
        await self.mend()
        for id_ in sorted(self.there):
            while (await self.house.ended(self.home, id_)).status == "failed":  # five attempts, while a model was away
                await self.house.retrieval.attach(ANN, self.home, Wanted(id_, chunking=SMALL))
        require_sound(self.house, self.home)
        for id_ in self.chance.sample(sorted(self.there), min(3, len(self.there))):
            for dense, lexical in ((1.0, 0.0), (0.0, 1.0)):
                question = Question((f"{self.there[id_]} {self.there[id_]}1",), 5, dense=dense, lexical=lexical)
                for house in (self.house, self.other):
                    for caller in (ANN, BEN):
                        found = (await house.retrieval.search(caller, self.home, question)).results
                        assert found[0].document.source_id == id_
                        assert len({each.passage.edition for each in found}) == 1

    async def rest(self) -> None:
        """Nothing is beside what is read any more."""
        ways = (moves.roll_back, moves.finish, moves.cancel)
        async with asyncio.timeout(60):
            while not all(each.collected for each in self.all()):
                for each in self.all():
                    if each.state not in ENDED or (each.state == "failed" and not each.collected):
                        way = self.chance.choice(ways)
                        try:
                            self.house.database.write(lambda tx, way=way, each=each: way(tx, self.home, each.id, None))  # type: ignore[misc]
                        except Conflict:
                            continue
                self.house.anew.notice()
                await asyncio.sleep(0.05)

    def all(self) -> list[Reembedding]:
        return list(self.house.database.read(lambda tx: store.listed(tx, self.home, 500, None)))


def require_nothing_left(house: House, home: str) -> None:
    def work(tx: Connection) -> list[int]:
        read = moves._collection(tx, home)
        counted = (
            select(func.count()).where(passages.c.edition != read.edition),
            select(func.count()).where(passages.c.generation.is_(None)),
            select(func.count()).select_from(document_cuts),
            select(func.count()).where(passage_embeddings.c.version != read.version),
        )
        return [tx.execute(each).scalar_one() for each in counted]

    assert house.database.read(work) == [0, 0, 0, 0]


def words_of(folder: Path) -> int:
    """How many indexes of words there are."""
    return len(list(folder.glob("vs_*/words*.db")))


@pytest.fixture
async def houses(database: Database, tmp_path: Path) -> AsyncIterator[tuple[House, House]]:
    (tmp_path / "files").mkdir()
    files, models = Folder(tmp_path / "files"), Models({"words": 4099, "better": 5003, "other": 3001})
    house, other = (House(database, tmp_path / name, files, models, name) for name in ("ses_1", "ses_2"))
    house.start()
    house.work()
    yield house, other
    for each in (house, other):
        each.retrieval._residents.sweep()
        assert words_of(tmp_path / each.name) <= 1
        await each.stop()


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(2, 30))])
@pytest.mark.timeout(300)
async def test_whatever_happens_both_are_right(houses: tuple[House, House], seed: int) -> None:
    storm = Storm(*houses, seed)
    await storm.run(80)
    assert storm.begun
