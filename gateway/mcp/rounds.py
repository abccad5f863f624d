"""A response whose tools are called here: the model's turns, the calls between them, and all of it as one response.

Every turn takes the path of any call, with a hold and a settlement of its own, and so does every call of a tool.
"""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, final

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from gateway import errors
from gateway.bills import PART_OF, Bills
from gateway.bodies import NULL, RawObject
from gateway.endpoint import RESPONSES
from gateway.exchange import Exchange
from gateway.grounding import searching
from gateway.grounding.booking import within
from gateway.grounding.citations import Citations
from gateway.grounding.ports import Booking, Searcher
from gateway.grounding.searching import FileSearch
from gateway.grounding.sources import Sources
from gateway.ids import uuid7_hex
from gateway.keys import Key
from gateway.mcp import history
from gateway.mcp.calls import Asked, Calls
from gateway.mcp.errors import ToolRefused
from gateway.mcp.outcomes import as_item, checked, described, loosen, words
from gateway.mcp.rpc import INVALID_PARAMS
from gateway.mcp.tools import Tool, read_result
from gateway.mcp.turn import Call, Ended, Hosted, Turn, ended_of, item_of, refused
from gateway.mcp.upstreams import Spawn
from gateway.mcp.wanted import Function, Meant
from gateway.responses.agent import Serve
from gateway.responses.frame import Frame, Problem, Status, output_of, problem_of, visible
from gateway.responses.items import encode, listed, shown
from gateway.responses.outlet import Outlet
from gateway.responses.writer import event
from gateway.used import NOTHING, Usage
from gateway.watching import Part

MOST_AT_ONCE: Final = 16  # calls of one turn
EVENT_HEAD: Final = b"content-type: text/event-stream; charset=utf-8\r\n"
_COST: Final = re.compile(rb"x-penstock-cost-usd: (\d+)\.(\d{9})\r\n")
_TYPE: Final = re.compile(rb"content-type: [^\r]*\r\n")


class Engaged(msgspec.Struct, frozen=True):
    """A request with its tools. `fields` are the body's, less tools and input; `listings` the servers with their tools, or why none.

    `sources` are the passages that its documents have given so far.
    """

    fields: RawObject
    items: list[Raw]
    read: "list[history.Item | None]"
    tools: list[Raw]
    functions: Mapping[str, Hosted]
    listings: Sequence[tuple[Meant, Sequence[Tool], str | None]]
    approved: Sequence[history.Approved]
    most_calls: int | None
    sources: Sources


@final
class Rounds:
    """`gateway.responses.agent.Teller` over several turns. `told` events went before; `unix` is the clock."""

    def __init__(
        self,
        client: Exchange,
        frame: Frame,
        told: int,
        engaged: Engaged,
        *,
        key: Key,
        calls: Calls,
        searcher: Searcher | None,
        booking: Booking,
        spawn: Spawn,
        unix: Callable[[], float],
        most: int,
        summarised: bool,
        bills: Bills,
        part: Part | None = None,
    ) -> None:
        self._client = client
        self._frame = frame
        self._sequence = told
        self._created = told > 0
        self._engaged = engaged
        self._key = key
        self._calls = calls
        self._searcher = searcher
        carried = {} if part is None else part.carried
        self._part = part
        self._headers = {**client.headers, **carried, PART_OF: frame.id.encode("latin-1")}
        self._booking = replace(within(booking, carried), whole=frame.id)
        self._bills = bills
        self._spawn = spawn
        self._unix = unix
        self._most = most
        self._summarised = summarised
        self._output: dict[int, Raw] = {}
        self._places = 0
        self._listed = False
        self._ids: set[str] = set()
        self._usage: Usage = NOTHING
        self._priced = True  # every turn said what it cost
        self._called = 0
        self._turn: tuple[Turn, Outlet] | None = None
        self._running: Sequence[Call] = ()
        self._ended: dict[str, object] | None = None
        self._held: tuple[int, bytes, bytes] | None = None
        self._last: bytes | None = None
        self.failed: errors.GatewayError | None = None
        self.streaming = False

    @property
    def begun(self) -> bool:
        return self._client.begun or self._held is not None

    @property
    def response(self) -> bytes:
        return encode(self._ended or self._made("in_progress", self._done()))

    async def serve(self, serve: Serve) -> None:
        """Until the model has said its last word, a client has to do something, or there were enough turns."""
        self._bills.open(self._frame.id)
        try:
            await self._serve(serve)
        finally:
            self._bills.close(self._frame.id)
            if self._part is not None:
                self._part.end(499 if self._ended is None else 200 if self.failed is None else self.failed.status)

    async def _serve(self, serve: Serve) -> None:
        engaged = self._engaged
        fields = dict(engaged.fields)
        streams = bytes(fields.get("stream", NULL)) == b"true"
        if streams and engaged.approved:
            self._begin(EVENT_HEAD)
        fresh = await self._spawn(self._make_approved()) if engaged.approved else []
        tools_ = [one for one in engaged.functions.values() if isinstance(one, Function)]
        names = {(one.meant.label, one.tool.name): one.name for one in tools_}
        items = history.as_functions(engaged.items, engaged.read, names, fresh)
        tools = [*engaged.tools, *(Raw(encode(one.offered())) for one in engaged.functions.values())]
        if tools:
            fields["tools"] = Raw(encode(tools))
        for number in range(self._most + 1):
            if engaged.functions and (number == self._most or self._spent):
                fields["tool_choice"] = Raw(b'"none"')
            fields["input"] = listed(items)
            turn, outlet = self._turn = self._next(encode(fields))
            await serve(RESPONSES, outlet)
            if outlet.failed is not None or not outlet.begun:
                self._fail(turn, outlet.failed or errors.Internal("The model gave no answer"))
                return
            outlet.release(kept=True)
            said = output_of(outlet.response)
            ended = ended_of.decode(outlet.response)
            self._turn = None
            try:
                wanted, others = self._take(turn, said)
            except errors.UpstreamError as error:
                self._fail(turn, error)
                return
            self._running = wanted
            self._count(turn, ended)
            waits = others or number == self._most or any(one.asks_first for one in wanted)
            if not wanted or waits or ended.status != "completed":
                if ended.status == "completed":
                    await self._spawn(self._make([one for one in wanted if not one.asks_first]))
                self._finish(turn, ended, wanted)
                return
            items += said + await self._spawn(self._make(wanted))
            loosen(fields)

    def end_as(self, status: Status, problem: Problem | None = None) -> None:
        if self._ended is None and self.failed is None:
            self._ended = self._made(status, self._done(), error=problem)

    def end_as_failed_unless_ended(self, problem: Problem) -> None:
        self.end_as("failed", problem)

    def release(self, *, kept: bool) -> None:
        if self._held is not None:
            status, head, body = self._held
            self._client.respond(status, head + (b"" if kept else b"x-penstock-stored: false\r\n"), body)
        elif self._last is not None:
            self._client.send(self._last)
            self._client.end()

    def last_event(self) -> bytes:
        if self._last is None:
            self._last = self._closing()
        return self._last

    # Turns

    @property
    def _spent(self) -> bool:
        most = self._engaged.most_calls
        return most is not None and self._called >= most

    def _next(self, body: bytes) -> tuple[Turn, Outlet]:
        turn = Turn(
            self._client,
            body,
            self._headers,
            self._engaged.functions,
            place=self._place,
            id_of=self._id_of,
            begin=self._begin,
            emit=self._emit,
            citations=Citations(self._engaged.sources),
        )
        frame = Frame(
            f"resp_{uuid7_hex()}", self._frame.created_at, self._frame.model, {}, include=[*self._frame.include]
        )
        return turn, Outlet(turn, body, frame, self._unix, summarised=self._summarised)

    def _take(self, turn: Turn, said: Sequence[Raw]) -> tuple[list[Call], bool]:
        """What the model wants to be called here, and whether it waits for its client to call something."""
        self._tell_tools()
        wanted: list[Call] = []
        others = False
        for index, item in enumerate(said):
            call = turn.call_of(index, item)
            if call is None:
                self._output[turn.place_of(index)] = self._cited(item)
                others = others or item_of.decode(item).type in {"function_call", "custom_tool_call"}
            else:
                wanted.append(call)
        return wanted, others

    def _count(self, turn: Turn, ended: Ended) -> None:
        self._usage += ended.used
        self._priced = self._priced and _COST.search(turn.head) is not None

    def _finish(self, turn: Turn, ended: Ended, wanted: Sequence[Call]) -> None:
        for call in wanted:
            if call.place in self._output:
                continue
            if call.asks_first:
                self._put(call.place, call.request())
            else:  # the model was cut off
                self._put(call.place, call.item("incomplete"), opened=True)
        whole = ended.status == "completed"
        reason = (ended.incomplete_details or {}).get("reason")
        self._ended = self._made(
            "completed" if whole else "incomplete",
            self._done(),
            reason=None if whole else str(reason or "max_output_tokens"),
            completed_at=int(self._unix()),
        )
        if self.streaming:
            self._last = self._closing()
        else:
            head = _TYPE.sub(b"", _COST.sub(b"", turn.head)) + b"content-type: application/json\r\n"
            if self._priced:
                cost = self._bills.close(self._frame.id)  # of turns, tools and searches
                head += b"x-penstock-cost-usd: %d.%09d\r\n" % divmod(cost, 1_000_000_000)
            self._held = 200, head, bytes(visible(encode(self._ended), self._frame.include))

    def _fail(self, turn: Turn, error: errors.GatewayError) -> None:
        if not self.streaming:
            self._ended = self._made("failed", self._done(), error=problem_of(error.code, error.message))
            self._client.respond(*refused(turn, error))
        else:
            self._emit("error", code=error.code or error.type, message=error.message, param=error.param)
            self._ended = self._made("failed", self._done(), error=problem_of(error.code, error.message))
            self._last = self._closing()
        self.failed = error

    # Calls

    async def _make_approved(self) -> list[history.Item]:
        """Those that a person has agreed to, before the model goes on."""
        self._tell_tools()
        made: list[history.Item] = []
        for one in self._engaged.approved:
            function = self._function(one)
            call = Call(self._place(), self._id_of(function, history.call_id_of(one.request_id)), function, "")
            call.arguments = one.arguments
            self._open(call)
            item = await self._one(call, one.request_id)
            made.append(as_item(item))
        return made

    def _function(self, one: history.Approved) -> Function:
        for function in self._engaged.functions.values():
            if isinstance(function, Function) and (function.meant.label, function.tool.name) == (one.label, one.name):
                return function
        raise AssertionError(f"{one.name} was looked up before")  # the agent refuses such a request

    async def _make(self, calls: Sequence[Call]) -> list[Raw]:
        """At the same time; what the model hears of each, in order."""
        room = asyncio.Semaphore(MOST_AT_ONCE)

        async def one(call: Call) -> Raw:
            async with room:
                output = await self._heard(call)
            told = {
                "type": "function_call_output",
                "call_id": call.call_id,
                "output": output,
                "status": "completed",
            }
            return Raw(encode({"id": f"fco_{call.id.partition('_')[2]}", **told}))

        return list(await asyncio.gather(*map(one, calls)))

    async def _heard(self, call: Call) -> str:
        """What the model hears of a call once it was made."""
        if isinstance(call.function, FileSearch):
            return await self._search(call, call.function)
        return history.told(as_item(await self._one(call)))

    async def _search(self, call: Call, function: FileSearch) -> str:
        """One search to its end. What goes wrong, also that a store is gone by now, is the model's to hear."""
        queries: list[str] = []
        try:
            self._count_call()
            queries = searching.queries_of(call.arguments)
            self._emit(f"response.{searching.CALL}.searching", item_id=call.id, output_index=call.place)
            if self._searcher is None:
                raise errors.Internal("There is nothing to search with")
            found = await self._searcher.search(self._key, queries, function.wanted, self._booking)
        except (ToolRefused, errors.GatewayError) as error:
            self._put(call.place, call.item("failed", queries=queries), opened=True)
            return f"Error: {error.message}"
        self._emit(f"response.{searching.CALL}.completed", item_id=call.id, output_index=call.place)
        item = call.item("completed", queries=queries, results=searching.results(found))
        self._put(call.place, item, opened=True)
        return searching.told(found, self._engaged.sources)

    def _cited(self, item: Raw) -> Raw:
        return Citations(self._engaged.sources).item(item)

    async def _one(self, call: Call, approval: str | None = None) -> dict[str, object]:
        """One call of a server's tool to its end; its item. What goes wrong is the model's to hear."""
        function = call.function
        assert isinstance(function, Function)
        problem: dict[str, object]
        try:
            self._count_call()
            shown_as = f"{function.meant.label}.{function.tool.name}"
            arguments = checked(call.arguments)
            asked = Asked(
                function.tool.server,
                function.tool.name,
                shown_as,
                arguments,
                self._headers,
                asyncio.get_running_loop().time(),
            )
            done = await self._calls.call(self._key, asked)
            result = read_result(done.result, shown_as)
            if not done.failed:
                item = call.item("completed", output=words(result.content), approval_request_id=approval)
                self._close(call, item, "completed")
                return item
            problem = {"type": "mcp_tool_execution_error", "content": result.content}
        except ToolRefused as error:
            problem = {"type": "mcp_protocol_error", "code": error.number, "message": error.message}
        except errors.GatewayError as error:
            problem = {"type": "http_error", "code": error.status, "message": error.message}
        item = call.item("failed", error=problem, approval_request_id=approval)
        self._close(call, item, "failed")
        return item

    def _count_call(self) -> None:
        """Raises ToolRefused where there are enough."""
        if self._spent:
            raise ToolRefused(INVALID_PARAMS, "The response has made as many calls as max_tool_calls allows")
        self._called += 1

    def _open(self, call: Call) -> None:
        """A call that no turn has told of."""
        at: dict[str, object] = {"item_id": call.id, "output_index": call.place}
        self._emit("response.output_item.added", item=call.item("in_progress"), output_index=call.place)
        self._emit("response.mcp_call.in_progress", **at)
        self._emit("response.mcp_call_arguments.done", arguments=call.arguments, **at)

    def _close(self, call: Call, item: dict[str, object], how: str) -> None:
        self._emit(f"response.mcp_call.{how}", item_id=call.id, output_index=call.place)
        self._put(call.place, item, opened=True)

    # Items and events

    def _tell_tools(self) -> None:
        """Once, before anything else of the output: what the servers offer."""
        if self._listed:
            return
        self._listed = True
        told = history.listed(self._engaged.read)
        for meant, tools, error in self._engaged.listings:
            if meant.label in told and error is None:
                continue
            self._list(meant, tools, error)

    def _list(self, meant: Meant, tools: Sequence[Tool], error: str | None) -> None:
        place = self._place()
        id_ = f"mcpl_{self._frame.stem}{place:04x}"
        empty: dict[str, object] = {"id": id_, "type": "mcp_list_tools", "server_label": meant.label, "tools": []}
        self._emit("response.output_item.added", item=empty, output_index=place)
        self._emit("response.mcp_list_tools.in_progress", item_id=id_, output_index=place)
        how = "completed" if error is None else "failed"
        self._emit(f"response.mcp_list_tools.{how}", item_id=id_, output_index=place)
        whole = empty | {"tools": [described(tool) for tool in tools], "error": error}
        self._put(place, whole, opened=True)

    def _put(self, place: int, item: dict[str, object], *, opened: bool = False) -> None:
        raw = Raw(encode(item))
        told = shown(raw, self._frame.include)
        if not opened:
            self._emit("response.output_item.added", item=told, output_index=place)
        self._output[place] = raw
        self._emit("response.output_item.done", item=told, output_index=place)

    def _place(self) -> int:
        if not self._listed:
            self._tell_tools()
        self._places += 1
        return self._places - 1

    def _id_of(self, function: Hosted, call_id: str) -> str:
        prefix = history.REQUEST if function.asks_first else history.CALL
        if isinstance(function, FileSearch):
            prefix = searching.PREFIX
        return history.item_id(prefix, call_id, self._ids, f"{self._frame.stem}{len(self._ids):04x}")

    def _begin(self, head: bytes) -> None:
        """The client's stream, at the first turn that begins."""
        if self.streaming:
            return
        self.streaming = True
        self._client.begin_events(200, head)
        shape = self._frame.response("in_progress")
        if not self._created:
            self._emit("response.created", response=shape)
        self._emit("response.in_progress", response=shape)

    def _emit(self, kind: str, **fields: object) -> None:
        if self.streaming:
            self._client.send(self._event(kind, fields))

    def _event(self, kind: str, fields: Mapping[str, object]) -> bytes:
        made = event(kind, {"type": kind, "sequence_number": self._sequence, **fields})
        self._sequence += 1
        return made

    def _closing(self) -> bytes:
        """The last event. Of a response that was cancelled it is one that is incomplete, as everywhere."""
        ended = self._ended
        assert ended is not None
        kind = "incomplete" if ended["status"] == "cancelled" else ended["status"]
        output = ended["output"]
        assert isinstance(output, list)
        told = ended | {"output": [shown(one, self._frame.include) for one in output]}
        return self._event(f"response.{kind}", {"response": told})

    def _made(self, status: Status, output: Sequence[Raw], **more: Any) -> dict[str, object]:
        return self._frame.response(status, output, usage=None if self._usage is NOTHING else self._usage, **more)

    def _done(self) -> list[Raw]:
        """What there is, with what the turn that runs has said so far."""
        running = {call.place: Raw(encode(call.item("incomplete"))) for call in self._running if not call.asks_first}
        found = running | self._output
        if self._turn is not None:
            turn, outlet = self._turn
            for index, item in enumerate(output_of(outlet.response)):
                call = turn.call_of(index, item)
                if call is None:
                    found[turn.place_of(index)] = self._cited(item)
                elif not call.asks_first:
                    found[call.place] = Raw(encode(call.item("incomplete")))
        return [found[at] for at in sorted(found)]
