"""What is said of documents, as columns: a filter and a caller's labels become one mask over them, with an exact count.

A column is made when a filter first asks for its attribute, and lives as long as the documents are what they are.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, final

import numpy as np
from numpy.typing import NDArray

from retrieval.filters import AnyOf, Compare, Every, Exists, Filter, Not, Prefix, Some, Value

if TYPE_CHECKING:
    from retrieval.access import Caller
    from retrieval.document_store import Described


Mask = NDArray[np.bool_]

_NONE: Final = 0
_NUMBER: Final = 1
_TEXT: Final = 2
_TRUTH: Final = 3


@final
class Column:
    """One attribute over all documents: of which kind it is in each, as a number, and as the rank of its text among all texts."""

    __slots__ = ("kinds", "numbers", "ranks", "texts")

    def __init__(self, values: Iterable[Value | None], count: int) -> None:
        self.kinds = np.zeros(count, np.uint8)
        self.numbers = np.zeros(count, np.float64)
        self.ranks = np.zeros(count, np.int64)
        found: dict[int, str] = {}
        for row, value in enumerate(values):
            match value:
                case None:
                    pass
                case bool():
                    self.kinds[row], self.numbers[row] = _TRUTH, value
                case str():
                    self.kinds[row], found[row] = _TEXT, value
                case _:
                    self.kinds[row], self.numbers[row] = _NUMBER, value
        self.texts = sorted(set(found.values()))
        rank = {text: number for number, text in enumerate(self.texts)}
        for row, text in found.items():
            self.ranks[row] = rank[text]

    def any_of(self, values: tuple[Value, ...]) -> Mask:
        truths = [float(value) for value in values if isinstance(value, bool)]
        numbers = [value for value in values if isinstance(value, float)]
        texts = {value for value in values if isinstance(value, str)}
        hit: Mask = np.zeros(len(self.kinds), np.bool_)
        if numbers:
            hit |= (self.kinds == _NUMBER) & np.isin(self.numbers, numbers)
        if truths:
            hit |= (self.kinds == _TRUTH) & np.isin(self.numbers, truths)
        ranks = [rank for text in texts if (rank := self._rank(text)) is not None]
        if ranks:
            hit |= (self.kinds == _TEXT) & np.isin(self.ranks, ranks)
        return hit

    def compare(self, order: str, value: str | float) -> Mask:
        if isinstance(value, str):
            at = bisect_right(self.texts, value) if order in {"gt", "lte"} else bisect_left(self.texts, value)
            above: Mask = self.ranks >= at
            return self._texts() & (above if order in {"gt", "gte"} else ~above)
        compared: Mapping[str, Mask] = {
            "gt": self.numbers > value,
            "gte": self.numbers >= value,
            "lt": self.numbers < value,
            "lte": self.numbers <= value,
        }
        numbers: Mask = self.kinds == _NUMBER
        return compared[order] & numbers

    def prefix(self, text: str) -> Mask:
        first = bisect_left(self.texts, text)
        last = first
        while last < len(self.texts) and self.texts[last].startswith(text):
            last += 1
        within: Mask = (self.ranks >= first) & (self.ranks < last)
        return self._texts() & within

    def exists(self) -> Mask:
        hit: Mask = self.kinds != _NONE
        return hit

    def _texts(self) -> Mask:
        hit: Mask = self.kinds == _TEXT
        return hit

    def _rank(self, text: str) -> int | None:
        at = bisect_left(self.texts, text)
        return at if at < len(self.texts) and self.texts[at] == text else None


@final
class Columns:
    """All documents of a collection at one generation. Rows are never used again; `changed` makes the next state of it."""

    def __init__(self, known: Mapping[int, Described] | None = None) -> None:
        self._known = dict(known or {})
        self.row = {id_: number for number, id_ in enumerate(self._known)}
        self.ids = np.fromiter(self._known, np.int64, len(self._known))
        self._columns: dict[str, Column] = {}
        by_label: dict[str, list[int]] = {}
        for number, each in enumerate(self._known.values()):
            for label in each.labels:
                by_label.setdefault(label, []).append(number)
        self._by_label = {label: np.array(rows, np.int64) for label, rows in by_label.items()}

    def __len__(self) -> int:
        return len(self._known)

    @property
    def labelled(self) -> bool:
        """Whether any document is only for some."""
        return bool(self._by_label)

    def changed(self, described: Iterable[Described]) -> Columns:
        """With these as they are now; a document that was there keeps its row."""
        news = {each.id: each for each in described}
        return Columns({**self._known, **news}) if news else self

    def without(self, gone: Iterable[int]) -> Columns:
        """Only for who numbers its rows anew."""
        left = set(gone)
        return Columns({id_: each for id_, each in self._known.items() if id_ not in left})

    def readers(self, caller: Caller, *, labelled: bool) -> frozenset[str] | None:
        """All that `mask` asks of a caller; None for one who may read everything there is."""
        if caller.unbound or not (self._by_label or labelled):
            return None
        return caller.holds.intersection(self._by_label)

    def mask(self, caller: Caller, wanted: Filter | None, *, labelled: bool) -> Mask | None:
        """The documents that the caller may read and the filter admits; None for all of them."""
        readable = self._readable(caller, labelled=labelled)
        if wanted is None:
            return readable
        admitted = self._evaluate(wanted)
        return admitted if readable is None else admitted & readable

    def _readable(self, caller: Caller, *, labelled: bool) -> Mask | None:
        """As `retrieval.access.may_read` says it of one document."""
        held = self.readers(caller, labelled=labelled)
        if held is None:
            return None
        mask: Mask = np.full(len(self._known), not labelled, np.bool_)
        for rows in self._by_label.values():
            mask[rows] = False
        for label in held:
            mask[self._by_label[label]] = True
        return mask

    def _evaluate(self, wanted: Filter) -> Mask:
        hit: Mask
        match wanted:
            case AnyOf(key, values):
                hit = self._column(key).any_of(values)
            case Compare(key, order, value):
                hit = self._column(key).compare(order, value)
            case Exists(key):
                hit = self._column(key).exists()
            case Prefix(key, text):
                hit = self._column(key).prefix(text)
            case Not(part):
                hit = ~self._evaluate(part)
            case Every(parts):
                hit = np.logical_and.reduce([self._evaluate(part) for part in parts])
            case Some(parts):
                hit = np.logical_or.reduce([self._evaluate(part) for part in parts])
        return hit

    def _column(self, key: str) -> Column:
        found = self._columns.get(key)
        if found is None:
            values = (each.attributes.get(key) for each in self._known.values())
            found = self._columns[key] = Column(values, len(self._known))
        return found
