"""What is asked of this plane and what it answers, as values: light to import, for those who only speak of it."""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec

from retrieval.chunking_strategy import Chunking
from retrieval.collection_store import Collection, Counts
from retrieval.document_store import Document, Partition, Value
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


class Tenant(msgspec.Struct, frozen=True):
    """`promoted`: it has a graph of its own, as far as this machine knows."""

    partition: Partition
    promoted: bool


class Rerank(msgspec.Struct, frozen=True):
    """By a cross-encoder: the first `candidates`, within `timeout_s`. `model` None: the usual one, if there is one.

    `wanted`: it was asked for by name, so that its absence is told.
    """

    model: str | None = None
    candidates: int = 50
    timeout_s: float = 3.0
    wanted: bool = False


def ranked_by(ranker: str) -> Rerank | None:
    """OpenAI's `ranker`: `none`, `auto` or a `default-…` of theirs for the usual model, or the name of another one."""
    if ranker == "none":
        return None
    usual = ranker == "auto" or ranker.startswith("default-")
    return Rerank(None if usual else ranker, wanted=not usual)


class Expansion(msgspec.Struct, frozen=True):
    """What a chat model makes of the question before the search: `rewrite` takes its place, `more` are further ones beside it,
    `hyde` is an answer that it makes up, whose meaning is searched for (Gao et al. 2022). `model` None: the usual one.
    """

    rewrite: bool = False
    more: int = 0
    hyde: bool = False
    model: str | None = None
    timeout_s: float = 10.0


class Diversity(msgspec.Struct, frozen=True):
    """Maximal marginal relevance: `balance` 1 is relevance alone, 0 is difference alone (Carbonell and Goldstein 1998)."""

    balance: float = 0.5
    candidates: int = 50


class Recency(msgspec.Struct, frozen=True):
    """After each half-life a score is worth half as much, in the share `weight` of it. `attribute` None: when the file was added."""

    half_life_s: float
    attribute: str | None = None
    weight: float = 1.0


class Neighbours(msgspec.Struct, frozen=True):
    """So many passages of the same document around each one."""

    before: int = 0
    after: int = 0


Fusion = Literal["blend", "ranks"]
MEANING: Final = 0.75  # `make bench-retrieval ARGS=--tune`


class Question(msgspec.Struct, frozen=True):
    """`dense` and `lexical` are weights of ranks, and 0 for what is left out; of a blend `meaning` is the share of the dense part. A result
    has a score between 0 and 1, and at least `threshold`.

    `meanings` are further texts whose meaning alone is searched for. `group`: a result is a document, with up to so many passages.
    `tenant`: whose documents, in a collection that declares tenancy, unless `wanted` or the key says it.
    """

    queries: Sequence[str]
    k: int = 10
    wanted: Filter | None = None
    dense: float = 1.0
    lexical: float = 1.0
    threshold: float = 0.0
    meanings: Sequence[str] = ()
    rerank: Rerank | None = None
    expansion: Expansion | None = None
    diversity: Diversity | None = None
    recency: Recency | None = None
    group: int | None = None
    neighbours: Neighbours | None = None
    highlight: bool = False
    fusion: Fusion = "blend"
    meaning: float = MEANING
    tenant: str | None = None


class Trace(msgspec.Struct, frozen=True, gc=False):
    """Where a result stood in a ranking, from 1, and with which score there."""

    name: str
    rank: int
    score: float


class Span(msgspec.Struct, frozen=True):
    """Characters of a text."""

    start: int
    end: int


class Context(msgspec.Struct, frozen=True):
    """A passage with its neighbours: characters `start` to `end` of the document."""

    text: str
    start: int
    end: int


class Result(msgspec.Struct, frozen=True, gc=False):
    """`more`: further passages of the same document, where they are grouped. `highlights` are spans of the passage's text.

    `matched`: where in the document's text that stands which was found, if its parent is shown for it.
    """

    passage: Found
    document: Document
    score: float
    traces: Sequence[Trace]
    more: "Sequence[Result]" = ()
    context: Context | None = None
    highlights: Sequence[Span] = ()
    matched: Span | None = None


class Stage(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was asked for beside the search itself, and what came of it: `skipped` says why it did not happen."""

    name: str
    status: Literal["done", "skipped"]
    reason: str | None = None
    model: str | None = None
    took_ms: float = 0.0
    queries: Sequence[str] = ()


class Embedded(msgspec.Struct, frozen=True):
    """The vectors that were searched: their version, and what made them."""

    version: int
    model: str
    dimensions: int | None = None


class Within(msgspec.Struct, frozen=True):
    """The partition that was searched. `promoted`: it has a graph of its own."""

    tenant: str
    promoted: bool


class Results(msgspec.Struct, frozen=True, gc=False):
    """`plans` are those of the dense part, one for each query. `queries` are those that were searched for."""

    results: Sequence[Result]
    plans: Sequence[Plan]
    recall_mode: RecallMode
    generation: int
    queries: Sequence[str] = ()
    stages: Sequence[Stage] = ()
    embedded: Embedded | None = None
    partition: Within | None = None
