"""What stands beside a passage, on both kinds of database: the parent that is shown for it, and what a model said before it."""

from pathlib import Path

import pytest

from retrieval import collection_store, document_store, embedding_store, passage_store, snapshots
from retrieval.access import Caller
from retrieval.asking import Question, Wanted
from retrieval.chunking_strategy import Chunking, resolved
from retrieval.database import Database
from retrieval.document_store import Document
from retrieval.errors import Refused
from retrieval.passage_store import Found, New, Placed
from retrieval.ports import Chunk
from tests.fixtures.plane import Folder, Plane, Words
from tests.fixtures.retrieval import ANN, attach, new_collection

TEXT = "Ein 😀 sitzt im é-Garten. Der ǅ schläft 𐍈 lange. Niemand weckt ihn."
PARENT = (4, 49)


def family(database: Database, document: Document, text: str = TEXT) -> Found:
    """Two children of one parent, the second of which is found."""
    children = [
        Chunk(text[start:end], start, end, 3, 1 + start, ("H",), 5, PARENT) for start, end in ((4, 25), (26, 49))
    ]
    new = [New(at, bytes([at]), each, b"\0\0\x80\x3f", "über Gärten") for at, each in enumerate(children)]
    with database.writing() as tx:
        passage_store.prepare(tx, document.collection_id, document.id, new)
        ids = [known.id for known in passage_store.prepared(tx, document.id)]
        generation = collection_store.next_generation(tx, document.collection_id)
        placed = [Placed(id_, at, each) for at, (id_, each) in enumerate(zip(ids, children, strict=True))]
        passage_store.publish(tx, document.collection_id, document.id, generation, placed, ())
        document_store.complete(tx, document, generation, fingerprint="f", text=text, usage_bytes=1, passages=2)
        return passage_store.of_document(tx, document.id, 10)[1]


def test_a_parent_is_what_the_document_says_there(database: Database) -> None:
    """Characters are counted as Python counts them, whatever their bytes."""
    document = attach(database, new_collection(database), "file-1")
    child = family(database, document)
    assert (child.parent_start, child.parent_end) == PARENT
    parent = database.read(lambda tx: passage_store.parents(tx, [child])[child.id])
    assert parent.text == TEXT[slice(*PARENT)]
    assert (parent.start, parent.end, parent.page, parent.line, parent.id) == (*PARENT, 3, 5, child.id)


def test_a_parent_that_is_not_there_any_more_is_not_made_up(database: Database) -> None:
    document = attach(database, new_collection(database), "file-1")
    child = family(database, document)

    def shorter(tx: object) -> None:
        document_store.complete(tx, document, 9, fingerprint="g", text=TEXT[:20], usage_bytes=1, passages=2)  # type: ignore[arg-type]

    database.write(shorter)
    assert database.read(lambda tx: passage_store.parents(tx, [child])) == {}


def test_a_moved_child_has_its_parent_where_it_is_now(database: Database) -> None:
    document = attach(database, new_collection(database), "file-1")
    child = family(database, document)
    moved = Chunk(child.text, 36, 59, 3, 1, ("H",), 5, (14, 59))
    with database.writing() as tx:
        passage_store.publish(tx, document.collection_id, document.id, 5, [Placed(child.id, 1, moved)], ())
        (now,) = [each for each in passage_store.of_document(tx, document.id, 10) if each.id == child.id]
    assert (now.start, now.parent_start, now.parent_end) == (36, 14, 59)


def test_a_context_is_embedded_and_indexed_and_comes_back_from_a_snapshot(database: Database, tmp_path: Path) -> None:
    collection = new_collection(database)
    database.write(lambda tx: collection_store.learn_dimensions(tx, collection.id, 1))
    child = family(database, attach(database, collection, "file-1"))
    expected = f"H\nüber Gärten\n{child.text}"
    made = snapshots.take(database, tmp_path, collection.id)
    back = snapshots.restore(database, tmp_path, collection.id, made.id)
    for id_ in (collection.id, back.id):
        with database.reading() as tx:
            (some,) = passage_store.texts(tx, id_, -1, 10)
            missing = embedding_store.missing(tx, id_, 2, 0, 10)
        assert [text for _, text in some][1] == expected
        assert [each.text for each in missing][1] == expected, "for another version of its vectors"
    (document,) = database.read(lambda tx: document_store.described(tx, back.id, -1))
    restored = database.read(lambda tx: passage_store.of_document(tx, document.id, 10)[1])
    assert (restored.text, restored.parent_start, restored.parent_end) == (child.text, *PARENT)


class Teller:
    """`retrieval.ports.Writer`: says the same of every passage, and refuses one question."""

    def __init__(self, refused: int) -> None:
        self.asked: list[tuple[str, str]] = []  # payer, question
        self._refused = refused

    async def write(
        self, instruction: str, text: str, model: str, payer: Caller, max_tokens: int, *, aside: bool = False
    ) -> str:
        assert instruction.startswith("<document>")
        assert aside
        assert (model, max_tokens) == ("teller", 200)
        if len(self.asked) == self._refused:
            self._refused = -1
            raise Refused(429, "not now", "rate_limit_error", None, again=True, wait_s=0.0)
        self.asked.append((payer.key_id, text))
        return " It is about\nzeppelins. \0"

    def require(self, model: str, payer: str) -> None: ...

    def default(self) -> str | None:
        return "teller"


async def test_what_was_said_is_not_asked_again(database: Database, tmp_path: Path) -> None:
    """A model that is away for a moment makes a document wait; what it has said of the first passages is kept."""
    (tmp_path / "files").mkdir()
    teller = Teller(refused=65)
    plane = Plane(database, tmp_path / "retrieval", Folder(tmp_path / "files"), Words(), writer=teller).start()
    store = await plane.store()
    text = " ".join(f"w{number // 100:02}" for number in range(7000))
    file_id = plane.files.put(ANN, text)
    chunking = Chunking("static", 100, 0, context_model="")
    await plane.retrieval.attach(ANN, store, Wanted(file_id, chunking=chunking))
    document = await plane.ended(store, file_id)
    assert (document.status, document.passages, document.chunking.context_model) == ("completed", 70, "teller")
    assert len(teller.asked) == len(set(teller.asked)) == 70
    assert {payer for payer, _ in teller.asked} == {ANN.key_id}
    assert {text.splitlines()[0] for _, text in plane.words.embedded} == {"It is about zeppelins. \ufffd"}
    found = await plane.retrieval.search(ANN, store, Question(("zeppelins",), 3, dense=0.0))
    assert len(found.results) == 3
    assert not any("zeppelins" in each.passage.text for each in found.results)
    plane.files.put(ANN, text + " new" * 100, id_=file_id)
    before = len(teller.asked)
    await plane.retrieval.attach(ANN, store, Wanted(file_id, chunking=chunking))
    assert (await plane.ended(store, file_id)).passages == 71
    assert len(teller.asked) == before + 1
    await plane.stop()


@pytest.mark.parametrize(
    ("asked", "window", "sizes"),
    [
        (None, None, (800, 400, None)),
        (None, 256, (224, 56, None)),
        (Chunking("headings", 0, 0), 256, (224, 0, None)),
        (Chunking("headings", 500, 10), 256, (500, 10, None)),
        (Chunking("auto", 0, 0, 160), None, (800, 0, 160)),
        (Chunking("auto", 0, 0, 300), 256, (800, 0, 224)),
        (Chunking("code", 900, 0, 160), 64, (900, 0, 56)),
        (Chunking("auto", 0, 0, None, "m"), None, (800, 400, None)),
        (Chunking("auto", 0, 0, None, "m"), 256, (168, 42, None)),
        (Chunking("auto", 0, 0, 300, "m"), 256, (800, 0, 168)),
    ],
)
def test_sizes_suit_the_model(asked: Chunking | None, window: int | None, sizes: tuple[int, int, int | None]) -> None:
    """What it would not read of a passage, nothing is found by; a parent need not be read."""
    found = resolved(asked, window)
    assert (found.max_tokens, found.overlap_tokens, found.child_tokens) == sizes
