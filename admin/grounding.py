"""Where answers meet documents: `gateway.grounding.ports.Searcher` on the retrieval plane."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NoReturn, final

import msgspec
from sqlalchemy import Connection

from admin.documents import caller_of, on_account
from admin.retrievers import Asker, Retrievers
from gateway import errors
from gateway.authentication import ADMIN
from gateway.grounding.booking import TRACE
from gateway.grounding.ports import Booking, Document, Found, Rewrite, Store, Wanted
from gateway.grounding.wish import MOST_STORES
from gateway.ids import new_id
from gateway.keys import Key
from retrieval import collection_store, document_store
from retrieval.access import Caller
from retrieval.collection_store import Collection
from retrieval.database import Database
from retrieval.errors import NotFound, RetrievalError
from retrieval.tenancy import narrowed

if TYPE_CHECKING:  # an idle gateway does without them
    from retrieval.asking import Result, Results
    from retrieval.filters import Filter
    from retrieval.service import Retrieval

ID: Final = "vs_"
MOST_LISTED: Final = 1000  # stores among which the last used ones are looked for


class _Meant(msgspec.Struct, frozen=True):
    """What is searched by one name, and where that may be: in several collections where a retriever draws for each request."""

    name: str
    collections: tuple[Collection, ...]


@final
class GroundingSearch:
    """Lists by name and id; searches on the account of the key, with its own rights."""

    def __init__(
        self,
        database: Database,
        retrieval: "Callable[[], Awaitable[Retrieval]]",
        retrievers: Retrievers,
        entered: Callable[[Mapping[bytes, bytes]], None] = lambda _: None,
    ) -> None:
        """`entered` is told, in the context of each search, which span it is below."""
        self._database = database
        self._retrieval = retrieval
        self._retrievers = retrievers
        self._entered = entered

    async def stores(self, key: Key, wanted: Wanted, booking: Booking) -> Sequence[Store]:
        """Raises NotFound, BadRequest, AccessDenied."""
        from retrieval.asking import ranked_by  # noqa: PLC0415 — as said above

        try:
            asked = _filter(wanted)
            caller, meant = await self._meant(key, wanted, booking)
            for one in (one for each in meant for one in each.collections):
                narrowed(one.tenancy, caller, None, asked)
            rerank = ranked_by(wanted.ranker)
            if rerank is not None and rerank.wanted:
                (await self._retrieval()).require_ranker(caller, rerank)
        except RetrievalError as error:
            _refuse(error)
        return [
            Store(one.id, one.generation, one.read_by(caller.key_id).version, each.name)
            for each in meant
            for one in each.collections
        ]

    async def every(self, key: Key) -> Sequence[str]:
        """Raises GatewayError."""
        caller = caller_of(key)

        def work(tx: Connection) -> Sequence[str]:
            at = collection_store.moment(tx)
            found = collection_store.listed(tx, caller, MOST_LISTED).data
            mine = [
                one for one in found if one.tenancy is None or caller.tenant is not None
            ]  # others have to be told whose
            alive = [one for one in mine if not collection_store.expired(one, at)]
            return [one.id for one in sorted(alive, key=lambda one: -one.last_active_at)[:MOST_STORES]]

        return await asyncio.to_thread(self._database.read, work)

    async def document(self, key: Key, store: str, file: str) -> Document:
        """Raises NotFound."""
        caller = caller_of(key)

        def work(tx: Connection) -> Document:
            collection = collection_store.alive(tx, caller, store)
            asks, _ = narrowed(collection.tenancy, caller, None, None)
            found = document_store.get(tx, asks, collection, file)
            return Document(found.filename, document_store.text_of(tx, found.id), found.attributes)

        try:
            return await asyncio.to_thread(self._database.read, work)
        except RetrievalError as error:
            _refuse(error)

    def holds(self, key: Key) -> frozenset[str]:
        caller = caller_of(key)
        return caller.holds if caller.tenant is None else caller.holds | {f"tenant:{caller.tenant}"}

    async def search(self, key: Key, queries: Sequence[str], wanted: Wanted, booking: Booking) -> Sequence[Found]:
        """Raises GatewayError."""
        from retrieval.asking import Question, ranked_by  # noqa: PLC0415 — as said above

        try:
            question = Question(
                queries=queries,
                k=wanted.most,
                wanted=_filter(wanted),
                dense=wanted.dense,
                lexical=wanted.lexical,
                threshold=wanted.threshold,
                fusion="ranks" if wanted.weighed else "blend",
                rerank=ranked_by(wanted.ranker),
            )
            usual = Question(queries=(), k=question.k)
            caller, meant = await self._meant(key, wanted, booking)
            plane = await self._retrieval()

            async def search(name: str) -> "Results":
                if booking.trace is not None:
                    self._entered({TRACE: booking.trace.encode("latin-1")})
                asker = Asker(new_id("srch"), usual)
                return (await self._retrievers.search(plane, caller, name, question, asker))[0]

            found = await asyncio.gather(*(search(one.name) for one in meant))
        except RetrievalError as error:
            _refuse(error)
        every = [_found(one.document.collection_id, one) for results in found for one in results.results]
        return sorted(every, key=lambda one: -one.score)[: wanted.most]

    async def rewritten(self, key: Key, conversation: str, wanted: Rewrite, booking: Booking) -> str | None:
        caller = on_account(caller_of(key), booking)
        try:
            plane = await self._retrieval()
        except RetrievalError:
            return None  # the search says so
        return await plane.standalone(caller, conversation, wanted.model, wanted.timeout_s)

    async def _meant(self, key: Key, wanted: Wanted, booking: Booking) -> "tuple[Caller, Sequence[_Meant]]":
        """Raises NotFound, Expired."""
        caller = on_account(caller_of(key), booking)

        def work(tx: Connection) -> tuple[Caller, Sequence[_Meant]]:
            asks, owner = caller, Caller(ADMIN.id) if booking.granted else caller
            names = list(dict.fromkeys(self._place(tx, owner, name) for name in wanted.stores))
            if booking.granted:
                every = frozenset(id_ for name in names for id_ in (self._retrievers.collections(name) or (name,)))
                asks = msgspec.structs.replace(caller, granted=every)
            return asks, [self._seen(tx, asks, name) for name in names]

        return await asyncio.to_thread(self._database.read, work)

    def _place(self, tx: Connection, owner: Caller, name: str) -> str:
        """What a name is searched by: an id, whoever's the store is, that of a store of `owner` of that name, or a retriever's name.

        Names are anybody's to give, so that another's store of the same name is not meant. Raises NotFound.
        """
        if name.startswith(ID):
            return name
        found = collection_store.named(tx, owner, name)
        if found is not None:
            return found.id
        if not self._retrievers.collections(name):
            raise NotFound(f"No such Vector store object: {name}", param="vector_store_ids")
        return name

    def _seen(self, tx: Connection, asks: Caller, name: str) -> _Meant:
        """Raises NotFound, Expired."""
        ids = (name,) if name.startswith(ID) else self._retrievers.read_by(asks, name)
        return _Meant(name, tuple(collection_store.alive(tx, asks, id_) for id_ in ids))


def _filter(wanted: Wanted) -> "Filter | None":
    """Raises BadFilter."""
    from retrieval import filters  # noqa: PLC0415 — as said above

    return None if wanted.filters is None else filters.parse(dict(wanted.filters))


def _found(store_id: str, result: "Result") -> Found:
    passage, document = result.passage, result.document
    return Found(
        store_id,
        passage.id,
        document.source_id,
        document.filename,
        passage.text,
        result.score,
        document.attributes,
        passage.start,
        passage.end,
        passage.page,
        passage.line,
        tuple(passage.heading),
    )


class _Refused(errors.GatewayError):
    """Somebody else's refusal with the face that it was given."""


def _refuse(error: RetrievalError) -> NoReturn:
    """The same error as one of the data plane's."""
    kinds: dict[int, type[errors.GatewayError]] = {
        400: errors.BadRequest,
        403: errors.AccessDenied,
        404: errors.NotFound,
        503: errors.Overloaded,
    }
    made = kinds.get(error.status, _Refused)(error.message, param=error.param, code=error.code, headers=error.headers)
    made.status, made.type = error.status, error.type
    raise made from error
