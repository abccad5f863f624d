"""Vectors of questions, apart by partition: the nearest of one partition.

A partition has one tenant's questions behind one system prompt and one history, so most are small, and comparing with all of one is the
quickest, and exact. One that has grown has a graph beside it, which is made and extended in a thread: what it lacks, and all while it is
busy, is still compared with. Partitions that were not asked for longest go first.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from itertools import islice
from typing import Any, Final, final

import msgspec
import structlog

from gateway.cache.facts import Facts, facts
from gateway.cache.graph import Graph
from gateway.cache.vectors import BLOCK, Vector, Vectors

log = structlog.stdlib.get_logger(__name__)

PARTITION: Final = 10_000  # questions; a new one takes the place of the oldest
EVERY: Final = 20_000  # of all partitions: 80 MB
FEW: Final = 8
COUNTED_EVERY: Final = 64
GRAPH_FROM: Final = 4096  # questions: from here on a graph takes less time than comparing with all
BEHIND: Final = 512  # questions that a graph may lack before it is extended
AT_ONCE: Final = 128  # rows of one turn of a thread: what the end of the process may have to wait for


class Asked(msgspec.Struct, frozen=True):
    """A question that was answered: `key` finds the answer."""

    key: bytes
    expires_at: float
    text: str
    vector: Any  # float32 [dimensions], of length 1


class Near(msgspec.Struct, frozen=True):
    """A question that is near another one. `similarity` is the cosine."""

    similarity: float
    key: bytes
    text: str
    facts: Facts


class _Kept(msgspec.Struct):
    """`facts` are found out when the question first comes near another one."""

    number: int
    expires_at: float
    text: str
    facts: Facts | None = None


@final
class Partition:
    """`most`: the oldest go when there are more. `seen`: how far a log that others write as well was read."""

    def __init__(self, most: int = PARTITION, graph_from: int = GRAPH_FROM) -> None:
        self.most = most
        self.seen = "0"
        self.reading = False  # somebody is at it
        self._graph_from = graph_from
        self._kept: dict[bytes, _Kept] = {}  # in the order in which they came
        self._keys: dict[int, bytes] = {}  # by number
        self._vectors = Vectors()
        self._graph: Graph | None = None
        self._ends = 0  # the first number that the graph has not
        self._growing = False
        self._busy = False  # rows are being added to the graph, which may not be searched or changed meanwhile
        self._late: list[int] = []  # what is gone since then
        self._unswept = 0

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, asked: Asked, unix: float) -> None:
        known = self._kept.get(asked.key)
        if known is not None and (known.expires_at, known.text) == (asked.expires_at, asked.text):
            return  # one's own, read in the log of all
        self.drop(asked.key)
        if not self._vectors.fits(asked.vector):  # of another release's model
            return
        if self._vectors.next % BLOCK == 0 and not self._growing:
            self._gather()
        number = self._vectors.add(asked.vector)
        self._kept[asked.key] = _Kept(number, asked.expires_at, asked.text)
        self._keys[number] = asked.key
        self._unswept += 1
        if self._unswept > max(COUNTED_EVERY, len(self._kept) // 4):
            self._sweep(unix)
        while len(self._kept) > self.most:
            self.drop(next(iter(self._kept)))

    def drop(self, key: bytes) -> None:
        kept = self._kept.pop(key, None)
        if kept is None:
            return
        del self._keys[kept.number]
        self._vectors.drop(kept.number)
        if self._graph is None or kept.number >= self._ends:
            return
        if self._busy:
            self._late.append(kept.number)
        else:
            self._graph.drop(kept.number)

    def nearest(self, vector: Vector, threshold: float, unix: float) -> list[Near]:
        """The nearest first, of those at least so near; what is over is forgotten."""
        if not self._kept or not self._vectors.fits(vector):
            return []
        found = self._found(vector, threshold)
        if any(self._kept[key].expires_at <= unix for _, key in found):  # they stand before others that are not
            self._sweep(unix)
            found = self._found(vector, threshold)
        return [self._near(similarity, key) for similarity, key in found]

    @property
    def due(self) -> bool:
        """Whether `grow` has something to do."""
        graph = self._graph
        if self._growing or len(self._kept) < self._graph_from:
            return False
        return graph is None or self._vectors.next - self._ends >= BEHIND or graph.gone > graph.live

    async def grow(self) -> None:
        """Has the graph take in what it lacks. In a task. Raises ImportError without hnswlib; whatever goes wrong, there is no graph."""
        if not self.due:
            return
        self._growing = True
        try:
            graph = self._graph
            if graph is None or graph.gone > graph.live or graph.left < self._vectors.next - self._ends:
                await self._renew()
            else:
                await self._extend(graph)
        except Exception:
            self._graph, self._late, self._busy = None, [], False
            raise
        self._growing = False

    async def _renew(self) -> None:
        """Another graph of what is left; the old one is searched until it is there."""
        self._gather()
        numbers = list(self._keys)
        if not numbers:
            return
        rows = self._vectors.of(numbers[:1])
        graph = Graph(rows.shape[1], len(numbers) + max(len(numbers) // 2, 2 * BEHIND))
        added: list[int] = []
        for some in _portions(numbers):
            added += await self._take(graph, some)
        for number in added:
            if number not in self._keys:
                graph.drop(number)
        self._graph, self._ends = graph, numbers[-1] + 1

    async def _extend(self, graph: Graph) -> None:
        numbers = [number for number in range(self._ends, self._vectors.next) if number in self._keys]
        self._busy = True  # after a cancellation, too: the thread goes on
        added: list[int] = []
        ends = self._vectors.next
        for some in _portions(numbers):
            added += await self._take(graph, some)
        self._busy = False
        late, self._late = self._late, []
        for number in (*late, *(number for number in added if number not in self._keys)):
            graph.drop(number)
        self._ends = ends

    async def _take(self, graph: Graph, numbers: list[int]) -> list[int]:
        """Those that were still there."""
        there = [number for number in numbers if number in self._keys]
        if there:
            await asyncio.to_thread(graph.add, there, self._vectors.of(there))
        return there

    def _gather(self) -> None:
        """Into new blocks, where the old ones are mostly empty. What is in the graph has other numbers then: it goes, and is made anew."""
        if self._vectors.held <= 2 * (len(self._kept) + BLOCK):
            return
        old, self._vectors, self._keys = self._vectors, Vectors(), {}
        self._graph, self._ends = None, 0
        for key, kept in self._kept.items():
            kept.number = self._vectors.add(old.of([kept.number])[0])
            self._keys[kept.number] = key

    def _found(self, vector: Vector, threshold: float) -> list[tuple[float, bytes]]:
        near = None if self._graph is None or self._busy else self._graph.nearest(vector, FEW)
        if near is None:
            every = self._vectors.nearest(vector, threshold, FEW)
        else:
            every = [one for one in near if one[0] >= threshold]
            every += self._vectors.nearest(vector, threshold, FEW, self._ends)
            every.sort(reverse=True)
        return [(similarity, self._keys[number]) for similarity, number in every[:FEW]]

    def _near(self, similarity: float, key: bytes) -> Near:
        kept = self._kept[key]
        if kept.facts is None:
            kept.facts = facts(kept.text)
        return Near(similarity, key, kept.text, kept.facts)

    def _sweep(self, unix: float) -> None:
        self._unswept = 0
        for key in [key for key, kept in self._kept.items() if kept.expires_at <= unix]:
            self.drop(key)


@final
class Index:
    """Every partition in use. `spawn` runs what makes their graphs."""

    def __init__(self, spawn: Callable[[Any], object]) -> None:
        self._spawn = spawn
        self._partitions: OrderedDict[bytes, Partition] = OrderedDict()
        self._untrimmed = 0
        self._every = EVERY
        self._graphs = True

    def __len__(self) -> int:
        return sum(len(one) for one in self._partitions.values())

    def of(self, partition: bytes, most: int = PARTITION) -> Partition:
        """`most` questions of it are kept, and of all of them no fewer."""
        found = self._partitions.get(partition)
        if found is None:
            found = self._partitions[partition] = Partition(most)
        found.most = most
        self._every = max(self._every, most)
        self._partitions.move_to_end(partition)
        return found

    def trim(self) -> None:
        """After a question was added: forgets partitions until there is room again. Counting takes time, so it is done now and then."""
        self._untrimmed += 1
        if self._untrimmed < COUNTED_EVERY:
            return
        self._untrimmed = 0
        count = len(self)
        while len(self._partitions) > 1 and (count > self._every or len(self._partitions) > self._every):
            count -= len(self._partitions.popitem(last=False)[1])

    def grow(self, partition: Partition) -> None:
        """After questions were added."""
        if self._graphs and partition.due:
            self._spawn(self._grow(partition))

    async def _grow(self, partition: Partition) -> None:
        try:
            await partition.grow()
        except Exception as error:  # noqa: BLE001 — whatever a library throws, partitions are compared with as a whole
            self._graphs = False
            log.warning("cache.no_graph", reason=f"{type(error).__name__}: {error}")


def _portions(numbers: list[int]) -> "list[list[int]]":
    left = iter(numbers)
    return list(iter(lambda: list(islice(left, AT_ONCE)), []))
