"""A deployment that speaks the Responses API itself: its bytes are followed as far as truth and bills need it, and go on under our ids."""

from typing import Final, final

import msgspec
from msgspec import Raw

from gateway import errors
from gateway.bodies import NULL, RawObject, UpstreamFault
from gateway.dialects.events import EventReader
from gateway.dialects.failures import failed
from gateway.responses.frame import Frame, Problem, Status, problem_of, visible
from gateway.responses.items import ENCRYPTED, encode, given, kind_of, shown
from gateway.responses.sealed import MARK
from gateway.responses.writer import event
from gateway.usage import from_responses
from gateway.usage_reports import ResponsesUsage
from gateway.used import Usage
from gateway.wire import present

DAMAGED: Final = "The upstream sent an event that is not the JSON it should be"
ENDS: Final = frozenset(("response.completed", "response.incomplete", "response.failed"))
_OPENING: Final = frozenset(("response.created", "response.in_progress", "response.queued"))
_ADDED: Final = frozenset(("response.content_part.added", "response.reasoning_summary_part.added"))  # empty as yet
_SAY_NOTHING: Final = frozenset(("message", "reasoning"))  # items that begin empty
_CHATS: Final = ("max_completion_tokens", "max_tokens")
_OURS: Final = ("previous_response_id", "conversation", "background")


class _Item(msgspec.Struct, gc=False):
    type: str = ""


class Answer(msgspec.Struct, gc=False):
    """What is read of a response object."""

    object: str = ""
    status: str | None = None
    usage: ResponsesUsage | None = None
    error: UpstreamFault | str | None = None
    output: list[_Item] = []

    @property
    def used(self) -> Usage | None:
        """With its web searches, which are billed by the search."""
        if self.usage is None:
            return None
        searches = sum(item.type == "web_search_call" for item in self.output)
        used = from_responses(self.usage)
        return msgspec.structs.replace(used, search_units=searches) if searches else used


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    response: Answer | None = None
    item: _Item | None = None
    delta: Raw = NULL
    error: UpstreamFault | str | None = None
    message: str | None = None
    code: str | None = None
    param: str | None = None

    @property
    def says(self) -> bool:
        """Whether the client knows something of the answer by it, after which it cannot begin anew elsewhere."""
        if self.type == "response.output_item.added":
            return self.item is None or self.item.type not in _SAY_NOTHING
        return self.type not in _OPENING and self.type not in _ADDED and bytes(self.delta) != b'""'


_event: Final = msgspec.json.Decoder(_Event)
_answer: Final = msgspec.json.Decoder(Answer)
_object: Final = msgspec.json.Decoder(RawObject)
_text: Final = msgspec.json.Decoder(str)
_number: Final = msgspec.json.Decoder(int)
_includes: Final = msgspec.json.Decoder(list[str])


def request(body: bytes, model: str) -> bytes:
    """The client's body with all of its history in it, for an upstream that keeps nothing. Thoughts come sealed, so they can return."""
    fields = _object.decode(body)
    for name in _OURS:
        fields.pop(name, None)
    for name in _CHATS:  # the parameters of a route may name them
        limit = fields.pop(name, NULL)
        if present(limit):
            fields.setdefault("max_output_tokens", limit)
    items = [_unnamed(one) for one in given(fields.get("input", NULL)) if not _foreign(one)]
    fields |= {"model": Raw(encode(model)), "store": Raw(b"false"), "input": Raw(encode(items))}
    include = _includes.decode(fields["include"]) if present(fields.get("include", NULL)) else []
    if present(fields.get("reasoning", NULL)) and ENCRYPTED not in include:
        fields["include"] = Raw(encode([*include, ENCRYPTED]))
    return encode(fields)


def answer(body: bytes) -> tuple[bytes, Usage | None]:
    """A complete answer and what it used. Raises UpstreamError."""
    try:
        read = _answer.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise errors.UpstreamError(f"The upstream's answer is not the JSON it should be: {error}") from None
    if read.object != "response" or read.status == "failed":
        raise failed(_fault(read.error), "The upstream reported an error")
    return body, read.used


@final
class NativeStream:
    """`gateway.dialect.Stream` over events that go on as they are."""

    __slots__ = ("_reader", "content", "done", "error", "events", "reported")

    def __init__(self) -> None:
        self._reader = EventReader()
        self.content = False
        self.done = False
        self.events = 0
        self.error: errors.GatewayError | None = None
        self.reported: Usage | None = None

    @property
    def whole(self) -> bool:
        return self.done and self.error is None

    def feed(self, data: bytes) -> bytes:
        if self.error is not None:
            return b""
        try:
            payloads = self._reader.feed(data)
        except errors.UpstreamError as error:
            self.error = error
            return b""
        return b"".join(b"data: %b\n\n" % payload for payload in payloads if self._passes(payload))

    def close(self) -> bytes:
        return self.feed(b"\n\n")

    def _passes(self, payload: bytes) -> bool:
        if self.error is not None or self.done or payload == b"[DONE]":
            return False
        try:
            read = _event.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.error = errors.UpstreamError(DAMAGED)
            return False
        if read.type in ENDS and read.response is not None:
            self.reported = read.response.used
        if read.type in {"error", "response.failed"} or not read.type:
            self.error = failed(_told(read), "The upstream reported an error inside its stream")
            return False
        if read.type in ENDS and read.response is None:
            self.error = errors.UpstreamError(DAMAGED)
            return False
        if read.type in ENDS:
            self.content = self.done = True
        elif read.says:
            self.content = True
            self.events += read.type.endswith(".delta")
        return True


@final
class Reader:
    """The same events under our ids: what `gateway.responses.writer.Writer` is for a chat."""

    def __init__(self, frame: Frame, *, told: int = 0) -> None:
        self._frame = frame
        self._sequence = told
        self._created = told > 0
        self._output: dict[int, Raw] = {}
        self._last: Raw | None = None

    @property
    def response(self) -> bytes:
        if self._last is not None:
            return bytes(self._last)
        return encode(self._frame.response("in_progress", self._done()))

    def start(self) -> list[bytes]:
        """The upstream's own events begin the stream."""
        return []

    def take(self, payload: bytes) -> list[bytes]:
        """One event; what ends the response waits for `finish`. Raises UpstreamError for what is none."""
        try:
            return self._take(_object.decode(payload))
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError) as error:
            raise errors.UpstreamError(f"{DAMAGED}: {error}") from None

    def _take(self, fields: RawObject) -> list[bytes]:
        kind = _text.decode(fields["type"])
        if self._created and kind in {"response.created", "response.queued"}:
            return []
        if kind in ENDS:
            self._last = self._frame.own(fields["response"])
            visible(self._last, self._frame.include)
            return []
        if "response" in fields:
            fields["response"] = visible(self._frame.own(fields["response"]), self._frame.include)
        if kind == "response.output_item.done":
            self._output[_number.decode(fields["output_index"])] = fields["item"]
        if "item" in fields:
            fields["item"] = shown(fields["item"], self._frame.include)
        return [self._numbered(kind, fields)]

    def whole(self, body: bytes) -> None:
        """A complete answer. Raises UpstreamError."""
        try:
            self._last = self._frame.own(Raw(body))
            visible(self._last, self._frame.include)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise errors.UpstreamError(f"The upstream's answer is not the JSON it should be: {error}") from None

    def finish(self) -> list[bytes]:
        return [self.close()]

    def close(self) -> bytes:
        """The last event of all."""
        assert self._last is not None
        status = _text.decode(_object.decode(self._last)["status"])
        kind = "incomplete" if status == "cancelled" else status
        return self._numbered(f"response.{kind}", {"response": visible(self._last, self._frame.include)})

    def fail(self, error: errors.GatewayError) -> list[bytes]:
        told = {"code": error.code or error.type, "message": error.message, "param": error.param}
        first = self._numbered("error", {name: Raw(encode(value)) for name, value in told.items()})
        self.end("failed", problem_of(error.code, error.message))
        return [first, self.close()]

    def end(self, status: Status, problem: Problem | None = None) -> None:
        self._last = Raw(encode(self._frame.response(status, self._done(), error=problem)))

    def _done(self) -> list[Raw]:
        return [self._output[at] for at in sorted(self._output)]

    def _numbered(self, kind: str, fields: RawObject) -> bytes:
        named = {"type": Raw(encode(kind)), "sequence_number": Raw(b"%d" % self._sequence)}
        self._sequence += 1
        return event(kind, named | {name: value for name, value in fields.items() if name not in named})


def _foreign(item: Raw) -> bool:
    """A thought that the upstream cannot read: none that it sealed itself."""
    if kind_of(item) != "reasoning":
        return False
    sealed = _object.decode(item).get("encrypted_content", NULL)
    return not present(sealed) or bytes(sealed).startswith(b'"%b' % MARK.encode())


def _unnamed(item: Raw) -> Raw:
    """Without an id where it is ours and not the upstream's: of what the client said."""
    fields = _object.decode(item)
    kind = kind_of(item)
    if kind.endswith("_output") or (kind == "message" and bytes(fields.get("role", NULL)) != b'"assistant"'):
        fields.pop("id", None)
    return Raw(encode(fields))


def _told(read: _Event) -> UpstreamFault:
    if read.response is not None:
        return _fault(read.response.error)
    if read.error is not None:
        return _fault(read.error)
    return _typed(UpstreamFault(read.message, None, read.param, read.code))


def _fault(error: UpstreamFault | str | None) -> UpstreamFault:
    if isinstance(error, UpstreamFault):
        return _typed(error)
    return UpstreamFault(error)


def _typed(fault: UpstreamFault) -> UpstreamFault:
    """Responses' errors have a code where others have a type."""
    if fault.type is not None:
        return fault
    kinds = {"rate_limit_exceeded": "rate_limit_error", "invalid_prompt": "invalid_request_error"}
    kind = kinds.get(fault.code) if isinstance(fault.code, str) else None
    return msgspec.structs.replace(fault, type=kind)
