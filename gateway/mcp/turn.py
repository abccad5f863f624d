"""One turn of a model inside a response: the `Exchange` that it is answered into, and its events as those of the whole response.

Calls of functions that stand for tools become calls of tools; what else the model says goes on, under new places and numbers, and with
citations where it has marks of passages.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, final

import msgspec
from msgspec import Raw

from gateway import errors
from gateway.bodies import NULL, RawObject
from gateway.exchange import Exchange
from gateway.grounding.citations import Citations
from gateway.grounding.searching import FileSearch
from gateway.mcp.wanted import Function
from gateway.usage import from_responses
from gateway.usage_reports import ResponsesUsage
from gateway.used import NOTHING, Usage
from gateway.wire import present

Emit = Callable[..., None]
Hosted = Function | FileSearch
"""What a model sees as a function, and is called here."""
ENDS: Final = frozenset(("error", "response.completed", "response.incomplete", "response.failed"))
OPENINGS: Final = frozenset(("response.created", "response.in_progress", "response.queued"))
ADDED: Final = "response.output_item.added"
DONE: Final = "response.output_item.done"
ARGUMENTS: Final = "response.function_call_arguments."


class FunctionCall(msgspec.Struct, gc=False):
    """What is read of an item of the output."""

    type: str = ""
    id: str = ""
    call_id: str = ""
    name: str = ""
    arguments: str = ""


class Ended(msgspec.Struct, gc=False):
    """What is read of the response that ends a turn."""

    status: str = ""
    usage: ResponsesUsage | None = None
    incomplete_details: dict[str, Any] | None = None

    @property
    def used(self) -> Usage:
        return NOTHING if self.usage is None else from_responses(self.usage)


@final
class Call:
    """A tool that the model wants to be called. `place` is that in the whole response's output."""

    def __init__(self, place: int, id_: str, function: Hosted, call_id: str) -> None:
        self.place = place
        self.id = id_
        self.function = function
        self.call_id = call_id
        self.arguments = ""

    @property
    def asks_first(self) -> bool:
        return self.function.asks_first

    @property
    def kind(self) -> str:
        """What its events are called."""
        return "file_search_call" if isinstance(self.function, FileSearch) else "mcp_call"

    def item(self, status: str, **fields: object) -> dict[str, object]:
        made: dict[str, object] = {"id": self.id, "type": self.kind, "status": status}
        if isinstance(self.function, FileSearch):
            return made | {"queries": [], "results": None} | fields
        made |= {
            "approval_request_id": None,
            "server_label": self.function.meant.label,
            "name": self.function.tool.name,
        }
        return made | {"arguments": self.arguments, "output": None, "error": None} | fields

    def request(self) -> dict[str, object]:
        assert not isinstance(self.function, FileSearch)  # it asks nobody
        made: dict[str, object] = {
            "id": self.id,
            "type": "mcp_approval_request",
            "server_label": self.function.meant.label,
        }
        return made | {"name": self.function.tool.name, "arguments": self.arguments}


item_of: Final = msgspec.json.Decoder(FunctionCall)
ended_of: Final = msgspec.json.Decoder(Ended)
_object: Final = msgspec.json.Decoder(RawObject)
_text: Final = msgspec.json.Decoder(str)
_number: Final = msgspec.json.Decoder(int)


@final
class Turn:
    """`place` gives the next free place of the output, `id_of` an id for a call; `begin` opens the client's stream.

    After it: `refusal` is an answer that is none, `head` the header lines of a good one.
    """

    def __init__(
        self,
        client: Exchange,
        body: bytes,
        headers: Mapping[bytes, bytes],
        functions: Mapping[str, Hosted],
        *,
        place: Callable[[], int],
        id_of: Callable[[Hosted, str], str],
        begin: Callable[[bytes], None],
        emit: Emit,
        citations: Citations | None = None,
    ) -> None:
        self._client = client
        self.body = body
        self.headers = headers
        self.started_at = client.started_at
        self._functions = functions
        self._place = place
        self._id_of = id_of
        self._begin = begin
        self._emit = emit
        self._citations = citations
        self._places: dict[int, int] = {}
        self._calls: dict[int, Call] = {}
        self.begun = False
        self.head = b""
        self.refusal: tuple[int, bytes, bytes] | None = None

    def place_of(self, index: int) -> int:
        """Of an item of this turn, in the whole response."""
        if index not in self._places:
            self._places[index] = self._place()
        return self._places[index]

    def call_of(self, index: int, item: Raw) -> Call | None:
        """The call that an item is, if it is one of ours."""
        found = self._calls.get(index)
        try:
            read = item_of.decode(item)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise errors.UpstreamError(f"The upstream's answer has an item that is none: {error}") from None
        if found is None:
            function = self._functions.get(read.name) if read.type == "function_call" else None
            if function is None:
                return None
            found = self._calls[index] = Call(
                self.place_of(index), self._id_of(function, read.call_id), function, read.call_id
            )
        found.arguments = read.arguments or found.arguments
        return found

    # As an exchange

    def respond(self, status: int, head: bytes, body: bytes) -> None:
        self.begun = True
        self.head = head
        if status != 200:
            self.refusal = status, head, body

    def begin(self, status: int, head: bytes) -> None:
        self.begin_events(status, head)

    def begin_events(self, status: int, head: bytes) -> None:  # noqa: ARG002 — a stream that begins is a 200
        self.begun = True
        self.head = head
        self._begin(head)

    def send(self, data: bytes) -> None:
        for one in data.split(b"\n\n"):
            if one.startswith(b":"):
                self._client.send(one + b"\n\n")
            elif one:
                self._hear(one.rpartition(b"\ndata: ")[2])

    def send_chunk(self, data: bytes, chunk: bytes) -> None:  # noqa: ARG002 — the port's names
        self.send(data)

    def way(self) -> None: ...

    def end(self) -> None:
        """There may be another turn."""

    def break_off(self) -> None:
        self._client.break_off()

    @property
    def write_paused(self) -> bool:
        return self._client.write_paused

    async def drained(self) -> None:
        await self._client.drained()

    def _hear(self, payload: bytes) -> None:
        fields = _object.decode(payload)
        kind = _text.decode(fields["type"])
        if kind in ENDS or kind in OPENINGS:
            return
        index = _number.decode(fields["output_index"]) if present(fields.get("output_index", NULL)) else None
        call = None if index is None else self._calls.get(index)
        if index is not None and kind == ADDED:
            call = self.call_of(index, fields["item"])
        rest = {
            name: value for name, value in fields.items() if name not in {"type", "sequence_number", "output_index"}
        }
        if call is None:
            at: dict[str, object] = {} if index is None else {"output_index": self.place_of(index)}
            if self._citations is None or index is None:
                self._emit(kind, **rest, **at)
                return
            for told, fields_ in self._citations.heard(kind, index, rest):
                self._emit(told, **fields_, **at)
        elif not call.asks_first:
            self._tell(call, kind, rest)

    def _tell(self, call: Call, kind: str, fields: RawObject) -> None:
        """The beginning of a call; its end is told once it was made."""
        at: dict[str, object] = {"item_id": call.id, "output_index": call.place}
        if kind == ADDED:
            self._emit(kind, item=call.item("in_progress"), output_index=call.place)
            self._emit(f"response.{call.kind}.in_progress", **at)
        elif isinstance(call.function, FileSearch):
            pass  # what is searched for stands in the item
        elif kind == f"{ARGUMENTS}delta":
            self._emit("response.mcp_call_arguments.delta", delta=fields["delta"], **at)
        elif kind == f"{ARGUMENTS}done":
            self._emit("response.mcp_call_arguments.done", arguments=fields["arguments"], **at)


def refused(turn: Turn, error: errors.GatewayError) -> tuple[int, bytes, bytes]:
    """The answer to a client that has seen nothing yet."""
    return turn.refusal or (error.status, b"content-type: application/json\r\n", error.body())
