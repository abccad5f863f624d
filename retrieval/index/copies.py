"""Copies of an artefact's vectors on a server of any kind that every replica can search: what is the same whoever keeps them.

A copy never changes. Its name says whose it is, as of which generation, and how many rows it has once it is whole, so that a server need
know nothing but names and counts, and a copy that somebody was killed over is nobody's. A server's adapter is a `Store`; whatever goes
wrong in one is a graph that is away, or lost and made again from the truth.
"""

import re
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol, final

import msgspec
import numpy as np

from retrieval.index.guard import Guard
from retrieval.index.ports import EngineAway, Hits, Ids, NotMade, Rows, Vector
from retrieval.index.slots import SlotsOf

PREFIX: Final = "penstock"
BUILD_TIMEOUT_S: Final = 60.0
MOST_EFFORT: Final = 16_384
SOON: Final = 0.8  # of the deadline: who answers with an error by then may be asked what it has


class Copy(msgspec.Struct, frozen=True):
    """What the artefact's file says: where its graph is."""

    name: str
    generation: int
    rows: int


class Store(Protocol):
    """One server, by its official client. Every method blocks, for the client's timeout at most, and raises the client's errors."""

    def names(self) -> Sequence[str]:
        """At least those that begin with `PREFIX`."""

    def count(self, name: str) -> int:
        """Rows that searches see."""

    def make(self, name: str, rows: Rows) -> None:
        """All of them, with the field that searches are narrowed by. May raise NotMade."""

    def remove(self, name: str) -> None: ...

    def nearest(self, name: str, query: Vector, k: int, effort: int, documents: Sequence[int] | None) -> Sequence[int]:
        """Ids of passages, the nearest first; `documents`: only of these."""

    def close(self) -> None: ...


class Kind(msgspec.Struct, frozen=True):
    """A kind of server. `connect` takes the timeout of every call in seconds and may ask the server something already."""

    name: str
    title: str
    connect: Callable[[float], Store]
    failures: Callable[[], tuple[type[Exception], ...]]


@final
class Copies:
    """A `GraphEngine` over one server."""

    def __init__(self, kind: Kind, timeout_s: float) -> None:
        self.kind = kind
        self.timeout_s = timeout_s
        self.failures = kind.failures()
        self.guard = Guard(kind.name, self.failures)
        self._store: Store | None = None
        self._turn = threading.Lock()

    @property
    def name(self) -> str:
        return self.kind.name

    def build(self, rows: Rows, path: Path, collection_id: str, generation: int) -> None:
        try:
            store = self.kind.connect(max(BUILD_TIMEOUT_S, self.timeout_s))
            try:
                copy = _made(store, rows, collection_id, generation)
            finally:
                store.close()
        except self.failures as error:
            raise NotMade(f"{self.kind.title}: {_line(error)}") from error
        path.write_bytes(msgspec.json.encode(copy))

    def load(self, path: Path, rows: Rows) -> "CopyGraph":
        return CopyGraph(self, msgspec.json.decode(path.read_bytes(), type=Copy), rows)

    def drop(self, collection_id: str) -> None:
        with self.guard.call():
            store = self.store()
            for copy in _known(store, collection_id):
                store.remove(copy.name)

    def close(self) -> None:
        with self._turn:
            store, self._store = self._store, None
        if store is not None:
            store.close()

    def store(self) -> Store:
        """Connected. Two that ask at once connect at once: nobody waits for somebody else's deadline."""
        known = self._store
        if known is not None:
            return known
        made = self.kind.connect(self.timeout_s)
        with self._turn:
            if self._store is None:
                self._store = made
                return made
            known = self._store
        made.close()
        return known


@final
class CopyGraph:
    """Every score is made again from the vectors here: each kind of server has distances of its own."""

    filters = True
    coarse = True
    inside = False

    def __init__(self, engine: Copies, copy: Copy, rows: Rows) -> None:
        self.engine = engine.name
        self.rows = len(rows.ids)
        self.lost = False
        self._slots = SlotsOf(rows.ids)
        self._documents, self._passages = np.unique(rows.documents, return_counts=True)
        self.nbytes = self._slots.nbytes + self._documents.nbytes + self._passages.nbytes
        self._of = engine
        self._name = copy.name

    def search(self, query: Vector, k: int, effort: int, documents: Ids | None = None) -> Hits:
        only = None if documents is None else documents.tolist()
        found: Sequence[int] = ()
        with self._of.guard.call():
            store = self._of.store()
            began = time.monotonic()
            try:
                found = store.nearest(self._name, query, k, self._widened(effort, documents), only)
            except self._of.failures:
                if time.monotonic() - began > SOON * self._of.timeout_s or self._name in store.names():
                    raise
                self.lost = True
            else:
                self.lost = not found and self._name not in store.names()  # some find nothing in what is not there
        if self.lost:
            raise EngineAway("the copy is gone")
        slots = self._slots(np.fromiter(dict.fromkeys(found), np.int64))
        return Hits(slots, np.zeros(len(slots), np.float32))

    def _widened(self, effort: int, documents: Ids | None) -> int:
        """As many candidates among those that pass as without a filter: there are graphs that count the others as well."""
        if documents is None or not len(self._documents):
            return effort
        at = np.minimum(np.searchsorted(self._documents, documents), len(self._documents) - 1)
        matching = int(self._passages[at[self._documents[at] == documents]].sum())
        return min(max(effort, MOST_EFFORT), effort * self.rows // max(1, matching))

    def ready(self, timeout_s: float) -> bool:
        """At once."""
        del timeout_s
        return True

    def close(self) -> None:
        """Its client is the engine's."""


def name_of(collection_id: str, generation: int, rows: int) -> str:
    return f"{PREFIX}_{collection_id}_{generation}_{rows}"


def _made(store: Store, rows: Rows, collection_id: str, generation: int) -> Copy:
    """A whole copy that another replica made, of the same or a later generation, is as good."""
    known = _known(store, collection_id)
    for copy in known:
        if copy.generation >= generation and store.count(copy.name) == copy.rows:
            return copy
    made = Copy(name_of(collection_id, generation, len(rows.ids)), generation, len(rows.ids))
    for copy in known:
        if copy.generation == generation:
            store.remove(copy.name)  # half of it
    store.make(made.name, rows)
    if (count := store.count(made.name)) != made.rows:
        raise NotMade(f"{count} of {made.rows} vectors arrived")
    for copy in [copy for copy in known if copy.generation < generation][1:]:  # replicas still search the one before
        store.remove(copy.name)
    return made


def _known(store: Store, collection_id: str) -> list[Copy]:
    """The newest first."""
    form = re.compile(rf"{PREFIX}_{re.escape(collection_id)}_(\d+)_(\d+)")
    found = [(name, form.fullmatch(name)) for name in store.names()]
    copies = [Copy(name, int(match[1]), int(match[2])) for name, match in found if match is not None]
    return sorted(copies, key=lambda copy: copy.generation, reverse=True)


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]
