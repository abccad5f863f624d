"""Searches per CPU-second: Penstock's whole search call, without the embedding, beside raw libraries in the same run.

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.searches [--rows 20000] [--dimensions 384] [--queries 200]

Penstock's call is all of it: the collection looked up, the filter and the caller's labels resolved, neighbours found, passages and
documents read from SQLite. A library's is the neighbours alone, with its own filter where it has one. CPU time is the process's own.
hnswlib, usearch and faiss are measured where they are installed.
"""

import argparse
import asyncio
import importlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from admin.migrate import prepare
from gateway.database import appending, connect, reading
from retrieval import collection_store, document_store, passage_store
from retrieval.access import Account, Caller
from retrieval.asking import Question
from retrieval.chunking_strategy import Chunking
from retrieval.collection_store import Collection, NewCollection
from retrieval.database import Database
from retrieval.document_store import NewDocument
from retrieval.errors import RetrievalError
from retrieval.filters import parse
from retrieval.index.residents import Residents
from retrieval.passage_store import New, Placed
from retrieval.ports import Chunk
from retrieval.search import Search

K = 10
DOCUMENTS = 1000
SHARES = (1.0, 0.1, 0.01)
CALLER = Caller("key_bench", labels=frozenset("*"))

Vectors = NDArray[np.float32]
Row = tuple[str, float, float, float, float]


class Asked:
    """An embedder that knows the answer."""

    def __init__(self) -> None:
        self.vector: Vectors = np.zeros((1, 1), np.float32)

    async def embed(
        self, texts: Sequence[str], model: str, payer: str, *, aside: bool, account: Account | None = None
    ) -> Vectors:
        del texts, model, payer, aside, account
        return self.vector

    def window(self, model: str) -> int | None:
        del model
        return None

    def require(self, model: str, payer: str) -> None:
        raise RetrievalError(f"{model}, {payer}: not asked for here")

    def default(self) -> str | None:
        return "bench"


def topics(rows: int, dimensions: int, queries: int) -> tuple[Vectors, Vectors]:
    """Unit vectors around 512 topics, and questions near some of them."""
    random = np.random.default_rng(1)
    centres = random.standard_normal((512, dimensions), np.float32)
    vectors = centres[random.integers(0, 512, rows)] + 0.7 * random.standard_normal((rows, dimensions), np.float32)
    asked = vectors[random.integers(0, rows, queries)] + 0.4 * random.standard_normal((queries, dimensions), np.float32)
    return unit(vectors), unit(asked)


def unit(vectors: Vectors) -> Vectors:
    normed: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return normed


def fill(database: Database, vectors: Vectors) -> Collection:
    """A thousand documents, the attribute `n` of each being its number."""
    share = len(vectors) // DOCUMENTS
    with database.writing() as tx:
        made = collection_store.create(tx, CALLER, NewCollection("bench", "bench"))
        collection_store.learn_dimensions(tx, made.id, vectors.shape[1])
        for number in range(DOCUMENTS):
            new = NewDocument(f"file-{number}", "a.txt", {"n": number}, (), Chunking())
            document = document_store.attach(tx, made, new)
            rows = vectors[number * share : (number + 1) * share]
            chunk = Chunk("some words of a passage", 0, 23)
            passages = [
                New(at, number.to_bytes(4) + at.to_bytes(4), chunk, row.tobytes()) for at, row in enumerate(rows)
            ]
            passage_store.prepare(tx, made.id, document.id, passages)
            ids = [known.id for known in passage_store.prepared(tx, document.id)]
            generation = collection_store.next_generation(tx, made.id)
            placed = [Placed(id_, at, chunk) for at, id_ in enumerate(ids)]
            passage_store.publish(tx, made.id, document.id, generation, placed, ())
            document_store.complete(
                tx, document, generation, fingerprint="", text="", usage_bytes=0, passages=len(rows)
            )
    return database.read(lambda tx: collection_store.get(tx, CALLER, made.id))


def truth(vectors: Vectors, asked: Vectors, allowed: int) -> list[set[int]]:
    """Rows of the documents below a number are the first ones."""
    scores = asked @ vectors[:allowed].T
    return [set(np.argpartition(-row, K)[:K].tolist()) for row in scores]


def measured(
    name: str, share: float, found: Callable[[Vectors], Sequence[int]], asked: Vectors, right: list[set[int]]
) -> Row:
    """Name, share, recall, queries per CPU-second, median in ms."""
    for query in asked[:5]:
        found(query)
    walls, hits, before = [], 0, time.process_time()
    answers = []
    for query in asked:
        began = time.perf_counter()
        answers.append(found(query))
        walls.append(time.perf_counter() - began)
    cpu = time.process_time() - before
    hits = sum(len(wanted.intersection(answer)) for wanted, answer in zip(right, answers, strict=True))
    return name, share, hits / (K * len(asked)), len(asked) / cpu, 1000 * statistics.median(walls)


def penstock(folder: Path, vectors: Vectors, asked: Vectors) -> Iterator[Row]:
    engine = connect(f"sqlite:///{folder / 'penstock.db'}")
    prepare(engine)
    database = Database(partial(reading, engine), partial(appending, engine))
    collection = fill(database, vectors)
    residents = Residents(database, folder / "retrieval", 4 << 30)
    residents.maintain(collection.id)
    embedder = Asked()
    search = Search(database, residents, embedder)
    first = database.read(lambda tx: next(iter(passage_store.indexed(tx, collection.id, 0, 1)))[0].id)
    loop = asyncio.new_event_loop()
    for share in SHARES:
        allowed = int(share * DOCUMENTS)
        wanted = None if share == 1 else parse({"type": "lt", "key": "n", "value": allowed})
        question = Question(("q",), K, wanted, dense=1.0, lexical=0.0)

        def found(query: Vectors, question: Question = question) -> Sequence[int]:
            embedder.vector = query[None]
            results = loop.run_until_complete(search.run(CALLER, collection.id, question))
            return [result.passage.id - first for result in results.results]

        yield measured("penstock", share, found, asked, truth(vectors, asked, allowed * (len(vectors) // DOCUMENTS)))
    loop.close()
    engine.dispose()


def raw_hnswlib(hnswlib: Any, vectors: Vectors, asked: Vectors) -> Iterator[Row]:
    index = hnswlib.Index(space="ip", dim=vectors.shape[1])
    index.init_index(len(vectors), M=16, ef_construction=200)
    index.add_items(vectors, num_threads=1)
    for share in SHARES:
        allowed = int(share * DOCUMENTS) * (len(vectors) // DOCUMENTS)
        right = truth(vectors, asked, allowed)
        admit = None if share == 1 else allowed.__gt__
        for effort in (32, 64, 128, 256, 512):
            index.set_ef(effort)
            row = measured(
                f"hnswlib, ef {effort}",
                share,
                lambda query, admit=admit: index.knn_query(query, K, 1, admit)[0][0].tolist(),  # type: ignore[misc]
                asked if share == 1 else asked[:50],
                right if share == 1 else right[:50],
            )
            if row[2] >= 0.97 or effort == 512:
                yield row
                break


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--queries", type=int, default=200)
    options = parser.parse_args()
    vectors, asked = topics(options.rows, options.dimensions, options.queries)
    print(f"{options.rows} × {options.dimensions}, k = {K}\n")
    print("| | passes the filter | recall@10 | per CPU-second | p50 ms |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for row in penstock(Path(folder), vectors, asked):
            _print(row)
    try:
        for row in raw_hnswlib(importlib.import_module("hnswlib"), vectors, asked):
            _print(row)
    except ImportError:
        print("| hnswlib | not installed | | | |")


def _print(row: Row) -> None:
    name, share, recall, rate, wall = row
    print(f"| {name} | {share:.0%} | {recall:.3f} | {rate:,.0f} | {wall:.2f} |", flush=True)


if __name__ == "__main__":
    main()
