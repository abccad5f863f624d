"""What is asked of this plane and what it answers, as values: light to import, for those who only speak of it."""

from collections.abc import Mapping, Sequence

import msgspec

from retrieval.chunking_strategy import Chunking
from retrieval.collection_store import Collection, Counts
from retrieval.document_store import Document, Value
from retrieval.filters import Filter
from retrieval.index.planner import Plan, RecallMode
from retrieval.passage_store import Found


class Wanted(msgspec.Struct, frozen=True):
    """A file to be put into a collection. `chunking` None: as is best for the collection's model.

    `replaces`: the file that it is a new version of. It takes that one's place, and only what differs is embedded.
    """

    file_id: str
    attributes: Mapping[str, Value] = {}
    labels: Sequence[str] = ()
    chunking: Chunking | None = None
    replaces: str | None = None


class Seen(msgspec.Struct, frozen=True):
    """A collection and what is in it. `expired`: by the database's clock."""

    collection: Collection
    counts: Counts
    expired: bool


class Question(msgspec.Struct, frozen=True):
    """`dense` and `lexical` are weights; one of them may be 0. A result has a score between 0 and 1, and at least `threshold`."""

    queries: Sequence[str]
    k: int = 10
    wanted: Filter | None = None
    dense: float = 1.0
    lexical: float = 1.0
    threshold: float = 0.0


class Trace(msgspec.Struct, frozen=True):
    """Where a result stood in a ranking, from 1, and with which score there."""

    name: str
    rank: int
    score: float


class Result(msgspec.Struct, frozen=True):
    passage: Found
    document: Document
    score: float
    traces: Sequence[Trace]


class Results(msgspec.Struct, frozen=True):
    """`plans` are those of the dense part, one for each query."""

    results: Sequence[Result]
    plans: Sequence[Plan]
    recall_mode: RecallMode
    generation: int
