"""What the data plane needs of a document store, as values; `admin.grounding` has the adapter."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from gateway.keys import Key


class Rewrite(msgspec.Struct, frozen=True):
    """A model makes of a conversation's last question one that stands alone. `model` None: the usual one."""

    model: str | None = None
    timeout_s: float = 5.0


class Wanted(msgspec.Struct, frozen=True):
    """A search in some stores. `filters` is OpenAI's grammar as decoded JSON; `dense` and `lexical` are weights, if `weighed` says so.

    `ranker`: the name of a model that reranks, `none`, or `auto`: the usual one, if there is one.
    """

    stores: Sequence[str]
    most: int = 10
    filters: Mapping[str, Any] | None = None
    threshold: float = 0.0
    dense: float = 1.0
    lexical: float = 1.0
    rewrite: Rewrite | None = None
    weighed: bool = False
    ranker: str = "auto"


class Store(msgspec.Struct, frozen=True):
    """One that is there for the caller. `version` changes with everything that a search in it could notice, `space` with the vectors that
    the caller reads of it. `name`: what a search that may be made in it names, its id or a name of several."""

    id: str
    version: int
    space: int
    name: str


class Found(msgspec.Struct, frozen=True):
    """A passage, at `[start, end)` characters of its file's text."""

    store_id: str
    passage_id: int
    file_id: str
    filename: str
    text: str
    score: float
    attributes: Mapping[str, str | float | bool]
    start: int
    end: int
    page: int | None = None
    line: int | None = None
    heading: tuple[str, ...] = ()


class Document(msgspec.Struct, frozen=True):
    """A file as it was read."""

    filename: str
    text: str
    attributes: Mapping[str, str | float | bool]


class Booking(msgspec.Struct, frozen=True):
    """On what account a search is made: tags, trace and id of the request that it is a part of, or the id of its answer.

    `granted`: an admin has attached the stores to the model that is asked. They are there for whoever may ask it, and so is the model
    that embeds the question; documents in them are still for those alone who hold their labels.
    """

    tags: Sequence[str] = ()
    trace: str | None = None
    granted: bool = False
    whole: str | None = None


class Searcher(Protocol):
    """Raises GatewayError: NotFound for a store that is not there for the key, BadRequest for a filter that is none."""

    async def stores(self, key: Key, wanted: Wanted, booking: Booking) -> Sequence[Store]:
        """Those that are meant, by id or by name. What a search would refuse is refused here."""

    async def every(self, key: Key) -> Sequence[str]:
        """The ids of the key's own stores, those that were used last; as many as one search may name."""

    async def document(self, key: Key, store: str, file: str) -> Document: ...

    def holds(self, key: Key) -> frozenset[str]:
        """What decides which documents are there for the key: its labels, and its tenant."""

    async def search(self, key: Key, queries: Sequence[str], wanted: Wanted, booking: Booking) -> Sequence[Found]:
        """Best first, of all stores together."""

    async def rewritten(self, key: Key, conversation: str, wanted: Rewrite, booking: Booking) -> str | None:
        """The last question as one that stands alone; None where that cannot be had in time. Raises nothing for it."""
