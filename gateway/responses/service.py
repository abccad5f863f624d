"""`/v1/responses`: what goes before a call and what is kept after it. The call itself takes the one path of all (`gateway.completion`)."""

import asyncio
import re
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final, final

import msgspec
import structlog
from msgspec import Raw
from sqlalchemy import Connection

from gateway import bodies, errors
from gateway.authentication import Authenticator
from gateway.completion import Completions
from gateway.drive import driven
from gateway.endpoint import RESPONSES, Endpoint
from gateway.exchange import Exchange
from gateway.http_exchange import JSON_HEAD, HttpExchange
from gateway.ids import uuid7_hex
from gateway.keys import Key
from gateway.responses import params, store
from gateway.responses.agent import Agent, Serve, Tell, Teller
from gateway.responses.frame import Frame, Problem, altered, output_of, visible
from gateway.responses.items import MAX_ITEMS, encode, given, id_of, kind_of, listed, page, whole
from gateway.responses.outlet import Outlet
from gateway.responses.params import Create
from gateway.responses.runs import TOO_LONG, Run, Runs
from gateway.responses.shelf import Shelf
from gateway.responses.store import Stored, owner_of
from gateway.responses.writer import event
from gateway.signs import Signs
from gateway.snapshot import Current

log = structlog.stdlib.get_logger(__name__)

PATH: Final = b"/v1/responses"
PREFIX: Final = b"/v1/responses/"
EVENT_HEAD: Final = b"content-type: text/event-stream; charset=utf-8\r\n"
# In requests with MCP tools or a search in documents, or items of their calls: as it is, or with a letter that only who wants to hide
# it spells as an escape.
_CALLED_HERE: Final = re.compile(rb'"(?:mcp|file_search)|\\u00(?:6[3dD]|70)')
POLL_S: Final = 0.5  # of a run in another process
STOPPED: Final = Problem("server_error", "The gateway was stopped while it made this response")
FAILED: Final = Problem("server_error", "Something went wrong on our side; the log has the details")


class Prepared(msgspec.Struct, frozen=True):
    """One request with all that went before it. `body` is what is asked of deployments; `items` are those that came with it."""

    asked: Create
    frame: Frame
    owner: str
    body: bytes
    items: list[Raw]
    before: int | None
    tell: Tell | None = None  # of an answer that is not one turn of a model

    def stored(self, response: bytes, *, seen_at: float | None = None) -> Stored:
        return Stored(
            id=self.frame.id,
            owner=self.owner,
            created_at=float(self.frame.created_at),
            status=msgspec.json.decode(response, type=_Status).status,
            background=self.frame.background,
            previous_id=self.asked.previous_response_id,
            conversation_id=self.frame.conversation,
            before=self.before,
            seen_at=seen_at,
            request=bytes(listed(self.items)),
            response=response,
        )


class _Status(msgspec.Struct):
    status: Any


@final
class Responses:
    """One per process. `unix` is the clock in Unix seconds; `alone`: no other process works on the same database."""

    def __init__(
        self,
        *,
        completions: Completions,
        authenticator: Authenticator,
        current: Current,
        shelf: Shelf,
        unix: Callable[[], float],
        alone: bool,
        agent: Callable[[], Coroutine[Any, Any, Agent]] | None = None,
        signs: Signs | None = None,
    ) -> None:
        self._completions = completions
        self._authenticator = authenticator
        self._current = current
        self._shelf = shelf
        self._unix = unix
        self._agent = agent
        self._runs = Runs(shelf, alone=alone, signs=signs)
        self._tasks: set[asyncio.Task[Any]] = set()

    def background(self) -> Coroutine[Any, Any, None]:
        """What runs as long as the server does."""
        return self._runs.run()

    async def end_runs(self) -> None:
        """Each keeps what it has."""
        await self._runs.close()

    async def close(self) -> None:
        await self.end_runs()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._shelf.close()

    async def every(self, exchange: HttpExchange) -> None:
        """`/v1/responses`."""
        if exchange.method == b"POST":
            await self._create(exchange)
        else:
            exchange.fail(not_allowed(exchange, "POST"))

    async def one(self, exchange: HttpExchange) -> None:
        """What stands below `/v1/responses/`."""
        try:
            path = exchange.url.partition(b"?")[0][len(PREFIX) :].decode("latin-1")
            id_, _, below = path.partition("/")
            key = self.caller(exchange, "/v1/responses")
            match exchange.method, below:
                case b"GET", "":
                    await self._retrieve(exchange, owner_of(key), id_)
                case b"DELETE", "":
                    await self._delete(exchange, owner_of(key), id_)
                case b"POST", "cancel":
                    await self._cancel(exchange, owner_of(key), id_)
                case b"GET", "input_items":
                    await self._inputs(exchange, owner_of(key), id_)
                case _, "" | "cancel" | "input_items":
                    raise not_allowed(exchange, {"": "GET, DELETE", "cancel": "POST"}.get(below, "GET"))
                case _:
                    raise errors.NotFound(f"There is no /v1/responses/{path}", code="unknown_url")
        except errors.GatewayError as error:
            if not exchange.begun:
                exchange.fail(error)

    def caller(self, exchange: HttpExchange, path: str) -> Key:
        """Raises Unauthenticated, AccessDenied."""
        key = self._authenticator.caller(self._current.snapshot, exchange.headers)
        if not key.may_call(path):
            raise errors.AccessDenied(f"This key may not call {path}", code="route_access_denied")
        return key

    async def _create(self, exchange: HttpExchange) -> None:
        try:
            key = self._authenticator.caller(self._current.snapshot, exchange.headers)
            prepared = await self._prepare(exchange.body, key)
            if self._agent is not None and _CALLED_HERE.search(prepared.body):
                prepared = await self._engage(self._agent, exchange, key, prepared)
        except errors.GatewayError as error:
            await self._completions.serve(_refusing(error), exchange)  # so that it is recorded as any other refusal
            return
        if prepared.asked.background and self._answerable(key, prepared.asked.model):
            try:
                await self._begin(exchange, prepared)
            except errors.GatewayError as error:
                exchange.fail(error)
            return
        await self._answer(exchange, prepared)

    async def _prepare(self, body: bytes, key: Key) -> Prepared:
        """Raises BadRequest, NotFound."""
        asked = params.create(body)
        fields = params.raw_fields(body)
        owner, stem = owner_of(key), uuid7_hex()
        items = whole(given(asked.input), f"{stem}i")
        history: list[Raw] = []
        before: int | None = None
        conversation_id = asked.conversation_id
        if asked.previous_response_id is not None:
            history = await self._shelf.ask(partial(_history, owner, asked.previous_response_id))
        elif conversation_id is not None:
            history, before = await self._shelf.ask(partial(_conversation, owner, conversation_id))
        items = _resolved(items, history)
        if not items and not history and "prompt" not in fields:
            raise errors.BadRequest(
                "Missing required parameter: 'input'", param="input", code="missing_required_parameter"
            )
        if len(history) + len(items) > MAX_ITEMS:
            raise errors.BadRequest(
                f"The conversation has more than {MAX_ITEMS} items", param="input", code="too_many_items"
            )
        frame = Frame(
            f"resp_{stem}",
            int(self._unix()),
            asked.model,
            fields,
            include=asked.include or (),
            conversation=conversation_id,
            background=asked.background is True,
        )
        for name in ("previous_response_id", "conversation", "background", "store"):
            fields.pop(name, None)
        fields["input"] = listed([*history, *items])
        if asked.background:
            fields["stream"] = Raw(b"true")
        return Prepared(asked, frame, owner, encode(fields), items, before)

    @staticmethod
    async def _engage(
        agent: Callable[[], Coroutine[Any, Any, Agent]], exchange: HttpExchange, key: Key, prepared: Prepared
    ) -> Prepared:
        """With whoever calls its tools. Raises BadRequest."""
        if not key.may_call("/v1/responses"):  # as the path of every call is about to say
            return prepared
        summarised = prepared.asked.summarised
        tell = await (await agent()).engage(key, prepared.body, exchange.headers, summarised=summarised)
        return msgspec.structs.replace(prepared, tell=tell)

    def _serving(self, prepared: Prepared) -> Serve:
        return partial(self._completions.serve, answer_id=prepared.frame.id)

    def _teller(self, exchange: Exchange, prepared: Prepared, told: int = 0) -> Teller:
        """After so many events."""
        if prepared.tell is not None:
            return prepared.tell(exchange, prepared.frame, told)
        summarised = prepared.asked.summarised
        return Outlet(exchange, prepared.body, prepared.frame, self._unix, summarised=summarised, told=told)

    async def _answer(self, exchange: HttpExchange, prepared: Prepared) -> None:
        """While the client waits."""
        outlet = self._teller(exchange, prepared)
        try:
            await outlet.serve(self._serving(prepared))
        except asyncio.CancelledError:  # the client has left; what it got is kept, as what it is
            if outlet.begun:
                outlet.end_as("cancelled")
                self._later(self._keep(prepared, outlet.response))
            raise
        kept = not outlet.begun or (outlet.failed is not None and not outlet.streaming)
        if not kept:
            kept = await self._keep(prepared, outlet.response)
        outlet.release(kept=kept)

    async def _keep(self, prepared: Prepared, response: bytes) -> bool:
        """False where that failed."""
        extra = self._said(prepared, response)
        if prepared.asked.store is False:
            return True if extra is None else await self._shelf.write(extra)
        stored = prepared.stored(response)

        def write(tx: Connection) -> None:
            store.save(tx, stored)
            if extra is not None:
                extra(tx)

        return await self._shelf.write(write)

    def _said(self, prepared: Prepared, response: bytes) -> Callable[[Connection], None] | None:
        """What goes into the conversation, if there is one and the answer came to an end."""
        conversation_id = prepared.frame.conversation
        if conversation_id is None or prepared.stored(response).status not in {"completed", "incomplete"}:
            return None
        items = [*prepared.items, *output_of(response)]
        return lambda tx: store.append(tx, prepared.owner, conversation_id, items)

    # In the background

    async def _begin(self, exchange: HttpExchange, prepared: Prepared) -> None:
        self._runs.admit()
        queued = encode(prepared.frame.response("queued"))
        stored = prepared.stored(queued, seen_at=time.time())
        await self._shelf.change(lambda tx: store.save(tx, stored))
        run = Run(stored, dict(exchange.headers), prepared.body, exchange.started_at)
        shape = Raw(queued)
        for number, kind in enumerate(("response.created", "response.queued")):
            run.send(event(kind, {"type": kind, "sequence_number": number, "response": shape}))
        self._runs.add(run)
        run.task = asyncio.get_running_loop().create_task(self._run(run, prepared))
        if prepared.asked.stream:
            await _follow(exchange, run, -1)
        else:
            exchange.respond(200, JSON_HEAD, queued)

    async def _run(self, run: Run, prepared: Prepared) -> None:
        """To its end, whoever listens. What ends this task from outside ends the upstream's call with it."""
        outlet = self._teller(run, prepared, len(run.events))
        run.current = lambda: outlet.response if outlet.begun or run.ended else run.stored.response
        try:
            await driven(outlet.serve(self._serving(prepared)))
        except asyncio.CancelledError:
            if run.too_long:
                outlet.end_as("failed", TOO_LONG)
            elif run.stopped:
                outlet.end_as("cancelled")
            else:
                outlet.end_as("failed", STOPPED)
        except Exception:  # a task's border: the client finds it in the response
            log.exception("responses.run_failed", response=run.stored.id)
            outlet.end_as("failed", FAILED)
        outlet.end_as_failed_unless_ended(FAILED)
        response = outlet.response
        run.end_with(outlet.last_event())
        extra = self._said(prepared, response)
        await self._runs.keep_end(run, prepared.stored(response), extra or (lambda _: None))

    def _answerable(self, key: Key, model: str) -> bool:
        """Whether the name is one that this key may use: if not, the client is told so at once."""
        snapshot = self._current.snapshot
        if not key.may_call("/v1/responses"):
            return False
        if snapshot.versions is not None and model in snapshot.versions.routes:
            return key.may_use(model)
        found = snapshot.catalog.find(model)
        return found is not None and key.may_use(model, found[0].admitted_by)

    def _later(self, coro: Coroutine[Any, Any, object]) -> None:
        task = asyncio.get_running_loop().create_task(coro)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # What was kept

    async def _retrieve(self, exchange: HttpExchange, owner: str, id_: str) -> None:
        query = params.query_of(exchange.url)
        run = self._runs.find(owner, id_)
        if params.flag(query, "stream"):
            after = params.whole_number(query, "starting_after")
            await self._stream(exchange, run, owner, id_, -1 if after is None else after)
            return
        body = run.current() if run is not None else (await self._fresh(owner, id_)).response
        exchange.respond(200, JSON_HEAD, bytes(visible(body, params.included(query))))

    async def _stream(self, exchange: HttpExchange, run: Run | None, owner: str, id_: str, after: int) -> None:
        if run is not None:
            await _follow(exchange, run, after)
            return
        stored = await self._fresh(owner, id_)
        if not stored.background:
            raise errors.BadRequest(
                "Only a response that was made with background=true can be streamed again", param="stream"
            )
        exchange.begin_events(200, EVENT_HEAD)
        while True:
            for last, events in await self._shelf.ask(lambda tx, after=after: store.events_after(tx, id_, after)):  # type: ignore[misc]  # the value of now
                every = [one + b"\n\n" for one in events.split(b"\n\n") if one]
                exchange.send(b"".join(every[max(0, len(every) - (last - after)) :]))
                after = last
            if not stored.running:
                exchange.end()
                return
            await asyncio.sleep(POLL_S)
            await exchange.drained()
            stored = await self._fresh(owner, id_)

    async def _fresh(self, owner: str, id_: str) -> Stored:
        """As it is now: one that was lost with its process is not said to be running. Raises NotFound."""
        found = await self._shelf.ask(lambda tx: store.get(tx, owner, id_))
        if self._runs.lost(found):
            await self._runs.sweep()
            found = await self._shelf.ask(lambda tx: store.get(tx, owner, id_))
        return found

    async def _delete(self, exchange: HttpExchange, owner: str, id_: str) -> None:
        await self._shelf.change(lambda tx: store.remove(tx, owner, id_))
        run = self._runs.find(owner, id_)
        if run is not None:
            run.stop()
        answer(exchange, {"id": id_, "object": "response", "deleted": True})

    async def _cancel(self, exchange: HttpExchange, owner: str, id_: str) -> None:
        stored = await self._fresh(owner, id_)
        if not stored.background:
            raise errors.BadRequest("Only a response that was made with background=true can be cancelled")
        if not stored.running:
            exchange.respond(200, JSON_HEAD, bytes(visible(stored.response, frozenset())))
            return
        run = self._runs.find(owner, id_)
        if run is not None:
            await run.stopping()
            body = run.current()
        elif await self._shelf.change(lambda tx: store.ask_to_stop(tx, id_)):
            body = altered(stored.response, "cancelled", None)
        else:
            body = (await self._fresh(owner, id_)).response
        exchange.respond(200, JSON_HEAD, bytes(visible(body, frozenset())))

    async def _inputs(self, exchange: HttpExchange, owner: str, id_: str) -> None:
        wanted = params.page_of(params.query_of(exchange.url))
        items = await self._shelf.ask(lambda tx: store.inputs(tx, owner, id_))
        answer(
            exchange,
            page(items, after=wanted.after, limit=wanted.limit, ascending=wanted.ascending, include=wanted.include),
        )


def answer(exchange: HttpExchange, value: object) -> None:
    exchange.respond(200, JSON_HEAD, encode(value))


def not_allowed(exchange: HttpExchange, allowed: str) -> errors.MethodNotAllowed:
    return errors.MethodNotAllowed(
        f"{exchange.method.decode('latin-1')} is not allowed here; use {allowed}", headers=(("allow", allowed),)
    )


async def _follow(exchange: HttpExchange, run: Run, after: int) -> None:
    """A run's events behind `after`, as they come, to their end. A client that leaves only stops listening."""
    exchange.begin_events(200, EVENT_HEAD)
    told = max(0, after + 1)
    while True:
        exchange.send(b"".join(run.events[told:]))
        told = max(told, len(run.events))
        if run.ended:
            exchange.end()
            return
        await exchange.drained()
        if told >= len(run.events) and not run.ended:
            await run.more()


def _refusing(error: errors.GatewayError) -> Endpoint:
    """The same endpoint, on which nothing can be asked but this error heard."""

    def refuse(_: bytes) -> bodies.Request:
        raise error

    return Endpoint(RESPONSES.name, RESPONSES.path, refuse)


def _history(owner: str, id_: str, tx: Connection) -> list[Raw]:
    return store.history(tx, owner, id_)


def _conversation(owner: str, id_: str, tx: Connection) -> tuple[list[Raw], int]:
    store.conversation(tx, owner, id_)
    return store.items_of(tx, id_), store.end_of(tx, id_)


def _resolved(items: Sequence[Raw], history: Sequence[Raw]) -> list[Raw]:
    """Without references to what is there already. Raises BadRequest for one to anything else."""
    kept = []
    known: set[str] | None = None
    for number, item in enumerate(items):
        if kind_of(item) != "item_reference":
            kept.append(item)
            continue
        known = {id_of(one) for one in history} if known is None else known
        if id_of(item) not in known:
            raise errors.BadRequest(
                f"There is no item '{id_of(item)}' in what went before",
                param=f"input[{number}].id",
                code="item_not_found",
            )
    return kept
