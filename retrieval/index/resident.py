"""A collection's index in this process: opened from its artefact or made from the truth, brought up to date, and written down."""

import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from math import inf
from pathlib import Path
from typing import Final, final

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray
from sqlalchemy import Connection

from retrieval import collection_store, document_store, passage_store
from retrieval.collection_store import Collection
from retrieval.database import Database
from retrieval.errors import NotFound, Unavailable
from retrieval.index import artefact, building
from retrieval.index.artefact import Artefact
from retrieval.index.columns import Columns
from retrieval.index.engines import Engines
from retrieval.index.matrix import Matrix
from retrieval.index.planner import EXACT_WORK
from retrieval.index.ports import EngineAway, Graph, Ids, Mask, NotMade, Vectors
from retrieval.index.state import EFFORT, State
from retrieval.index.texts import Shown, Told
from retrieval.passage_store import Indexed
from retrieval.reembedding import store as reembeddings
from retrieval.shown import copied, generation
from retrieval.spaces import FIRST, place_of

log = structlog.stdlib.get_logger(__name__)

GROWN: Final = 0.25  # so much more, or so much of it dead, and it is written again
READ_AT_ONCE: Final = 2000  # passages
RETRY_S: Final = 60.0
SHRUNK: Final = 0.5  # of the size at which a tenant gets its graph: below it, it has none any more


class Sizes(msgspec.Struct, frozen=True):
    """`written_from` rows on there is an artefact: less is read from the truth in milliseconds. `exact_work` as for the planner."""

    written_from: int = 4096
    exact_work: int = EXACT_WORK


class Needs(msgspec.Struct, frozen=True):
    """What is to be done for an index when there is time. `artefact`: anything at all; `rows` anew, and a graph over them; its texts."""

    artefact: bool
    rows: bool = False
    graph: bool = False


@final
class Resident:
    """Every method blocks. `state` is whatever was current when it was asked for; one thread at a time makes the next.

    With a `tenant` it is of that one's passages alone: there is no index of a collection that declares tenancy but those of its tenants.
    """

    def __init__(
        self,
        database: Database,
        collection_id: str,
        folder: Path,
        sizes: Sizes,
        engines: Engines | None = None,
        version: int = FIRST,
        tenant: str | None = None,
    ) -> None:
        self.collection_id = collection_id
        self.version = version
        self.tenant = tenant
        self.folder = folder
        self._database = database
        self._sizes = sizes
        self._engines = engines or Engines()
        self._failed_at: float | None = None
        self._turn = threading.Lock()
        self._closed = threading.Event()
        self._state: State | None = None
        self._known: Collection | None = None

    @property
    def nbytes(self) -> int:
        return 0 if self._state is None else self._state.nbytes

    def current(self) -> tuple[Collection, State]:
        """The collection, with its vectors of this version, and an index of all that was committed before this began.

        Raises NotFound, also where vectors of this version are not kept up to date (any more), and where the collection is whole and
        this is a tenant's part, or the other way round.
        """
        with self._database.reading() as tx:
            newest = generation(tx, self.collection_id)
            known, state = self._known, self._state
            if known is not None and state is not None and newest is not None and state.generation >= newest:
                return known, state  # what of a collection can change without a generation, no search asks for
            known = self._collection(tx)
            if known is None:
                raise NotFound(f"No such Vector store object: {self.collection_id}", param="vector_store_id")
            with self._turn:
                state = self._state
                if state is None or state.generation < known.generation:
                    state = self._state = self._next(tx, known, state)
                self._known = known
            return known, state

    def latest(self) -> tuple[Collection, State] | None:
        """As it was last seen; asks nobody."""
        known, state = self._known, self._state
        return None if known is None or state is None else (known, state)

    def saw(self, collection: Collection) -> None:
        """As the truth has it now, in this version: for what can change without a generation."""
        with self._turn:
            if self._known is not None and collection.generation >= self._known.generation:
                self._known = collection

    def _collection(self, tx: Connection) -> Collection | None:
        found = collection_store.by_id(tx, self.collection_id)
        if found is None or (found.tenancy is None) != (self.tenant is None):
            return None
        return reembeddings.within(tx, found, self.version)

    def needs(self) -> Needs:
        """Cheap."""
        state = self._state
        if state is None or state.matrix is None or (self.tenant is not None and not state.count):
            return Needs(artefact=False)
        large = state.count >= min(self._sizes.written_from, self._promote_at)
        old = len(state.matrix.tail) > GROWN * len(state.matrix.base) or state.dead > GROWN * state.rows
        engine = self._engine()
        made = state.graph
        wants = engine is not None and self._worth_a_graph(state, made is not None)
        covered = 0 if made is None or made.lost or made.engine != engine else made.rows
        graph = wants and (state.rows - covered > GROWN * covered or state.dead > GROWN * state.rows)
        if self.tenant is not None and made is not None and not wants:
            return Needs(artefact=True, rows=True)
        return Needs(artefact=large and (old or graph or _untold(state)), rows=old or graph, graph=graph)

    @property
    def _promote_at(self) -> float:
        """Passages, of a tenant."""
        known = self._known
        tenancy = None if known is None or self.tenant is None else known.tenancy
        return inf if tenancy is None else tenancy.promote_at

    def _worth_a_graph(self, state: State, there: bool) -> bool:
        if self.tenant is None:
            return state.count * (0 if state.matrix is None else state.matrix.dimensions) > self._sizes.exact_work
        return state.count >= self._promote_at * (SHRUNK if there else 1)

    def write(self) -> bool:
        """The artefact anew, without what is dead; then a graph beside it, if it is worth one. False where another process is at it."""
        with artefact.writing(self.folder) as mine:
            if not mine:
                return False
            wanted = self.needs()
            if not wanted.artefact:
                return True
            manifest = self._written(wanted)
            if manifest is not None and wanted.graph:
                self._failed_at = None
                try:
                    artefact.publish(self.folder, building.build(self.folder, manifest, self._task(), self._closed))
                except NotMade as error:
                    self._failed_at = time.monotonic()
                    log.warning("index.no_graph", collection=self.collection_id, reason=str(error))
            if not self._closed.is_set():
                self._adopt()
        return True

    def retries(self) -> bool:
        """Whether something is to be written for another reason than that the collection was changed: its files were damaged, or of an
        earlier release, or its engine was away.
        """
        state, at = self._state, self._failed_at
        lost = state is not None and state.graph is not None and state.graph.lost
        due = at is None or time.monotonic() - at > RETRY_S
        return (lost or due) and self.needs().artefact

    def _engine(self) -> str | None:
        known = self._known
        if known is None:
            return self._engines.chosen(None)
        return self._chosen(known)

    def _chosen(self, collection: Collection) -> str | None:
        name, quantization = collection.engine, collection.quantization
        return self._engines.chosen(name, quantization, apart=self.tenant is not None)

    def _task(self) -> building.Wanted:
        engine, known = self._engine(), self._known
        assert engine is not None
        assert known is not None
        name = place_of(self.collection_id, self.version, self.tenant)
        return building.Wanted(engine, self._engines.settings, known.quantization, name)

    def repair(self, effort: int | None) -> None:
        """More effort for the graph; None: it is not to be trusted, and everything is compared until another one is made."""
        with self._turn:
            if self._state is not None and self._state.graph is not None:
                self._state = self._state.with_effort(effort)

    def forget(self) -> None:
        """Out of memory; the artefact stays."""
        with self._turn:
            state, self._state = self._state, None
        if state is not None and state.graph is not None:
            state.graph.close()

    def close(self) -> None:
        """As `forget`, and a graph that is being made is given up: nobody waits for it."""
        self._closed.set()
        self.forget()

    def _written(self, wanted: Needs) -> artefact.Manifest | None:
        """None where another process has written what this one had not seen."""
        _, state = self.current()
        assert state.matrix is not None
        matrix = state.matrix
        there, texts = artefact.known(self.folder), state.told.texts
        same = there is not None and matrix.file == there.files["vectors"].name
        as_it_is = not state.dead and not len(matrix.tail) and (wanted.graph or state.graph is None)
        if there is not None and same and (as_it_is or not wanted.rows):
            others = "texts" in there.files and (texts is None or there.files["texts"].name != texts.name)
            if others or not _untold(state):
                return there
            return self._told(there, state.ids[: there.rows], state.generation)
        if there is not None and not wanted.rows:
            return None
        slots = np.arange(state.rows) if state.alive is None else np.flatnonzero(state.alive)
        known = np.fromiter(state.columns.row, np.int64, len(state.columns))

        def parts() -> Iterator[Vectors]:
            for start in range(0, len(slots), 4096):
                yield matrix.pick(slots[start : start + 4096])

        owners = known[state.owners[slots]]
        manifest = artefact.write(self.folder, state.generation, parts(), state.ids[slots], owners)
        return self._told(manifest, state.ids[slots], state.generation)

    def _told(self, manifest: artefact.Manifest, ids: Ids, generation: int) -> artefact.Manifest:
        """Published, with what is shown of these passages, which are its rows, at that generation or later."""

        def shown() -> Iterator[Sequence[Shown | None]]:
            for start in range(0, len(ids), READ_AT_ONCE):
                some = ids[start : start + READ_AT_ONCE].tolist()
                yield self._database.read(partial(copied, collection_id=self.collection_id, ids=some))

        manifest = artefact.with_texts(self.folder, manifest, shown(), generation)
        artefact.publish(self.folder, manifest)
        return manifest

    def _adopt(self) -> None:
        """What was written is what is used from here on; what came meanwhile is put behind it."""
        with self._database.reading() as tx, self._turn:
            collection, before = self._collection(tx), self._state
            if collection is None:
                return
            self._state = self._next(tx, collection, None)
        if before is not None and before.graph is not None:
            before.graph.close()

    def _next(self, tx: Connection, collection: Collection, state: State | None) -> State:
        known = state is not None
        if state is not None and state.generation < collection.generation - collection_store.REMOVALS_KEPT:
            state, known = None, False  # of a tenant that was not asked for meanwhile
        if state is None:
            state = self._opened(tx, collection)
        if state is None:
            state = self._nothing(collection)
        before, state = state, self._updated(tx, collection, state)
        if known and self.tenant is not None and state.is_as(before):
            return state  # others' passages changed
        there = passage_store.number(tx, collection.id, collection.edition, self.tenant)
        if state.count != there:
            log.error("index.differs", collection=collection.id, index=state.count, truth=there)
            state = self._updated(tx, collection, self._nothing(collection))
        return state

    def _opened(self, tx: Connection, collection: Collection) -> State | None:
        """From the artefact, as of its generation."""
        found = artefact.opened(self.folder)
        if found is None or found.manifest.generation > collection.generation:
            return None
        if found.manifest.generation < collection.generation - collection_store.REMOVALS_KEPT:
            return None
        described = document_store.described(tx, collection.id, 0, self.tenant)
        columns = Columns({each.id: each for each in described})
        owners = _rows(columns, found.owners)
        alive: Mask | None = owners >= 0
        if alive is not None and alive.all():
            alive = None
        return State(
            found.manifest.generation,
            found.ids,
            np.maximum(owners, 0),
            alive,
            Matrix(found.vectors),
            columns,
            self._graph(found, collection),
            found.manifest.effort or EFFORT,
            self._exact_work(collection),
            found.manifest.costs,
            Told(found.texts, found.manifest.told),
        )

    def _graph(self, found: Artefact, collection: Collection) -> Graph | None:
        path, engine = found.graph, found.manifest.engine
        if path is None or engine is None or engine != self._chosen(collection):
            return None
        try:
            return self._engines.get(engine, found.manifest.quantization).load(path, found.content)
        except (OSError, RuntimeError, ValueError, Unavailable, EngineAway) as error:
            log.warning("index.no_graph", collection=self.collection_id, reason=str(error))
            return None

    def _updated(self, tx: Connection, collection: Collection, state: State) -> State:
        """With all that happened since its generation."""
        since = state.generation
        changed = document_store.described(tx, collection.id, since, self.tenant)
        gone = self._gone(tx, state)
        if self.tenant is not None and since >= 0 and not changed and not len(gone):
            return state.at(collection.generation)
        columns, told = state.columns.changed(changed), state.told
        if told.since > since:  # texts that were written later than the vectors
            changed = document_store.described(tx, collection.id, told.since, self.tenant)
        told = told.after(each.id for each in changed)
        ids, owners, matrix, alive = state.ids, state.owners, state.matrix, state.alive
        if len(gone) or (changed and self.tenant is not None and alive is not None):
            alive = np.ones(state.rows, np.bool_) if alive is None else alive.copy()
            owners = owners.copy()
            alive[gone] = False
        edition = collection.edition
        for some in passage_store.indexed(tx, collection.id, since, READ_AT_ONCE, self.version, edition, self.tenant):
            if self.tenant is not None and state.rows:
                there = state.slots_of(np.fromiter((each.id for each in some), np.int64, len(some)))
                if alive is not None:  # what has come back from another tenant
                    back = there[there >= 0]
                    pairs = zip(some, there.tolist(), strict=True)
                    owners[back] = [columns.row[each.document_id] for each, slot in pairs if slot >= 0]
                    alive[back] = True
                some = [each for each, slot in zip(some, there.tolist(), strict=True) if slot < 0]  # noqa: PLW2901
                if not some:
                    continue
            more = _vectors(some)
            matrix = Matrix(np.empty((0, more.shape[1]), np.float32)) if matrix is None else matrix
            matrix = matrix.extended(more)
            ids = np.concatenate([ids, np.fromiter((each.id for each in some), np.int64, len(some))])
            theirs = np.fromiter((columns.row[each.document_id] for each in some), np.int64, len(some))
            owners = np.concatenate([owners, theirs])
        if alive is not None:
            alive = np.concatenate([alive, np.ones(len(ids) - len(alive), np.bool_)])
        work = self._exact_work(collection)
        return State(
            collection.generation,
            ids,
            owners,
            alive,
            matrix,
            columns,
            state.graph,
            state.effort,
            work,
            state.costs,
            told,
        )

    def _gone(self, tx: Connection, state: State) -> Ids:
        """Slots of passages that were taken away since, or are of documents that are another tenant's by now."""
        if not state.rows:
            return np.zeros(0, np.int64)
        removed = [
            np.frombuffer(pack, "<i8") for pack in passage_store.removed(tx, self.collection_id, state.generation)
        ]
        gone = [state.slots_of(np.concatenate(removed).astype(np.int64))] if removed else []
        if self.tenant is not None:
            others = document_store.left(tx, self.collection_id, state.generation, self.tenant)
            rows = [row for row in map(state.columns.row.get, others) if row is not None]
            if rows:
                gone.append(np.flatnonzero(np.isin(state.owners, rows)))
        slots = np.concatenate(gone) if gone else np.zeros(0, np.int64)
        return slots[slots >= 0]

    def _exact_work(self, collection: Collection) -> int:
        """A tenant that is to have a graph is searched by it, however small: that is what was asked for."""
        if self.tenant is None or collection.tenancy is None:
            return self._sizes.exact_work
        return max(0, int(SHRUNK * collection.tenancy.promote_at) * (collection.dimensions or 0) - 1)

    def _nothing(self, collection: Collection) -> State:
        none = np.zeros(0, np.int64)
        return State(-1, none, none, None, None, Columns(), exact_work=self._exact_work(collection))


def _untold(state: State) -> bool:
    """Whether what is shown of it is to be written (again)."""
    told = state.told
    return told.texts is None or told.damaged or len(told.stale) > GROWN * len(state.columns)


def _vectors(some: Sequence[Indexed]) -> Vectors:
    joined = b"".join(each.vector for each in some)
    return np.frombuffer(joined, "<f4").reshape(len(some), -1)


def _rows(columns: Columns, documents: NDArray[np.int64]) -> NDArray[np.int64]:
    """The row of each document; -1 for those that are not there any more."""
    if not len(columns):
        return np.full(len(documents), -1, np.int64)
    known = np.fromiter(columns.row, np.int64, len(columns))
    order = np.argsort(known)
    at = np.minimum(np.searchsorted(known, documents, sorter=order), len(known) - 1)
    rows = order[at]
    return np.where(known[rows] == documents, rows, -1)
