"""How well real questions find real manuals: recall@5 and nDCG@10 of words, meaning, both, and both reranked.

    make bench-retrieval [ARGS="--write"]

Documents and questions are those of `benchmarks.manuals`; they are parsed, cut and embedded as ingestion does it, put into SQLite through
the stores, and asked through the whole search call. Vectors are kept in a file by the hash of their text: the first run embeds for tens of
minutes, later ones start at once. Half of the questions, by a hash of their ids, are there to choose by (`--tune` tries weights on them);
what is reported is the other half, and all of them.
"""

import argparse
import asyncio
import hashlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import accumulate
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from admin.migrate import prepare
from benchmarks import manuals
from benchmarks.manual_sources import Question as Asked
from benchmarks.report import machine, write_section
from embedding import bundled
from embedding.engine import Engine
from gateway.database import appending, connect, reading
from retrieval import collection_store, document_store, passage_store
from retrieval.access import Account, Caller
from retrieval.asking import MEANING, Fusion, Question, Rerank
from retrieval.chunking import chunk, strategies
from retrieval.chunking.tokens import Estimate
from retrieval.chunking_strategy import auto
from retrieval.collection_store import NewCollection
from retrieval.database import Database
from retrieval.document_store import NewDocument
from retrieval.evaluation.comparison import compare
from retrieval.evaluation.intervals import difference
from retrieval.evaluation.measures import Ranking, ordered
from retrieval.evaluation.measures import measure as measured
from retrieval.evaluation.questions import percentile
from retrieval.index.residents import Residents
from retrieval.inquiry import Inquiry
from retrieval.parsing.registry import read
from retrieval.parsing.source import Source
from retrieval.passage_store import New, Placed
from retrieval.ports import Chunk, Role
from retrieval.reranking.reranker import Reranker
from retrieval.search import Search

CALLER = Caller("key_bench", labels=frozenset("*"))
VECTORS = manuals.OUT / "vectors.npz"
SAVED_EVERY = 1024

K = 10
MEASURED = ("recall@5", "recall@10", "mrr@10", "ndcg@10")
MARKS = ("<!-- finding: written by make bench-retrieval ARGS=--write -->", "<!-- finding: end -->")

Vectors = NDArray[np.float32]
Pages = Mapping[str, Sequence[Chunk]]


class Sought(msgspec.Struct, frozen=True):
    """A search as it is configured."""

    dense: float = 1.0
    lexical: float = 1.0
    fusion: Fusion = "blend"
    meaning: float = MEANING
    rerank: Rerank | None = None


SEARCHES: Mapping[str, Sought] = {
    "hybrid": Sought(),
    "BM25": Sought(dense=0),
    "dense": Sought(lexical=0),
    "hybrid, reciprocal ranks": Sought(fusion="ranks"),
    "hybrid + rerank": Sought(rerank=Rerank("penstock/rerank", timeout_s=600)),
}
TUNED: Mapping[str, Sought] = {
    **{f"blend, meaning {share:g}": Sought(meaning=share) for share in (0.65, 0.7, 0.75, 0.8, 0.85)},
    **{
        f"ranks {dense:g} : {lexical:g}": Sought(dense, lexical, "ranks")
        for dense, lexical in ((1, 1), (1, 0), (0, 1), (2, 1), (3, 1), (1, 2), (1, 3))
    },
}


class Found(msgspec.Struct, frozen=True):
    rankings: Mapping[str, Ranking]
    took_ms: Sequence[float]


def cut(folder: Path, only: Collection[str] | None = None) -> Pages:
    """Every document's passages, or those of some, as ingestion cuts them for the built-in model."""
    sizes = auto(bundled.MINILM.max_tokens)
    pages: dict[str, Sequence[Chunk]] = {}
    for file in sorted(folder.rglob("*.html")):
        if only is not None and str(file.relative_to(folder)) not in only:
            continue
        parsed = read(Source(file.name, file))
        document = chunk.Document(parsed.text, parsed.blocks, verbatim=False)
        pages[str(file.relative_to(folder))] = [
            Chunk(each.text, each.start, each.end, each.page, each.line, each.heading, each.tokens)
            for each in strategies.by_tokens(document, Estimate(), chunk.Sizes(sizes.max_tokens, sizes.overlap_tokens))
        ]
    return pages


def seen(each: Chunk) -> str:
    """What the embedding model sees of a passage."""
    return "\n".join((*each.heading, each.text))


class Kept:
    """Vectors by the hash of their text, in a file that is written now and then."""

    def __init__(self, file: Path, engine: Engine) -> None:
        self._file = file
        self._engine = engine
        self._known: dict[bytes, Vectors] = {}
        if file.exists():
            with np.load(file) as saved:
                rows, keys = saved["vectors"], saved["keys"].tobytes()
            self._known = {keys[at * 32 : at * 32 + 32]: rows[at] for at in range(len(rows))}

    async def of(self, texts: Sequence[str]) -> Vectors:
        missing = list({_key(text): text for text in texts if _key(text) not in self._known}.values())
        missing.sort(key=len)  # little padding
        began = time.monotonic()
        for start in range(0, len(missing), SAVED_EVERY):
            some = missing[start : start + SAVED_EVERY]
            for at in range(0, len(some), 256):
                part = some[at : at + 256]
                for text, vector in zip(part, (await self._engine.embed(part)).vectors, strict=True):
                    self._known[_key(text)] = vector
            self._save()
            done, spent = start + len(some), time.monotonic() - began
            print(f"embedded {done:,} of {len(missing):,} in {spent:.0f} s", file=sys.stderr, flush=True)
        return np.stack([self._known[_key(text)] for text in texts]) if texts else np.zeros((0, 1), np.float32)

    def _save(self) -> None:
        beside = self._file.with_suffix(".tmp.npz")
        keys = np.frombuffer(b"".join(self._known), np.uint8)
        np.savez(beside, keys=keys, vectors=np.stack(list(self._known.values())))
        beside.replace(self._file)


def fill(database: Database, pages: Pages, vectors: Mapping[str, Vectors]) -> str:
    """A collection of all of them; its id. A document's file id is the page's."""
    with database.writing() as tx:
        made = collection_store.create(tx, CALLER, NewCollection("manuals", "minilm"))
        collection_store.learn_dimensions(tx, made.id, bundled.MINILM.dimensions)
    for page, chunks in pages.items():
        with database.writing() as tx:
            document = document_store.attach(tx, made, NewDocument(page, page, {}, (), auto(bundled.MINILM.max_tokens)))
            new = [
                New(at, _key(seen(each)), each, vector.tobytes())
                for at, (each, vector) in enumerate(zip(chunks, vectors[page], strict=True))
            ]
            if new:
                passage_store.prepare(tx, made.id, document.id, new)
            ids = [known.id for known in passage_store.prepared(tx, document.id)]
            generation = collection_store.next_generation(tx, made.id)
            placed = [Placed(id_, at, each) for at, (id_, each) in enumerate(zip(ids, chunks, strict=True))]
            passage_store.publish(tx, made.id, document.id, generation, placed, ())
            document_store.complete(
                tx, document, generation, fingerprint="", text="", usage_bytes=0, passages=len(chunks)
            )
    return made.id


class Known:
    """`retrieval.ports.Embedder` for texts whose vectors are kept."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept

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
        del model, payer, aside, account, dimensions, role, prompts
        return await self._kept.of(texts)

    def prompts(self, model: str) -> str | None:
        del model
        return None

    def window(self, model: str) -> int | None:
        del model
        return bundled.MINILM.max_tokens

    def require(self, model: str, payer: str) -> None:
        del model, payer

    def default(self) -> str | None:
        return "minilm"


class BuiltIn:
    """`retrieval.ports.Ranker` by `penstock/rerank` itself, without the call around it. Nothing that it embeds is known before."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._model = Reranker(self._similar)
        self.cpu_ms: list[float] = []

    async def _similar(self, question: str, texts: Sequence[str]) -> Sequence[float]:
        vectors = (await self._engine.embed([question, *texts])).vectors
        return [float(cosine) for cosine in vectors[1:] @ vectors[0]]

    async def rank(
        self, query: str, texts: Sequence[str], priors: Sequence[float], model: str, payer: Caller
    ) -> Sequence[float]:
        del model, payer
        began = time.process_time()
        scores = await self._model.rank(query, texts, priors)
        self.cpu_ms.append(1000 * (time.process_time() - began))
        return scores

    def require(self, model: str, payer: str) -> None:
        del model, payer

    def default(self) -> str | None:
        return None


class Asking:
    """The whole search call, over all questions."""

    def __init__(self, inquiry: Inquiry, collection: str, questions: Sequence[Asked]) -> None:
        self._inquiry = inquiry
        self._collection = collection
        self._questions = questions

    async def run(self, sought: Sought) -> Found:
        """For each question its documents, best first, and how long each took in ms."""
        rankings, took = {}, []
        for each in self._questions:
            question = Question(
                (each.text,),
                K,
                dense=sought.dense,
                lexical=sought.lexical,
                group=1,
                rerank=sought.rerank,
                fusion=sought.fusion,
                meaning=sought.meaning,
            )
            began = time.perf_counter()
            found = await self._inquiry.run(CALLER, self._collection, question)
            took.append(1000 * (time.perf_counter() - began))
            rankings[each.id] = ordered([result.document.source_id for result in found.results])
        return Found(rankings, took)


def chosen(pages: Pages, questions: Sequence[Asked], most: int) -> Pages:
    """All that answer a question, and of the others the shortest."""
    answering = {page for each in questions for page in each.pages}
    others = sorted((page for page in pages if page not in answering), key=lambda page: (len(pages[page]), page))
    kept = answering.union(others[: max(0, most - len(answering))])
    return {page: chunks for page, chunks in pages.items() if page in kept}


class Manuals(msgspec.Struct):
    """Documents in a collection, and questions about them."""

    questions: Sequence[Asked]
    pages: Pages
    engine: Engine
    kept: Kept
    database: Database
    search: Search
    collection: str


@asynccontextmanager
async def manuals_in(folder: Path, documents: int | None) -> AsyncIterator[Manuals]:
    """`documents`: only so many, as `--documents` says."""
    questions = manuals.load()
    pages = cut(manuals.OUT / "documents")
    if documents is not None:
        pages = chosen(pages, questions, documents)
    model = Engine(bundled.MINILM, bundled.opener(manuals.OUT / "model"))
    kept = Kept(VECTORS, model)
    flat = await kept.of([seen(each) for chunks in pages.values() for each in chunks])
    await kept.of([each.text for each in questions])
    ends = list(accumulate(len(chunks) for chunks in pages.values()))
    vectors = {page: flat[end - len(pages[page]) : end] for page, end in zip(pages, ends, strict=True)}
    engine = connect(f"sqlite:///{folder / 'penstock.db'}")
    prepare(engine)
    database = Database(partial(reading, engine), partial(appending, engine))
    collection = fill(database, pages, vectors)
    residents = Residents(database, folder / "retrieval", 4 << 30)
    residents.maintain(collection)
    search = Search(database, residents, Known(kept))
    try:
        yield Manuals(questions, pages, model, kept, database, search, collection)
    finally:
        search.close()
        residents.close()
        engine.dispose()
        await model.close()


async def measure(arguments: argparse.Namespace, folder: Path) -> str:
    async with manuals_in(folder, arguments.documents) as all_:
        questions, pages = all_.questions, all_.pages
        ranker = BuiltIn(all_.engine)
        asking = Asking(Inquiry(all_.database, all_.search, ranker, None), all_.collection, questions)
        if arguments.tune:
            return _tuned(await _each(asking, TUNED), questions)
        runs = await _each(asking, SEARCHES)
        passages = sum(map(len, pages.values()))
        limited = (
            ""
            if arguments.documents is None
            else f"all that answer, and the shortest others (`--documents {arguments.documents}`); "
        )
        text = _report(runs, questions, f"{len(pages):,} documents ({limited}{passages:,} passages)")
        spent = percentile(ranker.cpu_ms, 0.5)
        return f"{text} Of these, reranking with all that it embeds takes {spent:.0f} ms of a processor (median)."


async def _each(asking: Asking, searches: Mapping[str, Sought]) -> Mapping[str, Found]:
    runs = {}
    for name, sought in searches.items():
        runs[name] = await asking.run(sought)
        print(f"{name}: done", file=sys.stderr, flush=True)
    return runs


def _report(runs: Mapping[str, Found], questions: Sequence[Asked], what: str) -> str:
    held = [each for each in questions if not tuning(each)]
    sets = {"All questions": questions, "The half that nothing was chosen by": held}
    sets |= {f"Kind `{kind}`": [each for each in questions if each.kind == kind] for kind in sorted(manuals.SHARES)}
    how = f"`make bench-retrieval`, {machine().date}: {what}, {len(questions)} questions."
    marks = "In brackets the interval of 95 %; a star: differs from hybrid by more than chance (paired, p < 0.05)."
    lines = ["## Searches over manuals", "", f"{how} {marks}"]
    for title, some in sets.items():
        if not some:
            continue
        judged = {each.id: dict.fromkeys(each.pages, 1) for each in some}
        table = compare({name: found.rankings for name, found in runs.items()}, judged, MEASURED).table()
        lines += ["", f"{title} ({len(some)}):", "", table, "", _gaps(runs, judged)]
    times = [
        f"{name} {percentile(found.took_ms, 0.5):.0f} / {percentile(found.took_ms, 0.95):.0f}"
        for name, found in runs.items()
    ]
    return "\n".join([*lines, "", f"ms a search, p50 / p95, vectors of questions known: {', '.join(times)}."])


def _gaps(runs: Mapping[str, Found], judged: Mapping[str, Mapping[str, int]]) -> str:
    """How much better hybrid is than each of the others."""

    def values(found: Found) -> list[float]:
        return [measured("ndcg@10", found.rankings[id_], judged[id_]) for id_ in judged]

    first, *others = runs
    told = []
    for name in others:
        gap = difference(values(runs[name]), values(runs[first]))
        told.append(f"{name} {gap.value:+.3f} ({gap.low:+.3f} to {gap.high:+.3f})")
    return f"nDCG@10 of {first} less that of: {', '.join(told)}."


def _tuned(runs: Mapping[str, Found], questions: Sequence[Asked]) -> str:
    judged = {each.id: dict.fromkeys(each.pages, 1) for each in questions if tuning(each)}
    return compare({name: found.rankings for name, found in runs.items()}, judged, MEASURED).table()


def tuning(question: Asked) -> bool:
    return hashlib.sha256(f"half {question.id}".encode()).digest()[0] % 2 == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tune", action="store_true", help="weights on the half that is there to choose by")
    parser.add_argument("--documents", type=int, help="only so many: all that answer, and the shortest of the others")
    parser.add_argument("--write", action="store_true", help="renew the section of RESULTS.md")
    arguments = parser.parse_args()
    if not (manuals.OUT / "questions.jsonl").exists():
        manuals.build(manuals.OUT, 500)
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        text = asyncio.run(measure(arguments, Path(folder)))
    print(text)
    if arguments.write and not arguments.tune:
        write_section(Path(__file__).parent / "RESULTS.md", text, MARKS)


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()


if __name__ == "__main__":
    main()
