"""The stage that looks something up before a call is answered: for models with collections attached, and for the tool `file_search` in a
chat, where the search is made first and the model speaks once.

It stands on both sides of the cache. Which collections there are, and in which version, is part of what an answer is kept under, so it
comes before; what they say is only looked up for who has to be answered anew, so that comes after.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Protocol, TypeVar, final

import msgspec
from msgspec import Raw

from gateway import errors
from gateway.bills import Bills
from gateway.bodies import NULL, ChatRequest
from gateway.call import Call
from gateway.grounding import booking, prompt, wish
from gateway.grounding.citing import Citing
from gateway.grounding.looked import Looked
from gateway.grounding.named import names_documents
from gateway.grounding.policy import Retrieval
from gateway.grounding.ports import Booking, Searcher, Store, Wanted
from gateway.grounding.sources import INSTRUCTIONS, Sources
from gateway.keys import Key
from gateway.providers import QUOTES
from gateway.watching import begun

T = TypeVar("T")
Spawn = Callable[[Coroutine[Any, Any, Any]], "asyncio.Task[Any]"]
NO_TENANT: Final = "tenant_required"  # what a search says that needs one
OURS: Final = "retrieval"  # the tag of calls that a search makes itself
_pack: Final = msgspec.msgpack.Encoder(order="sorted").encode


class Answers(Protocol):
    """`gateway.dispatch`, or a stage before it."""

    def answer(self, call: Call) -> Coroutine[Any, Any, None]: ...


@final
class Grounding:
    """Before the cache, if there is one. `following` is what comes next, `behind` what comes after it: the second half of this."""

    def __init__(self, dispatch: Answers, searcher: Searcher, spawn: Spawn, bills: Bills) -> None:
        self._searcher = searcher
        self._spawn = spawn
        self.behind = _Behind(dispatch, searcher, spawn, bills)
        self.following: Answers = self.behind

    def answer(self, call: Call) -> Coroutine[Any, Any, None]:
        """As the dispatch. Raises NotFound, BadRequest for a search that cannot be made."""
        if call.model.retrieval is None and not names_documents(call):
            return self.following.answer(call)
        if call.grounds is not None:  # another model is asked the same, because of a budget
            return self.behind.answer(call)
        return self._answer(call)

    async def _answer(self, call: Call) -> None:
        call.grounds = await self._looked(call)
        await self.following.answer(call)

    async def _looked(self, call: Call) -> Looked | None:
        request, headers, retrieval = call.request, call.exchange.headers, call.model.retrieval
        if isinstance(request, ChatRequest) and names_documents(call):
            others, wanted, at = wish.parted(request.tools)
            if wanted is not None:
                request.tools = Raw(msgspec.json.encode(others)) if others else NULL
                return await self._asked(call, wanted, booking.of(headers, call.record.id), at)
        if retrieval is None or call.endpoint.name not in prompt.ENDPOINTS or call.endpoint.providers is not None:
            return None
        return await self._attached(call, retrieval, booking.of(headers, call.record.id, granted=True))

    async def _asked(self, call: Call, wanted: Wanted, booked: Booking, at: str) -> Looked:
        try:
            return await self._found(call, wanted, booked, INSTRUCTIONS)
        except errors.NotFound as error:
            error.param = f"{at}.vector_store_ids"
            raise
        except errors.BadRequest as error:
            error.param = f"{at}.{error.param or 'filters'}"
            raise

    async def _attached(self, call: Call, retrieval: Retrieval, booked: Booking) -> Looked:
        """A collection that an admin has named, and that is not there, is not the client's mistake."""
        try:
            return await self._found(call, retrieval.wanted, booked, retrieval.instructions or INSTRUCTIONS)
        except (errors.NotFound, errors.BadRequest) as error:
            if error.code == NO_TENANT:
                error.param = None  # it is the key that is to say it, not the request
                raise
            raise errors.Overloaded(
                f"The model '{call.request.model}' answers from a collection that cannot be used: {error.message}",
                code="retrieval_unavailable",
            ) from error

    async def _found(self, call: Call, wanted: Wanted, booked: Booking, instructions: str) -> Looked:
        key = call.record.key
        assert key is not None
        stores: Sequence[Store] = await self._spawn(_timely(call, self._searcher.stores(key, wanted, booked)))
        versions = [(one.id, one.version, one.space) for one in stores]
        version = _pack((versions, instructions, wanted, sorted(self._searcher.holds(key))))
        meant = msgspec.structs.replace(wanted, stores=tuple(dict.fromkeys(one.name for one in stores)))
        return Looked(meant, booked, instructions, version)


@final
class _Behind:
    """Behind the cache: puts what is found into the request, and citations into its answer."""

    def __init__(self, dispatch: Answers, searcher: Searcher, spawn: Spawn, bills: Bills) -> None:
        self.dispatch = dispatch
        self._bills = bills
        self._searcher = searcher
        self._spawn = spawn

    def answer(self, call: Call) -> Coroutine[Any, Any, None]:
        looked = call.grounds
        if looked is None or looked.done:
            return self.dispatch.answer(call)
        return self._answer(call, looked)

    async def _answer(self, call: Call, looked: Looked) -> None:
        looked.done = True
        fields = prompt.fields_of(call.body)
        if fields is not None:  # else whoever reads it says what is wrong
            await self._look_up(call, looked, fields)
        await self.dispatch.answer(call)

    async def _look_up(self, call: Call, looked: Looked, fields: prompt.Json) -> None:
        key, endpoint = call.record.key, call.endpoint.name
        assert key is not None
        queries = prompt.queries(endpoint, fields)
        if not queries:
            call.body = looked.body = prompt.without_tool(fields)
            return
        mark, carried = begun(call, "retrieval", time.monotonic())
        booked = booking.within(looked.booked, carried)
        self._bills.open(call.record.id)
        try:
            if (
                looked.wanted.rewrite is not None and OURS not in booked.tags
            ):  # else it is the rewriting that is answered
                queries = await self._spawn(
                    _timely(call, self._rewritten(key, endpoint, fields, queries, looked.wanted, booked))
                )
            found = await self._spawn(_timely(call, self._searcher.search(key, queries, looked.wanted, booked)))
        except errors.GatewayError as error:
            if mark is not None:
                mark.outcome = error.code or error.type
            raise
        finally:
            call.record.earlier_nanousd += self._bills.close(call.record.id)
            if mark is not None:
                mark.ended = time.monotonic()
        sources = Sources()
        passages = sources.told(sources.add(found))
        if not found and endpoint == "chat" and all(one.provider == QUOTES for one in call.model.deployments):
            fields["documents"] = []  # it is shown some, and there are none

        def put(passages: str) -> None:
            call.body = looked.body = prompt.grounded(endpoint, fields, passages, looked.instructions)

        if call.vet is None:
            put(passages)
        else:
            await call.vet(passages, put)
        call.exchange = Citing(call.exchange, call, sources)

    async def _rewritten(
        self, key: Key, endpoint: str, fields: prompt.Json, queries: Sequence[str], wanted: Wanted, booked: Booking
    ) -> Sequence[str]:
        """The question as it means in its conversation; as it stands where there is none, or nobody says."""
        told, rewrite = prompt.conversation(endpoint, fields), wanted.rewrite
        if told is None or rewrite is None:
            return queries
        made = await self._searcher.rewritten(key, told, rewrite, booked)
        return queries if made is None else [made]


async def _timely(call: Call, work: Coroutine[Any, Any, T]) -> T:
    """Raises UpstreamTimeout."""
    try:
        async with asyncio.timeout(max(0.0, call.deadline - time.monotonic())):
            return await work
    except TimeoutError:
        raise errors.UpstreamTimeout("The search in the documents was not over in time") from None
