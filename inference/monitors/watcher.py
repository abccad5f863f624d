"""Watches collections in this process: gathers what is asked, judges windows of it, and looks now and then at documents that are new.

Vectors alone are looked at, each collection's by itself, and never a text. A question counts once in a window: whoever asks it again
says nothing new, and rows that repeat would make chance look like drift.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol, TypeVar, final

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray
from sqlalchemy import Connection

from inference.monitors import spread, store
from inference.monitors.monitor import FEWEST, Finding, Monitor, Stream, Window
from inference.monitors.store import Baseline

log = structlog.stdlib.get_logger(__name__)

CORPUS_S: Final = 10.0  # between two looks at a collection's documents

T = TypeVar("T")
Vectors = NDArray[np.float32]
Transaction = Callable[[], AbstractContextManager[Connection]]
Told = Callable[[Monitor, Window], None]


class Sample(Protocol):
    """One passage of each of some documents, and the newest passage that there was."""

    @property
    def version(self) -> int: ...
    @property
    def newest(self) -> int: ...
    @property
    def vectors(self) -> Vectors: ...


# What a collection holds beyond a passage's id, of so many documents at most; None for one that is gone.
Draw = Callable[[str, int, int], Awaitable[Sample | None]]


class _Gathering:
    """The questions of one monitor that are not judged yet."""

    __slots__ = ("known", "rows", "since", "version")

    def __init__(self, version: int, since: float) -> None:
        self.version = version
        self.since = since
        self.rows: list[Vectors] = []
        self.known: set[int] = set()


@final
class Watcher:
    """One per process. `offer` may be called for every search; `turn` does what takes time."""

    def __init__(
        self, reading: Transaction, writing: Transaction, draw: Draw, told: Told, unix: Callable[[], float] = time.time
    ) -> None:
        self._reading = reading
        self._writing = writing
        self._draw = draw
        self._told = told
        self._unix = unix
        self._gathering: dict[tuple[str, int], _Gathering] = {}  # a canary's beside those of the others
        self._looked: dict[str, float] = {}

    def offer(self, monitor: Monitor, version: int, vector: Vectors) -> None:
        """A question's. What comes while a full window waits to be judged is let go."""
        found = self._gathering.get((monitor.id, version))
        if found is None:
            found = self._gathering[monitor.id, version] = _Gathering(version, self._unix())
        if len(found.rows) < monitor.terms.rows:
            mark = hash(vector.tobytes())
            if mark not in found.known:
                found.known.add(mark)
                found.rows.append(vector)

    async def turn(self, monitors: Sequence[Monitor]) -> None:
        """Each of them, as far as there is something to do."""
        there = {one.id for one in monitors}
        self._gathering = {place: one for place, one in self._gathering.items() if place[0] in there}
        self._looked = {id_: at for id_, at in self._looked.items() if id_ in there}
        for monitor in monitors:
            for found in [one for (id_, _), one in self._gathering.items() if id_ == monitor.id]:
                await self._queries(monitor, found)
            if self._unix() - self._looked.get(monitor.id, 0.0) >= CORPUS_S:
                self._looked[monitor.id] = self._unix()
                await self._corpus(monitor)

    def _due(self, monitor: Monitor, found: _Gathering) -> bool:
        terms = monitor.terms
        if len(found.rows) >= terms.rows:
            return True
        late = terms.seconds is not None and self._unix() - found.since >= terms.seconds
        return late and len(found.rows) >= FEWEST

    async def _queries(self, monitor: Monitor, found: _Gathering) -> None:
        if not self._due(monitor, found):
            return
        del self._gathering[monitor.id, found.version]
        rows = np.stack(found.rows)
        base = await self._read(lambda tx: store.baseline(tx, monitor.id))
        if base is not None and base.version != found.version:
            base = await self._begun(monitor, base, found.version)
        if base is None or base.corpus is None or base.dimensions != rows.shape[1]:
            return  # a canary's, or of a collection that has nothing yet
        if base.queries is None:
            kept = rows.astype(np.float16).tobytes()
            await self._write(lambda tx: store.keep_queries(tx, monitor.id, found.version, kept))
            return
        reference, corpus = (_rows(each, rows.shape[1]) for each in (base.queries, base.corpus))
        terms = monitor.terms
        seed = int(found.since)
        findings = await asyncio.to_thread(
            spread.of_queries, reference, _rounded(rows), corpus, terms.tests, terms.alpha, seed
        )
        await self._tell(monitor, "queries", found.version, len(rows), found.since, findings)

    async def _corpus(self, monitor: Monitor) -> None:
        base = await self._read(lambda tx: store.baseline(tx, monitor.id))
        if base is None:
            return
        sample = await self._draw(monitor.subject, base.after, spread.MOST)
        if sample is None:
            return
        if base.corpus is None or base.dimensions is None or base.version != sample.version:
            await self._begun(monitor, base, sample.version)
            return
        if len(sample.vectors) < FEWEST:
            return
        since = self._looked[monitor.id]
        if not await self._write(lambda tx: store.pass_on(tx, monitor.id, base.after, sample.newest)):
            return
        reference, current = _rows(base.corpus, base.dimensions), _rounded(sample.vectors)
        seed = int(since)
        findings = await asyncio.to_thread(spread.of_corpus, reference, current, monitor.terms.alpha, seed)
        await self._tell(monitor, "corpus", sample.version, len(current), since, findings)

    async def _begun(self, monitor: Monitor, base: Baseline, version: int) -> Baseline | None:
        """Anew, of that version of the collection's vectors; None where another one is read, or where there is too little of it."""
        sample = await self._draw(monitor.subject, 0, spread.MOST)
        if sample is None or sample.version != version or len(sample.vectors) < FEWEST:
            return None
        before, kept, width = base.version, sample.vectors.astype(np.float16).tobytes(), sample.vectors.shape[1]
        await self._write(lambda tx: store.begin(tx, monitor.id, before, version, width, kept, sample.newest))
        return await self._read(lambda tx: store.baseline(tx, monitor.id))

    async def _tell(
        self, monitor: Monitor, stream: Stream, version: int, rows: int, since: float, findings: Sequence[Finding]
    ) -> None:
        window = Window(0, stream, version, rows, since, self._unix(), findings)
        window = await self._write(lambda tx: store.tell(tx, monitor.id, window))
        log.info("monitor.window", monitor=monitor.id, stream=stream, rows=rows, drifted=window.drifted)
        if window.drifted:
            self._told(monitor, window)

    async def _read(self, work: Callable[[Connection], T]) -> T:
        return await asyncio.to_thread(_within, self._reading, work)

    async def _write(self, work: Callable[[Connection], T]) -> T:
        return await asyncio.to_thread(_within, self._writing, work)


def drift_of(monitor: Monitor, window: Window) -> Mapping[str, object]:
    """What is told of a window that drifted."""
    return {
        "event": "drift",
        "monitor": monitor.id,
        "target": {"kind": monitor.kind, "name": monitor.name, "id": monitor.subject},
        "stream": window.stream,
        "window": window.number,
        "rows": window.rows,
        "columns": [msgspec.to_builtins(each) for each in window.findings if each.drifted],
        "at": window.until,
    }


def _within(transaction: Transaction, work: Callable[[Connection], T]) -> T:
    with transaction() as tx:
        return work(tx)


def _rows(kept: bytes, width: int) -> Vectors:
    return np.frombuffer(kept, np.float16).reshape(-1, width).astype(np.float32)


def _rounded(rows: Vectors) -> Vectors:
    """As the reference is kept, so that nothing differs by that."""
    return rows.astype(np.float16).astype(np.float32)
