"""What children, contexts and other ways to cut must not break: who may read what, how much is found, and what was paid for."""

import asyncio
import hashlib
import itertools
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import text as sql

from admin import migrate
from gateway.database import appending, connect, reading
from gateway.grounding.ports import Found as Cited
from gateway.grounding.sources import Sources
from retrieval import collection_store, document_store, passage_store, snapshots
from retrieval.access import Caller
from retrieval.asking import Diversity, Neighbours, Question, Results, Wanted
from retrieval.chunking import semantic, sentences
from retrieval.chunking.chunk import Document as Text
from retrieval.chunking_strategy import Chunking
from retrieval.database import Database
from retrieval.document_store import Document
from retrieval.errors import Refused
from retrieval.index.texts import Texts, packed
from retrieval.ports import Chunk, Meaning
from retrieval.reading import Documents
from tests.fixtures.plane import Folder, Plane, Words
from tests.fixtures.retrieval import ANN, BEN, attach, fill, new_collection

FAMILIES = Chunking("headings", 200, 0, 32)


class Teller:
    """`retrieval.ports.Writer`: says what `says` makes of a question."""

    def __init__(self, says: Callable[[str], str] = lambda _question: "About zeppelins.") -> None:
        self.asked: list[str] = []
        self._says = says

    async def write(
        self, instruction: str, text: str, model: str, payer: Caller, max_tokens: int, *, aside: bool = False
    ) -> str:
        del instruction, model, payer, max_tokens, aside
        said = self._says(text)
        self.asked.append(text)
        return said

    def require(self, model: str, payer: str) -> None: ...

    def default(self) -> str | None:
        return "teller"


@pytest.fixture
async def plane(database: Database, tmp_path: Path) -> AsyncIterator[Plane]:
    """With what reads and cuts files in earnest, on both kinds of database."""
    folder = tmp_path / "files"
    folder.mkdir()
    plane = Plane(
        database, tmp_path / "retrieval", Folder(folder), Words(), writer=Teller(), reader=Documents()
    ).start()
    yield plane
    await plane.stop()


def book(word: str, sections: int = 6) -> str:
    """Sections that have children enough each, of one word and its numbers."""
    return "".join(
        f"# {word} {section}\n\n"
        + "".join(f"The {word} of part {section} has line {n} here. " for n in range(18))
        + "\n\n"
        for section in range(sections)
    )


async def added(plane: Plane, store: str, text: str, chunking: Chunking = FAMILIES, **fields: Any) -> Document:
    file_id = plane.files.put(ANN, text, "a.md", fields.pop("file_id", None))
    await plane.retrieval.attach(ANN, store, Wanted(file_id, chunking=chunking, **fields))
    return await plane.ended(store, file_id)


def sound(found: Results, texts: Sequence[str]) -> None:
    """Each passage is what one of the texts says there, and no passage is shown twice."""
    seen = set()
    for each in (part for result in found.results for part in (result, *result.more)):
        shown = each.passage
        assert any(text[shown.start : shown.end] == shown.text for text in texts)
        assert each.matched is None or shown.start <= each.matched.start < each.matched.end <= shown.end
        place = each.document.id, shown.start, shown.end
        assert place not in seen
        seen.add(place)


ASKED: dict[str, dict[str, Any]] = {
    "hybrid": {},
    "ranks": {"fusion": "ranks"},
    "dense": {"lexical": 0.0},
    "lexical": {"dense": 0.0},
    "queries": {"queries": ("line 3", "part 2", "boiler here")},
    "diverse": {"diversity": Diversity(0.3, 20)},
    "around": {"neighbours": Neighbours(2, 2), "highlight": True},
}


@pytest.mark.parametrize("overlap", [0, 90])
async def test_there_are_as_many_passages_as_are_asked_for(plane: Plane, overlap: int) -> None:
    """Of children without end, in whichever way they are asked for; with as many, or with fewer than there are."""
    store = await plane.store()
    text = book("boiler", 24)
    chunking = Chunking("static", 200, overlap, 32) if overlap else FAMILIES
    await added(plane, store, text, chunking)
    await added(plane, store, "# Other\n\nNothing is here of that.", Chunking("static", 200, 0))
    for name, fields in ASKED.items():
        for k in (1, 3, 20):
            question = Question(**{"queries": ("boiler of part 2 has line 3",), "k": k, **fields})
            found = await plane.retrieval.search(ANN, store, question)
            sound(found, [text, "# Other\n\nNothing is here of that."])
            assert len(found.results) == k, (name, k)
            assert sum(each.matched is not None for each in found.results) >= min(k, 19)
    (group, *_) = (await plane.retrieval.search(ANN, store, Question(("boiler",), 2, group=5))).results
    assert len(group.more) == 4
    sound(
        await plane.retrieval.search(ANN, store, Question(("boiler",), 2, group=5)),
        [text, "# Other\n\nNothing is here of that."],
    )


async def test_a_parent_shows_nothing_of_what_was_or_will_be(plane: Plane) -> None:
    """Of a file that is replaced again and again, by one that others may read and by one that only some may."""
    ann = Caller(ANN.key_id, ANN.team_id, ANN.org_id, frozenset({"secret"}))
    store = await plane.store(ann)
    texts = [book("boiler", 2), book("cellar", 3), book("boiler", 4)]
    ids = [plane.files.put(ANN, text, "a.md") for text in texts]
    done, shown = asyncio.Event(), {"boiler": 0, "cellar": 0}

    async def ask(caller: Caller) -> None:
        while not done.is_set():
            for highlight in (False, True):
                question = Question(("boiler cellar line 2",), 4, highlight=highlight)
                found = await plane.retrieval.search(caller, store, question)
                sound(found, texts)
                for each in found.results:
                    word = "cellar" if "cellar" in each.passage.text else "boiler"
                    shown[word] += 1
                    assert word == "boiler" or caller is ann
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        group.create_task(ask(ann))
        group.create_task(ask(BEN))
        before = None
        for number in range(5):
            at = number % 3
            id_ = ids[at] if number < 3 else plane.files.put(ANN, texts[at], "a.md")
            labels = ("secret",) if at == 1 else ()
            await plane.retrieval.attach(ann, store, Wanted(id_, labels=labels, chunking=FAMILIES, replaces=before))
            assert (await plane.ended(store, id_, ann)).status == "completed"
            found = await plane.retrieval.search(ann, store, Question(("line 2",), 2))
            assert {each.passage.text.split()[1] for each in found.results} == {"cellar" if at == 1 else "boiler"}
            before = id_
        await plane.retrieval.detach(ann, store, before or "")
        assert not (await plane.retrieval.search(ann, store, Question(("boiler",), 2))).results
        done.set()
    assert min(shown.values()) > 0


async def test_a_file_is_cut_in_another_way_and_back(plane: Plane) -> None:
    """Passages that stay keep their vectors and lose or get their parents; the same file in another store is cut in its own way."""
    store, other = await plane.store(), await plane.store()
    text = book("boiler", 3)
    plain, families = Chunking("static", 100, 0), Chunking("static", 200, 0, 100)
    first = await added(plane, store, text, plain)
    await added(plane, other, text, families, file_id=first.source_id)
    question = Question(("boiler line 3",), 50)
    for chunking in (families, plain, families, Chunking("sentences", 200, 0), FAMILIES):
        document = await added(plane, store, text, chunking, file_id=first.source_id)
        assert (document.status, document.chunking) == ("completed", chunking)
        found = await plane.retrieval.search(ANN, store, question)
        sound(found, [text])
        assert all((each.matched is None) is (chunking.child_tokens is None) for each in found.results)
        assert sum(len(each.passage.text) for each in found.results) > 0.9 * len(text)
    before = len(plane.words.embedded)
    await added(plane, store, text, families, file_id=first.source_id)
    await added(plane, store, text, plain, file_id=first.source_id)
    seen = {text for _, text in plane.words.embedded[:before]}
    assert {text for _, text in plane.words.embedded[before:]} <= seen
    sound(await plane.retrieval.search(ANN, other, question), [text])


# Contexts


CONTEXTS = Chunking("static", 100, 0, context_model="")


def words(count: int) -> str:
    """Of so many passages at least, none like another."""
    return " ".join(f"w{number}" for number in range(50 * count))


async def teller(plane: Plane, says: Callable[[str], str]) -> Teller:
    made = Teller(says)
    plane.retrieval._ingestion._cutter._writer = made
    return made


async def test_what_was_said_is_kept_when_no_vectors_can_be_had(plane: Plane) -> None:
    """An embedding model at its limit turns a file away as often as it likes: contexts are bought once."""
    store = await plane.store()
    told = await teller(plane, lambda question: f"Context of {question.split()[1]}.")
    late = Refused(429, "later", "rate_limit_error", None, again=True, wait_s=0.0)
    plane.words.refuse = [late] * 4
    document = await added(plane, store, words(70), CONTEXTS)
    assert document.status == "completed"
    assert len(told.asked) == document.passages > 70
    firsts = [text.splitlines() for _, text in plane.words.embedded]
    assert all(context == f"Context of {passage.split()[0]}." for context, passage in firsts)
    with plane.database.reading() as tx:
        rows = tx.execute(sql("SELECT count(*) FROM passages")).scalar_one()
    assert rows == document.passages, "nothing is left of what was prepared"


async def test_a_model_that_fails_now_and_then_fails_no_long_file(plane: Plane) -> None:
    """Five attempts are for one that comes no further."""
    store = await plane.store()
    broken = Refused(503, "broken", "overloaded", None, again=True, wait_s=0.0)
    asked = 0

    def says(question: str) -> str:
        nonlocal asked
        asked += 1
        if asked % 10 == 0:
            raise broken
        return question[:20]

    told = await teller(plane, says)
    document = await added(plane, store, words(80), CONTEXTS)
    assert (document.status, document.error_message) == ("completed", None)
    assert len(told.asked) == document.passages > 80

    def never(_question: str) -> str:
        raise broken

    await teller(plane, never)
    document = await added(plane, store, words(3), CONTEXTS)
    assert (document.status, document.error_message) == ("failed", "broken")


async def test_a_model_that_says_nothing_is_not_taken_for_one_that_did(plane: Plane) -> None:
    """As one does that has thought for as long as its answer may be: the file fails and says so. Of single passages nothing may be said."""
    store = await plane.store()
    await teller(plane, lambda _question: " \n\u3000")
    document = await added(plane, store, words(3), CONTEXTS)
    assert document.status == "failed"
    assert "said nothing" in (document.error_message or "")
    await teller(plane, lambda question: "Yes." if "w99" in question else "")
    document = await added(plane, store, words(3), CONTEXTS)
    assert document.status == "completed"


async def test_whatever_a_model_says_is_kept_as_text_and_in_bounds(plane: Plane) -> None:
    store = await plane.store()
    answers = iter(("a\0b \x1b[31m\x7f", "\ud800 lone", "x " * 500_000))
    await teller(plane, lambda _question: next(answers))
    plane.words.window = lambda _model: 256  # type: ignore[method-assign, assignment]
    text = "w " * 190 + "v " * 30
    document = await added(plane, store, text, CONTEXTS)
    assert (document.status, document.passages) == ("completed", 3)
    said = {embedded.partition("\nw")[0] for _, embedded in plane.words.embedded}
    most = " ".join("x" * 64)  # a quarter of what the embedding model reads: the passage has more
    assert said == {"a\ufffdb \x1b[31m\x7f", most, "\ufffd lone"}
    sound(await plane.retrieval.search(ANN, store, Question(("w",), 3)), [text])


# What is cut


@pytest.mark.parametrize("count", [0, 1, 2, 3, 255, 256, 257, 600])
async def test_subjects_are_found_across_the_calls_of_a_model(count: int) -> None:
    text = " ".join(f"Sentence {n} is here." for n in range(count))
    made: list[Sequence[float]] = []

    async def embed(texts: Sequence[str]) -> Sequence[Sequence[float]]:
        rows = [(1.0, (int(hashlib.md5(each.encode()).hexdigest(), 16) % 1000) / 500) for each in texts]
        made.extend(rows)
        return rows

    found = await semantic.places(Text(text), embed)
    spans = list(sentences.spans(text))
    assert len(made) == len(spans) == count
    assert found == [spans[place][0] for place in semantic.breaks(made)]


async def test_sentences_are_bought_once_for_their_subjects(plane: Plane) -> None:
    """However often the embedding model turns the file away, while it is cut and afterwards."""
    store = await plane.store()
    late = Refused(429, "later", "rate_limit_error", None, again=True, wait_s=0.0)
    embed, calls = plane.words.embed, itertools.count()

    async def limited(texts: Sequence[str], *given: Any, **named: Any) -> Any:
        if next(calls) % 2:
            raise late
        return await embed(texts, *given, **named)

    plane.words.embed = limited  # type: ignore[method-assign]
    text = " ".join(f"Sentence {n} is here." for n in range(600))
    document = await added(plane, store, text, Chunking("semantic", 200, 0))
    assert document.status == "completed"
    assert len(plane.words.embedded) == 600 + document.passages


async def test_lines_are_right_in_a_block_of_any_length(tmp_path: Path) -> None:
    """Also of children of parents that overlap, which are counted from in front again; and in a moment."""
    text = "".join(f"line {n} of a list that never ends\n" for n in range(6000))
    path = tmp_path / "a.txt"
    path.write_text(text)
    reader = Documents()
    try:
        reading_ = await reader.read(
            path, "a.txt", Chunking("static", 200, 100, 32), Meaning(_nothing, semantic.Progress())
        )
    finally:
        await reader.close()
    assert all(text.count("\n", 0, each.start) + 1 == each.line for each in reading_.chunks)
    starts = [each.start for each in reading_.chunks]
    assert starts != sorted(starts)


async def _nothing(texts: Sequence[str]) -> Sequence[Sequence[float]]:
    raise AssertionError(texts)


# What was written before


def test_what_children_brought_goes_and_comes_with_its_migration(empty_database_url: str) -> None:
    """Down to what the server before it reads, in whichever way files were cut; and up again."""
    migrate.upgrade(empty_database_url)
    engine = connect(empty_database_url)
    with appending(engine) as tx:
        made = collection_store.create(tx, ANN, collection_store.NewCollection("papers", "embed"))
        for name, chunking in (("a", Chunking()), ("b", Chunking("code", 900, 0, 40, "m"))):
            new = document_store.NewDocument(f"file-{name}", name, {}, (), chunking)
            document = document_store.attach(tx, made, new)
            one = passage_store.New(0, b"h", Chunk("x", 0, 1, parent=(0, 1)), b"\0\0\x80\x3f", "said")
            passage_store.prepare(tx, made.id, document.id, [one])
    migrate.downgrade(empty_database_url, "0031")
    with reading(engine) as tx:
        rows = tx.execute(sql("SELECT chunking FROM documents ORDER BY id")).scalars().all()
        assert tx.execute(sql("SELECT text FROM passage_bodies")).scalars().all() == ["x", "x"]
    kept = [row if isinstance(row, dict) else msgspec.json.decode(row) for row in rows]
    assert kept == [
        {"type": "auto", "max_tokens": 800, "overlap_tokens": 400},
        {"type": "static", "max_tokens": 900, "overlap_tokens": 0},
    ]
    migrate.upgrade(empty_database_url)
    with reading(engine) as tx:
        (a, b) = document_store.some(tx, made.id, 10)
        passages = [passage_store.around(tx, each.id, 0, 0) for each in (a, b)]
        contexts = tx.execute(sql("SELECT context FROM passage_bodies")).scalars().all()
    assert (a.chunking, b.chunking) == (Chunking(), Chunking("static", 900, 0))
    assert passages == [[], []]
    assert contexts == ["", ""]
    engine.dispose()


def test_a_snapshot_from_before_there_were_parents_is_restored(database: Database, tmp_path: Path) -> None:
    collection = new_collection(database)
    database.write(lambda tx: collection_store.learn_dimensions(tx, collection.id, 8))
    fill(database, attach(database, collection, "file-1"), ["alpha", "beta"])
    made = snapshots.take(database, tmp_path, collection.id)
    file = tmp_path / collection.id / f"{made.id}.snapshot"
    old = bytearray()
    for frame in snapshots._read(file):
        for each in frame.get("passages", ()):
            del each["passage"]["parent_start"], each["passage"]["parent_end"], each["body"]["context"]
        if "document" in frame:
            frame["document"]["chunking"] = {"type": "auto", "max_tokens": 800, "overlap_tokens": 400}
        packed_ = msgspec.msgpack.encode(frame)
        old += struct.pack("<I", len(packed_)) + packed_
    file.write_bytes(old)
    told = msgspec.structs.replace(made, bytes=len(old), sha256=hashlib.sha256(old).hexdigest())
    file.with_suffix(".json").write_bytes(msgspec.json.encode(told))
    back = snapshots.restore(database, tmp_path, collection.id, made.id)
    with database.reading() as tx:
        (document,) = document_store.some(tx, back.id, 10)
        passages = passage_store.of_document(tx, document.id, 10)
    assert [each.text for each in passages] == ["alpha", "beta"]
    assert [each.parent_start for each in passages] == [None, None]


def test_files_from_before_there_were_parents_are_read(database: Database, tmp_path: Path) -> None:
    document = attach(database, new_collection(database), "file-1")
    fill(database, document, ["alpha"])
    (now,) = database.read(lambda tx: passage_store.of_document(tx, document.id, 10))
    names = [name for name in now.__struct_fields__ if not name.startswith("parent_")]
    old = msgspec.defstruct("Old", names)(*(getattr(now, name) for name in names))
    places = bytearray()
    (tmp_path / "a.texts").write_bytes(b"".join(packed([[(old, document)]], places)))  # type: ignore[list-item]
    (tmp_path / "a.places").write_bytes(places)
    assert Texts(tmp_path / "a.texts", tmp_path / "a.places").read([now.id], [0]) == [(now, document)]


def test_a_parent_that_is_found_by_another_child_keeps_its_number() -> None:
    """A model that searches twice does not read it twice, and its citation is one."""
    sources = Sources()
    one = Cited("vs_1", 7, "file-1", "a.md", "The whole of it.", 0.9, {}, 10, 26)
    other = msgspec.structs.replace(one, passage_id=8, score=0.5)
    assert sources.add([one, other]) == [1, 1]
    assert sources.add([msgspec.structs.replace(one, file_id="file-2")]) == [2]
