"""What a search within one tenant costs: in a store that declares tenancy, by a filter in one that does not, and in a store of its own.

    make bench-tenants ARGS="--cache /var/tmp/tenants --write"

One tenant is large, the others share the rest. A call is all of a search but the embedding, as in `benchmarks.engines`, in this process:
CPU time of all its threads, medians of rounds in which the arrangements are asked in turn. `--cache` keeps what took long to build.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from admin.migrate import prepare
from benchmarks import report
from benchmarks.engines import unit
from benchmarks.penstock_engine import CALLER, SETTLING, Hurried, Known
from gateway.database import appending, bare, connect, reading
from retrieval import collection_store, document_store, passage_store
from retrieval.asking import Question, Results
from retrieval.chunking_strategy import Chunking
from retrieval.collection_store import Collection, NewCollection
from retrieval.database import Database
from retrieval.document_store import NewDocument
from retrieval.filters import parse
from retrieval.index.residents import Residents
from retrieval.passage_store import New, Placed
from retrieval.ports import Chunk
from retrieval.search import Search
from retrieval.tenancy import Tenancy

HERE = Path(__file__).parent
K: Final = 10
DOCUMENT: Final = 50  # passages
WORDS: Final = 4000
HEAD: Final = ("tenant of", "asked", "arrangement", "CPU µs", "recall@10", "plan", "CPU µs, first")
MARKS: Final = ("<!-- tenants: written by make bench-tenants -->", "<!-- tenants: end -->")
ARRANGEMENTS: Final = ("declared", "filter", "own store")
ASKED: Final = ("meaning", "meaning, 10 % pass", "meaning and words")

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Tenant:
    name: str
    rows: int


@dataclass(frozen=True, slots=True)
class Row:
    """`first_us`: of the first search of the process, which opens or makes what it needs."""

    tenant: Tenant
    asked: str
    arrangement: str
    cpu_us: float
    recall: float
    plan: str
    first_us: float | None = None


class Town:
    """The same tenants in every arrangement, each a store or several of them in one database."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.options = options
        small = (options.rows - options.large) // (options.tenants - 1)
        self.large, self.small = Tenant("large", options.large), Tenant("t1", small)
        self.tenants = [self.large, *(Tenant(f"t{number}", small) for number in range(1, options.tenants))]
        there = (folder / "tenants.db").exists()
        self.engine = connect(f"sqlite:///{folder / 'tenants.db'}")
        prepare(self.engine)
        engine = self.engine
        self.database = Database(partial(reading, engine), partial(appending, engine), partial(bare, engine))
        self.random = np.random.default_rng(1)
        self.centres = self.random.standard_normal((512, options.dimensions), np.float32)
        if not there:
            self._fill()
        found = self.database.read(lambda tx: collection_store.listed(tx, CALLER, 100)).data
        self.stores: dict[str, Collection] = {each.name: each for each in found}
        self.residents = Residents(self.database, folder / "retrieval", 8 << 30)
        for each in self.stores.values():
            began = time.monotonic()
            self.residents.maintain(each.id)
            print(f"{each.name}: {time.monotonic() - began:.0f} s until its indexes are there", flush=True)
        self.reopen(folder)

    def reopen(self, folder: Path) -> None:
        self.residents.close()
        self.residents = Residents(self.database, folder / "retrieval", 8 << 30)
        self.embedder, self.clock = Known(), Hurried()
        self.search = Search(self.database, self.residents, self.embedder, self.clock)

    def near(self, count: int) -> Vectors:
        topics = self.centres[self.random.integers(0, 512, count)]
        return unit(topics + 0.7 * self.random.standard_normal((count, topics.shape[1]), np.float32))

    def truth(self, tenant: Tenant, narrow: bool) -> Vectors:
        """What may be found: the same in every arrangement."""
        store = self.stores[f"own {tenant.name}"]
        with self.database.reading() as tx:
            some = [each for part in passage_store.indexed(tx, store.id, -1, 2000) for each in part]
            tenths = {each.id: each.attributes["tenth"] for each in document_store.described(tx, store.id, -1)}
        kept = [number for number, each in enumerate(some) if not narrow or tenths[each.document_id] == 0]
        return np.stack([np.frombuffer(some[number].vector, "<f4") for number in kept])

    def _fill(self) -> None:
        made = {
            "declared": self._store("declared", Tenancy("tenant", self.options.promote_at)),
            "filter": self._store("filter"),
            **{f"own {each.name}": self._store(f"own {each.name}") for each in (self.large, self.small)},
        }
        vocabulary = np.array([f"word{number}" for number in range(WORDS)])
        # Tenants come in turn, as they do in life: nothing lies side by side by itself.
        waiting = [(each, start) for each in self.tenants for start in range(0, each.rows, DOCUMENT)]
        order = self.random.permutation(len(waiting))
        began = time.monotonic()
        for at in range(0, len(order), 200):
            with self.database.writing() as tx:
                for place in order[at : at + 200].tolist():
                    tenant, start = waiting[place]
                    count = min(DOCUMENT, tenant.rows - start)
                    vectors = self.near(count)
                    ranks = np.minimum(self.random.zipf(1.3, (count, 12)), WORDS) - 1
                    texts = [" ".join(vocabulary[row]) for row in ranks]
                    for name in ("declared", "filter", f"own {tenant.name}"):
                        if name in made:
                            self._document(tx, made[name], tenant, start, texts, vectors)
        print(f"filled in {time.monotonic() - began:.0f} s", flush=True)

    def _store(self, name: str, tenancy: Tenancy | None = None) -> Collection:
        new = NewCollection(name, "bench", tenancy=tenancy)
        with self.database.writing() as tx:
            made = collection_store.create(tx, CALLER, new)
            collection_store.learn_dimensions(tx, made.id, self.options.dimensions)
        return made

    @staticmethod
    def _document(
        tx: Connection, store: Collection, tenant: Tenant, start: int, texts: Sequence[str], vectors: Vectors
    ) -> None:
        attributes: dict[str, str | float | bool] = {"tenant": tenant.name, "tenth": float(start // DOCUMENT % 10)}
        named = tenant.name if store.tenancy is not None else None
        new = NewDocument(f"{tenant.name}-{start}", "a.txt", attributes, (), Chunking(), tenant=named)
        document = document_store.attach(tx, store, new)
        chunks = [Chunk(text, 0, len(text)) for text in texts]
        pairs = enumerate(zip(chunks, vectors, strict=True))
        passages = [New(at, at.to_bytes(4), chunk, row.tobytes()) for at, (chunk, row) in pairs]
        ids = passage_store.prepare(tx, store.id, document.id, passages)
        generation = collection_store.next_generation(tx, store.id)
        placed = [Placed(id_, at, chunk) for at, (id_, chunk) in enumerate(zip(ids, chunks, strict=True))]
        passage_store.publish(tx, store.id, document.id, generation, placed, ())
        document_store.complete(
            tx,
            document,
            generation,
            fingerprint="",
            text="",
            usage_bytes=0,
            passages=len(texts),
        )

    def question(self, arrangement: str, tenant: Tenant, asked: str) -> tuple[Collection, Question]:
        parts: list[object] = [{"type": "eq", "key": "tenth", "value": 0}] if "pass" in asked else []
        if arrangement == "filter":
            parts.append({"type": "eq", "key": "tenant", "value": tenant.name})
        wanted = parse({"type": "and", "filters": parts}) if parts else None
        words = " ".join(f"word{number}" for number in self.random.integers(5, 200, 3))
        question = Question((words,), K, wanted, lexical=1.0 if "words" in asked else 0.0)
        if arrangement == "declared":
            question = msgspec.structs.replace(question, tenant=tenant.name)
        store = f"own {tenant.name}" if arrangement == "own store" else arrangement
        return self.stores[store], question

    async def ask(self, store: Collection, question: Question, vector: Vectors) -> tuple[float, Results]:
        self.embedder.vector = vector[None]
        began = time.process_time()
        found = await self.search.run(CALLER, store.id, question)
        took = time.process_time() - began
        while self.search.checking:  # noqa: ASYNC110 — nobody else waits for it
            await asyncio.sleep(0.001)
        return 1e6 * took, found


def main() -> None:
    options = _options()
    with _folder(options.cache) as folder:
        town = Town(folder, options)
        rows = asyncio.run(measured(town, options.rounds, options.queries))
        town.search.close()
        town.residents.close()
        town.engine.dispose()
    page = render(rows, options)
    print("\n" + page)
    if options.write:
        report.write_section(HERE / "RESULTS.md", page, MARKS)


async def measured(town: Town, rounds: int, queries: int) -> list[Row]:
    first: dict[tuple[str, str], float] = {}
    await town.ask(*town.question("declared", town.tenants[-1], "meaning"), town.near(1)[0])  # the process itself warms
    for tenant in (town.small, town.large):
        for arrangement in ARRANGEMENTS:
            store, question = town.question(arrangement, tenant, "meaning")
            first[tenant.name, arrangement] = (await town.ask(store, question, town.near(1)[0]))[0]
    for arrangement in ARRANGEMENTS:  # the audit finds the effort that such questions need, as it does on live ones
        for query in town.near(SETTLING * queries):
            await town.ask(*town.question(arrangement, town.large, "meaning"), query)
    town.clock.step = 0.0
    rows = []
    for tenant in (town.small, town.large):
        for asked in ASKED:
            for row in await compete(town, tenant, asked, rounds, queries):
                opened = first[tenant.name, row.arrangement] if asked == "meaning" else None
                rows.append(replace(row, first_us=opened))
                print(rows[-1], flush=True)
    return rows


async def compete(town: Town, tenant: Tenant, asked: str, rounds: int, queries: int) -> list[Row]:
    """The arrangements in turn, the same questions in each round; a round before them warms, and says what is found."""
    vectors, questions = town.truth(tenant, "pass" in asked), town.near(queries)
    took: dict[str, list[float]] = {each: [] for each in ARRANGEMENTS}
    hits: dict[str, list[float]] = {each: [] for each in ARRANGEMENTS}
    plans: dict[str, str] = {}
    for turn in range(rounds + 1):
        for arrangement in ARRANGEMENTS:
            of_round = []
            for query in questions:
                cpu, found = await town.ask(*town.question(arrangement, tenant, asked), query)
                of_round.append(cpu)
                plans[arrangement] = found.plans[0].name
                if turn == 0:  # equals are as good as each other, and a vector is the same in every arrangement
                    worst = float(np.partition(vectors @ query, -K)[-K]) - 1e-5
                    hits[arrangement].append(sum(one.score >= worst for one in found.results) / K)
            if turn:
                took[arrangement].append(statistics.mean(of_round))
    rows = []
    for arrangement in ARRANGEMENTS:
        recall = statistics.mean(hits[arrangement]) if "words" not in asked else float("nan")
        rows.append(Row(tenant, asked, arrangement, statistics.median(took[arrangement]), recall, plans[arrangement]))
    return rows


def render(rows: Sequence[Row], options: argparse.Namespace) -> str:
    facts = report.machine()
    origin = (
        f"{options.rows:,} passages of {options.dimensions} dimensions, {options.tenants} tenants, their documents in turn; k = 10. "
        f"`{report.command('bench-tenants', sys.argv[1:])}`, {facts.date}, commit {facts.commit}. {facts.cpu}, {facts.cores} cores, load "
        f"average at the end {facts.load_average:.1f}. Whole search calls but for the embedding; medians of {options.rounds} rounds of "
        f"{options.queries} questions. `first`: the first search of a process, which opens what it needs; in `filter` the small tenant's "
        "opens the store."
    )
    body = [
        (
            f"{row.tenant.rows:,}",
            row.asked,
            row.arrangement,
            f"{row.cpu_us:,.0f}",
            "" if row.recall != row.recall else f"{row.recall:.3f}",
            row.plan,
            "" if row.first_us is None else f"{row.first_us:,.0f}",
        )
        for row in rows
    ]
    lines = "\n".join(f"- {line}" for line in compared(rows))
    return f"{origin}\n\n{lines}\n\n{report.table(HEAD, body)}"


def compared(rows: Sequence[Row]) -> list[str]:
    """Declared, beside the other two."""
    cells: dict[tuple[int, str], Mapping[str, Row]] = {}
    for row in rows:
        cells[row.tenant.rows, row.asked] = {**cells.get((row.tenant.rows, row.asked), {}), row.arrangement: row}
    return [
        f"a tenant of {size:,}, {asked}: {found['declared'].cpu_us / found['own store'].cpu_us:.2f} × a store of its own, "
        f"{found['declared'].cpu_us / found['filter'].cpu_us:.2f} × a filter"
        for (size, asked), found in cells.items()
    ]


@contextmanager
def _folder(cache: Path | None) -> Iterator[Path]:
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
        yield cache
        return
    with tempfile.TemporaryDirectory(prefix="penstock-tenants-", ignore_cleanup_errors=True) as made:
        yield Path(made)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=250_000)
    parser.add_argument("--large", type=int, default=50_000, help="passages of the large tenant")
    parser.add_argument("--tenants", type=int, default=200)
    parser.add_argument("--promote-at", type=int, default=20_000)
    parser.add_argument("--dimensions", type=int, default=192)
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--cache", type=Path, help="a folder outside of the repository that keeps what is built")
    parser.add_argument("--write", action="store_true", help="renew the section of RESULTS.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
