"""Documents that are cut anew by what cuts them in earnest: models that are away, quotas, empty cuts, texts that read differently."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import text as sql

from admin import migrate
from gateway.database import appending, connect, reading
from retrieval import collection_store, cut_store, document_store, passage_store
from retrieval.access import Caller
from retrieval.asking import Neighbours, Question, Results, Wanted
from retrieval.chunking_strategy import Chunking
from retrieval.database import Database
from retrieval.errors import Refused
from retrieval.ports import Chunk, Meaning, Reading
from retrieval.reading import Documents
from retrieval.reembedding import moves
from retrieval.reembedding.record import Terms
from retrieval.spaces import FIRST, Space
from tests.fixtures.anew import PAYER, House, Models
from tests.fixtures.editions import cut, require_sound, unread
from tests.fixtures.plane import Folder
from tests.fixtures.retrieval import ANN, BEN, attach, of

FLAT = Chunking("static", 200, 0)
FAMILIES = Chunking("headings", 400, 0, 40)
TOLD = Chunking("headings", 200, 0, None, "teller")


class Teller:
    """`retrieval.ports.Writer`: says of each passage that it is about zeppelins; away while `away` is set."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[str, ...], str]] = []  # payer, tags, question
        self.away: Refused | None = None
        self.says = "It is about zeppelins."

    async def write(
        self, instruction: str, text: str, model: str, payer: Caller, max_tokens: int, *, aside: bool = False
    ) -> str:
        assert instruction.startswith("<document>")
        assert (model, max_tokens, aside) == ("teller", 200, True)
        if self.away is not None:
            raise self.away
        self.asked.append((payer.key_id, tuple(payer.account.tags), text))
        return self.says

    def require(self, model: str, payer: str) -> None: ...

    def default(self) -> str | None:
        return "teller"


class Moody:
    """`retrieval.ports.Reader`: reads as the real one, and otherwise once it is told to."""

    def __init__(self) -> None:
        self._reader = Documents()
        self.blank: str | None = None
        self.newer = False

    async def read(self, path: Path, filename: str, chunking: Chunking, meaning: Meaning) -> Reading:
        made = await self._reader.read(path, filename, chunking, meaning)
        if self.blank is not None and self.blank in made.text and chunking != FLAT:
            return Reading(made.text, ())
        if self.newer:
            return Reading(made.text + "!", made.chunks)
        return made

    async def close(self) -> None:
        await self._reader.close()


class Rig:
    def __init__(self, house: House, teller: Teller, reader: Moody) -> None:
        self.house, self.teller, self.reader = house, teller, reader


@pytest.fixture
async def rig(database: Database, tmp_path: Path) -> AsyncIterator[Rig]:
    folder = tmp_path / "files"
    folder.mkdir()
    teller, reader = Teller(), Moody()
    house = House(database, tmp_path / "retrieval", Folder(folder), Models(), writer=teller, reader=reader)
    house.start()
    house.work()
    yield Rig(house, teller, reader)
    await house.stop()


def book(word: str, sections: int = 4) -> str:
    return "".join(
        f"# {word} {section}\n\n"
        + " ".join(f"The {word} of part {section} has line {n} here." for n in range(18))
        + "\n\n"
        for section in range(sections)
    )


async def put(house: House, home: str, text: str, chunking: Chunking | None = FLAT) -> str:
    id_ = house.files.put(ANN, text, "a.md")
    await house.retrieval.attach(ANN, home, Wanted(id_, chunking=chunking))
    done = await house.ended(home, id_)
    assert done.status == "completed", done.error_message
    return id_


async def ask(house: House, home: str, text: str, caller: Caller = ANN, dense: float = 1.0) -> Results:
    question = Question((text,), 5, dense=dense, neighbours=Neighbours(1, 1), highlight=True)
    return await house.retrieval.search(caller, home, question)


def sound(found: Results, texts: list[str]) -> None:
    assert found.results
    for each in found.results:
        shown = each.passage
        assert any(text[shown.start : shown.end] == shown.text for text in texts)
        assert each.matched is None or shown.start <= each.matched.start < each.matched.end <= shown.end
        assert all(0 <= span.start < span.end <= len(shown.text) for span in each.highlights)


async def test_flat_passages_become_families_and_back(rig: Rig) -> None:
    """Children are found and their parents shown to who reads the new edition, headings and neighbours are each edition's own."""
    house = rig.house
    home = await house.store()
    texts = [book("boiler"), book("violin")]
    for text in texts:
        await put(house, home, text)
    one = await house.reach(house.begin(home, chunking=FAMILIES), "ready")
    house.database.write(lambda tx: moves.lend(tx, home, one.id, 0.0, [BEN.key_id]))
    for question in ("violin part 2", "boiler line 7"):
        for dense in (1.0, 0.0):
            old, new = await ask(house, home, question, ANN, dense), await ask(house, home, question, BEN, dense)
            sound(old, texts)
            sound(new, texts)
            assert all(each.matched is None and each.passage.edition == FIRST for each in old.results)
            assert all(each.matched is not None and each.passage.edition == 2 for each in new.results)
            assert all(each.passage.heading for each in new.results)
    house.database.write(lambda tx: moves.promote(tx, home, one.id, force=False))
    require_sound(house, home)
    sound(await ask(house, home, "boiler line 7"), texts)
    house.database.write(lambda tx: moves.roll_back(tx, home, one.id, None))
    assert all(each.matched is None for each in (await ask(house, home, "violin part 2")).results)
    require_sound(house, home)


async def test_subjects_are_cut_with_the_new_model(rig: Rig) -> None:
    """`semantic` embeds sentences on the payer's account, with the model of the version that is being made."""
    house = rig.house
    home = await house.store()
    text = book("boiler", 1) + book("violin", 1)
    await put(house, home, text)
    before = len(house.models.texts("words"))
    await house.reach(house.begin(home, chunking=Chunking("semantic", 400, 0), terms=Terms(auto=True)), "swapped")
    assert len(house.models.texts("words")) == before
    assert len(house.models.texts("better", PAYER)) == len(house.models.texts("better")) > 30
    require_sound(house, home)
    sound(await ask(house, home, "violin line 3"), [text])


async def test_contexts_are_bought_once_whatever_fails(rig: Rig) -> None:
    """The model that says them is away: it fails with a reason, the old edition is read; who goes on buys what is missing and no more."""
    house, teller = rig.house, rig.teller
    home = await house.store()
    id_ = await put(house, home, book("boiler"))
    teller.away = Refused(503, "teller: nobody home", "upstream_error", None, again=True, wait_s=0.0)
    one = await house.reach(house.begin(home, chunking=TOLD, terms=Terms(max_attempts=2)), "failed")
    assert one.reason == "teller: nobody home"
    assert (await ask(house, home, "zeppelins", dense=0.0)).results == []
    teller.away = None
    house.models.failing["better"] = Refused(503, "away", "upstream_error", None, again=True, wait_s=0.0)
    house.database.write(lambda tx: moves.resume(tx, home, one.id))
    await house.reach(one, "failed")
    bought = len(teller.asked)
    assert bought == len(cut(house, home, 2)[id_]) == 4
    house.models.failing.clear()
    house.database.write(lambda tx: moves.resume(tx, home, one.id))
    await house.reach(one, "ready")
    assert len(teller.asked) == bought
    assert {(payer, tags) for payer, tags, _ in teller.asked} == {(PAYER, ("reembedding",))}
    house.database.write(lambda tx: moves.lend(tx, home, one.id, 0.0, [BEN.key_id]))
    assert (await ask(house, home, "zeppelins", ANN, dense=0.0)).results == []
    assert len((await ask(house, home, "zeppelins", BEN, dense=0.0)).results) == 4
    teller.away = Refused(503, "away again", "upstream_error", None, again=True, wait_s=0.1)
    await put(house, home, book("violin"))
    assert house.now(one).behind
    teller.away = None
    await house.reach(one, "canary")
    assert len((await ask(house, home, "violin zeppelins", BEN, dense=0.0)).results) == 5
    house.database.write(lambda tx: moves.cancel(tx, home, one.id))
    await house.until(one, lambda found: found.collected)
    assert unread(house, home, 2, 2) == (0, 0, 0)


async def test_a_model_that_says_nothing_leaves_a_document_as_it_is(rig: Rig) -> None:
    house = rig.house
    home = await house.store()
    id_ = await put(house, home, book("boiler"))
    rig.teller.says = " "
    await house.reach(house.begin(home, chunking=TOLD, terms=Terms(auto=True)), "swapped")
    (kept,) = house.database.read(lambda tx: cut_store.kept(tx, home, FIRST, 10))
    assert kept.source_id == id_
    assert "said nothing" in kept.note
    require_sound(house, home)
    assert (await house.retrieval.document(ANN, home, id_)).chunking == FLAT


async def test_a_cut_that_comes_out_empty_is_one(rig: Rig) -> None:
    """A document without text in both, and one of which nothing is left in the new edition alone: it is found again after the way back."""
    house = rig.house
    home = await house.store()
    boiler, violin = await put(house, home, book("boiler")), await put(house, home, book("violin"))
    nothing = house.files.put(ANN, "  \n", "a.md")
    await house.retrieval.attach(ANN, home, Wanted(nothing, chunking=FLAT))
    assert (await house.ended(home, nothing)).empty
    rig.reader.blank = "violin"
    one = await house.reach(house.begin(home, chunking=FAMILIES, terms=Terms(auto=True)), "swapped")
    require_sound(house, home)
    empty = {id_: (await house.retrieval.document(ANN, home, id_)).empty for id_ in (boiler, violin, nothing)}
    assert empty == {boiler: False, violin: True, nothing: True}
    assert violin not in {each.document.source_id for each in (await ask(house, home, "violin")).results}
    house.database.write(lambda tx: moves.roll_back(tx, home, one.id, None))
    require_sound(house, home)
    assert not (await house.retrieval.document(ANN, home, violin)).empty
    assert (await ask(house, home, "violin part 2")).results[0].document.source_id == violin


async def test_a_text_that_reads_differently_by_now_is_kept(rig: Rig) -> None:
    """Another release of its parser: what is there points into the text that is kept, until the file is added once more."""
    house = rig.house
    home = await house.store()
    id_ = await put(house, home, book("boiler"))
    rig.reader.newer = True
    await house.reach(house.begin(home, chunking=FAMILIES, terms=Terms(auto=True)), "swapped")
    require_sound(house, home)
    (kept,) = house.database.read(lambda tx: cut_store.kept(tx, home, FIRST, 10))
    assert (kept.source_id, "reads differently" in kept.note) == (id_, True)
    await house.retrieval.attach(ANN, home, Wanted(id_))
    assert (await house.ended(home, id_)).chunking == FAMILIES
    require_sound(house, home)
    assert (await house.retrieval.text(ANN, home, id_)).endswith("!")


async def test_a_quota_holds_for_the_new_cut(rig: Rig) -> None:
    """What would not fit if it were read ends it with a reason, before the swap; with room it is gone on with."""
    house = rig.house
    home = await house.store()
    for word in ("boiler", "violin"):
        await put(house, home, book(word))
    house.database.write(lambda tx: collection_store.bound(tx, home, 40, None))
    one = await house.reach(house.begin(home, chunking=FAMILIES), "failed")
    assert one.reason is not None
    assert "cut anew, may have 40 passages" in one.reason
    house.database.write(lambda tx: collection_store.bound(tx, home, 200, None))
    house.database.write(lambda tx: moves.resume(tx, home, one.id))
    await house.reach(one, "ready")
    house.database.write(lambda tx: collection_store.bound(tx, home, 50, None))
    await put(house, home, book("third", 1))
    await house.reach(one, "failed")
    house.database.write(lambda tx: collection_store.bound(tx, home, 1000, None))
    house.database.write(lambda tx: moves.resume(tx, home, one.id))
    await house.reach(one, "ready")
    house.database.write(lambda tx: moves.promote(tx, home, one.id, force=False))
    require_sound(house, home)


async def test_what_only_some_could_read_goes_from_both(rig: Rig) -> None:
    """A new version of a file for other readers empties it at once, in the edition that is not read as well."""
    house = rig.house
    home = await house.store(labelled=True)
    id_ = house.files.put(ANN, book("boiler"), "a.md")
    holder = msgspec.structs.replace(ANN, labels=frozenset(("secret", "open")))
    await house.retrieval.attach(holder, home, Wanted(id_, chunking=FLAT, labels=("secret",)))
    await house.ended(home, id_, holder)
    one = await house.reach(house.begin(home, chunking=FAMILIES), "ready")
    assert cut(house, home, 2)[id_]
    go = asyncio.Event()
    house.models.holding["words"] = asyncio.Event(), go
    other = house.files.put(ANN, book("violin"), "a.md")
    await house.retrieval.attach(holder, home, Wanted(other, chunking=FLAT, labels=("open",), replaces=id_))
    assert cut(house, home, FIRST)[other] == cut(house, home, 2)[other] == []
    house.models.holding.clear()
    go.set()
    await house.ended(home, other, holder)
    house.database.write(lambda tx: moves.promote(tx, home, one.id, force=False))
    require_sound(house, home)
    assert cut(house, home, 2)[other]


def test_editions_go_and_come_with_their_migration(empty_database_url: str) -> None:
    """Down to what the server before it reads: the edition that is read is left; and up again."""
    migrate.upgrade(empty_database_url)
    engine = connect(empty_database_url)
    database = of(engine)
    with appending(engine) as tx:
        made = collection_store.create(tx, ANN, collection_store.NewCollection("papers", "embed"))
    document = attach(database, made, "file-1")
    with appending(engine) as tx:
        moves.begin(tx, made.id, Space(0, "better"), PAYER, Terms(), FLAT)
        for edition in (FIRST, 2):
            one = passage_store.New(0, b"h", Chunk(f"x{edition}", 0, 1), b"\0\0\x80\x3f")
            (id_,) = passage_store.prepare(tx, made.id, document.id, [one], FIRST, edition)
            placed = [passage_store.Placed(id_, 0, one.chunk)]
            passage_store.publish(tx, made.id, document.id, edition, placed, (), edition)
    migrate.downgrade(empty_database_url, "0033")
    with reading(engine) as tx:
        assert tx.execute(sql("SELECT text FROM passage_bodies")).scalars().all() == ["x1"]
        assert tx.execute(sql("SELECT state FROM reembeddings")).scalars().all() == ["cancelled"]
    migrate.upgrade(empty_database_url)
    with reading(engine) as tx:
        (again,) = document_store.some(tx, made.id, 10)
        assert [each.text for each in passage_store.of_document(tx, again.id, 10)] == ["x1"]
    engine.dispose()


async def test_a_file_that_was_read_anew_meanwhile_is_cut_again(rig: Rig) -> None:
    """The same file, which reads differently by now, while a re-embedding had failed and nothing was written beside what is read."""
    house = rig.house
    home = await house.store()
    id_ = await put(house, home, book("boiler"))
    house.models.failing["better"] = Refused(500, "broken", "upstream_error", None, again=True, wait_s=0)
    one = await house.reach(house.begin(home, chunking=FAMILIES, terms=Terms(max_attempts=1)), "failed")
    assert cut(house, home, 2)[id_]
    rig.reader.newer = True
    await house.retrieval.attach(ANN, home, Wanted(id_, chunking=FLAT))
    await house.ended(home, id_)
    house.models.failing.clear()
    house.database.write(lambda tx: moves.resume(tx, home, one.id))
    await house.reach(one, "ready")
    house.database.write(lambda tx: moves.promote(tx, home, one.id, force=False))
    require_sound(house, home)
    assert (await house.retrieval.text(ANN, home, id_)).endswith("!")
    assert not house.database.read(lambda tx: cut_store.kept(tx, home, FIRST, 10))
