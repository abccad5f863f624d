"""Penstock's whole search call over one engine, without the embedding: for `benchmarks.engines`."""

import asyncio
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import psycopg
from numpy.typing import NDArray
from sqlalchemy import Engine, update

from admin.migrate import prepare
from benchmarks.asked import LEAST, PATIENCE_S, Answered, Answering, Asked, K, serve
from gateway.database import appending, bare, connect, reading
from retrieval import collection_store, document_store, passage_store
from retrieval.access import Account, Caller
from retrieval.asking import Question
from retrieval.chunking_strategy import Chunking
from retrieval.collection_store import Collection, NewCollection
from retrieval.database import Database
from retrieval.document_store import NewDocument
from retrieval.errors import RetrievalError
from retrieval.filters import parse
from retrieval.index.edge import EdgeGraph
from retrieval.index.residents import Residents
from retrieval.index.settings import EngineName, EngineSettings
from retrieval.passage_store import New, Placed
from retrieval.ports import Chunk, Role
from retrieval.search import Search
from retrieval.tables import collections

DOCUMENTS = 1000
SETTLING = 6  # rounds of all questions, for the audit
CALLER = Caller("key_bench", labels=frozenset("*"))

Vectors = NDArray[np.float32]


class Known:
    """An embedder that knows the answer."""

    def __init__(self) -> None:
        self.vector: Vectors = np.zeros((1, 1), np.float32)

    async def embed(
        self,
        texts: Sequence[str],
        model: str,
        payer: str,
        *,
        aside: bool,
        account: Account | None = None,
        dimensions: int | None = None,
        role: Role,
        prompts: str | None,
    ) -> Vectors:
        del texts, model, payer, aside, account, dimensions, role, prompts
        return self.vector

    def prompts(self, model: str) -> str | None:
        del model
        return None

    def window(self, model: str) -> int | None:
        del model
        return None

    def require(self, model: str, payer: str) -> None:
        raise RetrievalError(f"{model}, {payer}: not asked for here")

    def default(self) -> str | None:
        return "bench"


def fill(database: Database, vectors: Vectors, noise: NDArray[np.int64]) -> Collection:
    """A thousand documents: their number is `near`, as vectors come by their distance from a corner, and `random` is a number of noise."""
    share = len(vectors) // DOCUMENTS
    with database.writing() as tx:
        made = collection_store.create(tx, CALLER, NewCollection("bench", "bench"))
        collection_store.learn_dimensions(tx, made.id, vectors.shape[1])
        for number in range(DOCUMENTS):
            attributes: dict[str, str | float | bool] = {"near": number, "random": int(noise[number])}
            new = NewDocument(f"file-{number}", "a.txt", attributes, (), Chunking())
            document = document_store.attach(tx, made, new)
            rows = vectors[number * share : (number + 1) * share]
            chunk = Chunk("some words of a passage", 0, 23)
            passages = [New(at, at.to_bytes(4), chunk, row.tobytes()) for at, row in enumerate(rows)]
            passage_store.prepare(tx, made.id, document.id, passages)
            ids = [known.id for known in passage_store.prepared(tx, document.id)]
            generation = collection_store.next_generation(tx, made.id)
            placed = [Placed(id_, at, chunk) for at, id_ in enumerate(ids)]
            passage_store.publish(tx, made.id, document.id, generation, placed, ())
            document_store.complete(
                tx, document, generation, fingerprint="", text="", usage_bytes=0, passages=len(rows)
            )
    return database.read(lambda tx: collection_store.get(tx, CALLER, made.id))


def main(system: str, name: str, recall: str, url: str = "") -> None:
    folder, asked = Path(name), Asked(Path(name))
    home = folder / system.replace(":", "-")
    home.mkdir(exist_ok=True)
    if not (home / "penstock.db").exists():
        shutil.copyfile(_truth(folder, asked), home / "penstock.db")
    engine = connect(f"sqlite:///{home / 'penstock.db'}")
    prepare(engine)  # it may be of an earlier release
    database = _database(engine)
    chosen, _, kept = system.partition(":")[2].partition("+")
    with database.writing() as tx:
        tx.execute(update(collections).values(quantization=kept or "none"))
    collection = database.read(lambda tx: collection_store.listed(tx, CALLER, 1)).data[0]
    engines = EngineSettings(
        engine=cast("EngineName", chosen), pgvector_url=url or None, timeout_s=20, recall=float(recall)
    )
    residents = Residents(database, home / "retrieval", 8 << 30, engines=engines)
    began = time.monotonic()
    residents.maintain(collection.id)
    _, state = residents.current(collection.id)
    built = f"{time.monotonic() - began:.0f} s until it is there"
    print(f"{system}: {built}, effort {state.effort}", file=sys.stderr, flush=True)
    assert state.graph is None or state.graph.ready(120)
    if chosen == "hnswlib" and state.graph is not None:  # the raw library is asked with the same graph
        (folder / "hnswlib.graph").unlink(missing_ok=True)
        (folder / "hnswlib.graph").hardlink_to(next((home / "retrieval" / collection.id).glob("*.graph")))
    ask(system, asked, database, residents, collection, _others(state.graph, url))
    residents.close()
    engine.dispose()


def _truth(folder: Path, asked: Asked) -> Path:
    """A database with the collection, made once for every engine."""
    path, making = folder / "truth.db", folder / "making.db"
    if not path.exists():
        making.unlink(missing_ok=True)
        engine = connect(f"sqlite:///{making}")
        prepare(engine)
        fill(_database(engine), asked.vectors, np.load(folder / "noise.npy"))
        with closing(engine.raw_connection()) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        engine.dispose()
        making.rename(path)
    return path


def _database(engine: Engine) -> Database:
    return Database(partial(reading, engine), partial(appending, engine), partial(bare, engine))


class Hurried:
    """A clock of the audit that is always late, until it stands still: every search is checked while an effort is being found."""

    def __init__(self) -> None:
        self.at, self.step = 0.0, 1.0

    def __call__(self) -> float:
        self.at += self.step
        return self.at


def ask(
    system: str, asked: Asked, database: Database, residents: Residents, collection: Collection, others: Any
) -> None:
    embedder, loop, clock = Known(), asyncio.new_event_loop(), Hurried()
    search = Search(database, residents, embedder, clock)
    first = database.read(lambda tx: next(iter(passage_store.indexed(tx, collection.id, 0, 1)))[0].id)

    async def asking(queries: Vectors, question: Question) -> Answered:
        """In a loop that runs, as a server's does."""
        walls: list[float] = []
        answers: list[Sequence[int]] = []
        until = time.perf_counter() + PATIENCE_S
        for query in queries:
            embedder.vector = query[None]
            began = time.perf_counter()
            if began > until and not clock.step and len(walls) >= LEAST:
                break
            results = await search.run(CALLER, collection.id, question)
            walls.append(time.perf_counter() - began)
            answers.append([result.passage.id - first for result in results.results])
            while clock.step and search.checking:  # noqa: ASYNC110 — nobody else waits for it
                await asyncio.sleep(0.001)
        return walls, answers

    def answering(name: str) -> Answering:
        kind, share = name.split("-")
        wanted = None if kind == "none" else parse({"type": "lt", "key": kind, "value": float(share) * DOCUMENTS})
        question = Question(("q",), K, wanted, dense=1.0, lexical=0.0)
        return lambda queries: loop.run_until_complete(asking(queries, question))

    for _ in range(SETTLING):  # the audit finds the effort that these questions need, as it does on live ones
        answering("none-1.0")(asked.tuning)
    clock.step = 0.0
    _, state = residents.current(collection.id)
    name = system if state.graph is None else f"{system}, ef {state.effort}"
    serve(name, asked, answering, others)
    search.close()
    loop.close()


def _others(graph: object, url: str) -> Any:
    """Processes that work for the searches."""

    def pids() -> Sequence[int]:
        if isinstance(graph, EdgeGraph) and graph._child is not None:  # noqa: SLF001 — its time counts
            return [graph._child.process.pid]  # noqa: SLF001 — as above
        if not url:
            return []
        with psycopg.connect(url) as admin:
            query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            return [pid for (pid,) in admin.execute(query)]

    return pids


if __name__ == "__main__":
    main(*sys.argv[1:])
