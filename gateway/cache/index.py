"""Vectors of questions, apart by partition: the nearest of one partition by comparing with all of it.

A partition has one tenant's questions behind one system prompt and one history, so it is small; a thousand products of 384 numbers take
less than the call that they may save by four orders of magnitude. Partitions that were not asked for longest go first.
"""

from collections import OrderedDict
from typing import Any, Final, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from gateway.cache.facts import Facts, facts

Vector = NDArray[np.float32]

PARTITION: Final = 2048  # questions; a new one takes the place of the oldest
EVERY: Final = 20_000  # of all partitions: 40 MB
FEW: Final = 8
COUNTED_EVERY: Final = 64


class Asked(msgspec.Struct, frozen=True):
    """A question that was answered: `key` finds the answer."""

    key: bytes
    expires_at: float
    text: str
    vector: Any  # float32 [dimensions], of length 1


class Near(msgspec.Struct, frozen=True):
    """A question that is near another one. `similarity` is the cosine."""

    similarity: float
    asked: Asked
    facts: Facts


@final
class Partition:
    """`seen`: how far a log that others write as well was read."""

    def __init__(self) -> None:
        self._asked: dict[bytes, tuple[Asked, Facts]] = {}
        self._matrix: Vector | None = None
        self._rows: list[bytes] = []
        self.seen = "0"

    def __len__(self) -> int:
        return len(self._asked)

    def add(self, asked: Asked) -> None:
        self._asked.pop(asked.key, None)
        self._asked[asked.key] = asked, facts(asked.text)
        if len(self._asked) > PARTITION:
            del self._asked[next(iter(self._asked))]
        self._matrix = None

    def drop(self, key: bytes) -> None:
        if self._asked.pop(key, None) is not None:
            self._matrix = None

    def nearest(self, vector: Vector, threshold: float, unix: float) -> list[Near]:
        """The nearest first, of those at least so near; what is over is forgotten."""
        if not self._asked:
            return []
        if self._matrix is None:
            for key in [key for key, (asked, _) in self._asked.items() if asked.expires_at <= unix]:
                del self._asked[key]
            if not self._asked:
                return []
            self._rows = list(self._asked)
            self._matrix = np.stack([asked.vector for asked, _ in self._asked.values()])
        similar = self._matrix @ vector
        best = np.argsort(-similar)[:FEW]
        found = [(float(similar[row]), *self._asked[self._rows[row]]) for row in best if similar[row] >= threshold]
        return [Near(one, asked, known) for one, asked, known in found if asked.expires_at > unix]


@final
class Index:
    """Every partition in use."""

    def __init__(self) -> None:
        self._partitions: OrderedDict[bytes, Partition] = OrderedDict()
        self._untrimmed = 0

    def __len__(self) -> int:
        return sum(len(one) for one in self._partitions.values())

    def of(self, partition: bytes) -> Partition:
        found = self._partitions.get(partition)
        if found is None:
            found = self._partitions[partition] = Partition()
        self._partitions.move_to_end(partition)
        return found

    def trim(self) -> None:
        """After a question was added: forgets partitions until there is room again. Counting takes time, so it is done now and then."""
        self._untrimmed += 1
        if self._untrimmed < COUNTED_EVERY:
            return
        self._untrimmed = 0
        count = len(self)
        while len(self._partitions) > 1 and (count > EVERY or len(self._partitions) > EVERY):
            count -= len(self._partitions.popitem(last=False)[1])
