"""A chat's answer as a response, event by event: what it says becomes items that open, grow and close.

Pure: chunks in, events out. A whole completion is taken as one chunk, so that both ways end in the same object.
"""

from collections.abc import Callable
from typing import Final, final

import msgspec
from msgspec import Raw

from gateway import errors
from gateway.bodies import NULL
from gateway.bodies import Usage as ReportedUsage
from gateway.responses.frame import Frame, Problem, Status, problem_of
from gateway.responses.items import LOGPROBS, encode, shown
from gateway.responses.sealed import Thought, packed
from gateway.usage import from_openai
from gateway.used import Usage
from gateway.wire import present

Json = dict[str, object]


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _Custom(msgspec.Struct, gc=False):
    name: str | None = None
    input: str | None = None


class _Call(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None
    custom: _Custom | None = None
    extra_content: Raw = NULL


class _Link(msgspec.Struct, gc=False):
    url: str = ""


class _Picture(msgspec.Struct, gc=False):
    image_url: _Link | None = None


class _Said(msgspec.Struct, gc=False):
    """A delta, or the message of a whole completion. Thoughts have two names among those who tell them."""

    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: Raw = NULL
    thinking_blocks: list[Raw] | None = None
    extra_content: Raw = NULL
    tool_calls: list[_Call] | None = None
    annotations: list[Raw] | None = None
    images: list[_Picture] | None = None


class _Logprobs(msgspec.Struct, gc=False):
    content: list[Raw] | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Said | None = None
    message: _Said | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Chunk(msgspec.Struct, gc=False):
    """`penstock`: another model answered than the one that was asked."""

    choices: list[_Choice] = []
    usage: ReportedUsage | None = None
    penstock: Raw = NULL


class _Citation(msgspec.Struct, gc=False):
    url: str = ""
    title: str = ""
    start_index: int = 0
    end_index: int = 0


class _Annotation(msgspec.Struct, gc=False):
    """A file's fields stand beside the type, also where that is a link's, as in chats."""

    type: str = ""
    url_citation: _Citation | None = None
    index: int = 0
    file_id: str = ""
    filename: str = ""

    def made(self) -> Json | None:
        """As the Responses API has it."""
        if self.file_id:
            return {"type": "file_citation", "index": self.index, "file_id": self.file_id, "filename": self.filename}
        if self.type == "url_citation" and self.url_citation is not None:
            return {"type": self.type, **msgspec.structs.asdict(self.url_citation)}
        return None


_chunk: Final = msgspec.json.Decoder(_Chunk)
_annotation: Final = msgspec.json.Decoder(_Annotation)
_text: Final = msgspec.json.Decoder(str)
_REASONS: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}


@final
class _Open:
    """An item that still grows, at `index` of the output."""

    __slots__ = ("call_id", "id", "index", "kind", "logprobs", "name", "notes", "text")

    def __init__(self, id_: str, index: int, kind: str, name: str = "", call_id: str = "") -> None:
        self.id = id_
        self.index = index
        self.kind = kind  # thought, output_text, refusal, function_call, custom_tool_call
        self.name = name
        self.call_id = call_id
        self.text: list[str] = []
        self.notes: list[Json] = []
        self.logprobs: list[Raw] = []

    @property
    def whole(self) -> str:
        return "".join(self.text)


@final
class Writer:
    """One response's. `summarised`: the client asked for summaries of thoughts, so they are told as such. `unix` is the clock.

    `told`: how many events the response has had before; with some, it is known to be created.
    """

    def __init__(self, frame: Frame, unix: Callable[[], float], *, summarised: bool = False, told: int = 0) -> None:
        self._frame = frame
        self._unix = unix
        self._summarised = summarised
        self._sequence = told
        self._output: list[Raw] = []
        self._places = 0  # of the output, those of open items too
        self._said: _Open | None = None  # a thought or words: one at a time
        self._calls: dict[int, _Open] = {}
        self._thought = Thought()
        self._finish: str | None = None
        self._usage: Usage | None = None
        self._marked: Raw = NULL
        self._ended: Json | None = None

    @property
    def response(self) -> bytes:
        """What there is by now, with all that clients only see if they ask for it."""
        return encode(self._ended or self._frame.response("in_progress", self._done(), usage=self._usage))

    def start(self) -> list[bytes]:
        """What every stream of a response begins with."""
        shape = self._frame.response("in_progress")
        created = [] if self._sequence else [self._event("response.created", response=shape)]
        return [*created, self._event("response.in_progress", response=shape)]

    def take(self, payload: bytes) -> list[bytes]:
        """The events of one chunk, or of a whole completion. Raises UpstreamError for what is neither."""
        out: list[bytes] = []
        try:
            self._take(_chunk.decode(payload), out)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise errors.UpstreamError(f"The upstream's answer is not the JSON it should be: {error}") from None
        return out

    def finish(self) -> list[bytes]:
        """The answer is whole: what closes its items and, as the last one, the response."""
        reason = _REASONS.get(self._finish or "")
        out: list[bytes] = []
        self._close_all(out, "completed" if reason is None else "incomplete")
        status: Status = "completed" if reason is None else "incomplete"
        self._ended = self._frame.response(
            status, self._output, usage=self._usage, reason=reason, completed_at=int(self._unix())
        )
        if present(self._marked):
            self._ended["penstock"] = self._marked
        return [*out, self.close()]

    def close(self) -> bytes:
        """The last event of all. There is none for what was cancelled: that is incomplete, and its status says why."""
        ended = self._ended
        assert ended is not None
        status = ended["status"]
        kind = "incomplete" if status == "cancelled" else status
        return self._event(f"response.{kind}", response=self._visible(ended))

    def fail(self, error: errors.GatewayError) -> list[bytes]:
        """The answer broke off."""
        told = self._event("error", code=error.code or error.type, message=error.message, param=error.param)
        self.end("failed", problem_of(error.code, error.message))
        return [told, self.close()]

    def end(self, status: Status, problem: Problem | None = None) -> None:
        """Without a word to anybody: what was said so far is kept."""
        self._ended = self._frame.response(status, self._done(), usage=self._usage, error=problem)

    def _take(self, chunk: _Chunk, out: list[bytes]) -> None:
        if chunk.usage is not None:
            self._usage = from_openai(chunk.usage)
        if present(chunk.penstock):
            self._marked = chunk.penstock
        for choice in chunk.choices:
            said = choice.delta or choice.message
            if choice.index == 0 and said is not None:
                self._hear(said, choice.logprobs, out)
            if choice.index == 0 and choice.finish_reason is not None:
                self._finish = choice.finish_reason

    def _hear(self, said: _Said, logprobs: _Logprobs | None, out: list[bytes]) -> None:
        if said.thinking_blocks:
            self._thought.blocks.extend(said.thinking_blocks)
        if present(said.extra_content):
            self._thought.extra = said.extra_content
        for number, call in enumerate(said.tool_calls or ()):
            if present(call.extra_content):
                opened = self._calls.get(number if call.index is None else call.index)
                self._thought.calls[call.id or (opened.call_id if opened is not None else "")] = call.extra_content
        thought = said.reasoning_content or (
            _text.decode(said.reasoning) if bytes(said.reasoning).startswith(b'"') else ""
        )
        if thought:
            self._think(thought, out)
        elif said.thinking_blocks and self._said is None:
            self._open("thought", out)
        for kind, text in (("output_text", said.content), ("refusal", said.refusal)):
            if text:
                self._say(kind, text, logprobs, out)
        for note in said.annotations or ():
            self._annotate(note, out)
        for picture in said.images or ():
            self._draw(picture, out)
        for number, call in enumerate(said.tool_calls or ()):
            self._call(number if call.index is None else call.index, call, out)

    def _think(self, text: str, out: list[bytes]) -> None:
        opened = self._opened("thought", out)
        if not opened.text:  # one may be sealed and nothing else
            kind = "reasoning_summary_part" if self._summarised else "content_part"
            part = {"type": "summary_text" if self._summarised else "reasoning_text", "text": ""}
            out.append(self._event(f"response.{kind}.added", part=part, **self._at(opened)))
        opened.text.append(text)
        name = "response.reasoning_summary_text.delta" if self._summarised else "response.reasoning_text.delta"
        out.append(self._event(name, delta=text, **self._at(opened)))

    def _say(self, kind: str, text: str, logprobs: _Logprobs | None, out: list[bytes]) -> None:
        opened = self._opened(kind, out)
        opened.text.append(text)
        if kind == "refusal":
            out.append(self._event("response.refusal.delta", delta=text, **self._at(opened)))
            return
        odds = (logprobs.content or []) if logprobs is not None else []
        opened.logprobs.extend(odds)
        told = odds if LOGPROBS in self._frame.include else []
        out.append(self._event("response.output_text.delta", delta=text, logprobs=told, **self._at(opened)))

    def _annotate(self, raw: Raw, out: list[bytes]) -> None:
        made = _annotation.decode(raw).made()
        if made is None or self._said is None or self._said.kind != "output_text":
            return
        self._said.notes.append(made)
        out.append(
            self._event(
                "response.output_text.annotation.added",
                annotation=made,
                annotation_index=len(self._said.notes) - 1,
                **self._at(self._said),
            )
        )

    def _draw(self, picture: _Picture, out: list[bytes]) -> None:
        """A picture comes whole, as that of a tool would."""
        link = picture.image_url
        _, found, data = ("" if link is None else link.url).partition(";base64,")
        if found:
            self._close_said(out)
            opened = self._open("picture", out)
            opened.text.append(data)
            self._close_said(out)

    def _call(self, index: int, call: _Call, out: list[bytes]) -> None:
        opened = self._calls.get(index)
        if opened is None:
            self._close_said(out)
            kind = "function_call" if call.custom is None else "custom_tool_call"
            opened = self._calls[index] = self._open(kind, out, call)
        text = (call.custom.input if call.custom is not None else None) or (
            call.function.arguments if call.function is not None else None
        )
        if text:
            opened.text.append(text)
            name = "function_call_arguments" if opened.kind == "function_call" else "custom_tool_call_input"
            out.append(self._event(f"response.{name}.delta", delta=text, **self._at(opened)))

    def _opened(self, kind: str, out: list[bytes]) -> _Open:
        if self._said is not None and self._said.kind == kind:
            return self._said
        self._close_said(out)
        return self._open(kind, out)

    def _open(self, kind: str, out: list[bytes], call: _Call | None = None) -> _Open:
        index = self._places
        self._places += 1
        prefix = {"thought": "rs", "picture": "ig", "function_call": "fc", "custom_tool_call": "ctc"}.get(kind, "msg")
        id_ = f"{prefix}_{self._frame.stem}{index:04x}"
        named = None if call is None else call.custom or call.function
        opened = _Open(id_, index, kind, (named.name if named is not None else None) or "")
        if call is not None:
            opened.call_id = call.id or f"call_{self._frame.stem}{index:04x}"
        else:
            self._said = opened
        empty = self._item(opened, "in_progress", bare=True)
        out.append(self._event("response.output_item.added", item=empty, output_index=index))
        if kind in {"output_text", "refusal"}:
            out.append(self._event("response.content_part.added", part=_part(opened, bare=True), **self._at(opened)))
        return opened

    def _close_said(self, out: list[bytes], status: str = "completed") -> None:
        opened, self._said = self._said, None
        if opened is None:
            return
        text, at = opened.whole, self._at(opened)
        if not text or opened.kind == "picture":
            pass
        elif opened.kind == "thought" and self._summarised:
            out.append(self._event("response.reasoning_summary_text.done", text=text, **at))
            part: Json = {"type": "summary_text", "text": text}
            out.append(self._event("response.reasoning_summary_part.done", part=part, **at))
        else:
            match opened.kind:
                case "thought":
                    out.append(self._event("response.reasoning_text.done", text=text, **at))
                case "refusal":
                    out.append(self._event("response.refusal.done", refusal=text, **at))
                case _:
                    told = opened.logprobs if LOGPROBS in self._frame.include else []
                    out.append(self._event("response.output_text.done", text=text, logprobs=told, **at))
            out.append(self._event("response.content_part.done", part=_shown_part(opened, self._frame), **at))
        self._close(opened, status, out)

    def _close(self, opened: _Open, status: str, out: list[bytes]) -> None:
        item = Raw(encode(self._item(opened, status)))
        if opened.kind == "thought":
            self._thought = Thought()
        while len(self._output) <= opened.index:
            self._output.append(NULL)
        self._output[opened.index] = item
        told = shown(item, self._frame.include)
        out.append(self._event("response.output_item.done", item=told, output_index=opened.index))

    def _close_all(self, out: list[bytes], status: str) -> None:
        self._close_said(out, status)
        for opened in self._calls.values():
            if opened.kind == "function_call":
                done = self._event(
                    "response.function_call_arguments.done",
                    arguments=opened.whole,
                    name=opened.name,
                    **self._at(opened),
                )
            else:
                done = self._event("response.custom_tool_call_input.done", input=opened.whole, **self._at(opened))
            out.append(done)
            self._close(opened, status, out)
        self._calls = {}
        if self._thought:  # what came after the thought itself: a seal for a call, or for the words
            self._open("thought", out)
            self._close_said(out)

    def _done(self) -> list[Raw]:
        """Whatever was said, where items are still open."""
        made = {at: item for at, item in enumerate(self._output) if item is not NULL}
        for opened in (*(() if self._said is None else (self._said,)), *self._calls.values()):
            made[opened.index] = Raw(encode(self._item(opened, "incomplete")))
        return [made[at] for at in sorted(made)]

    def _item(self, opened: _Open, status: str, *, bare: bool = False) -> Json:
        match opened.kind:
            case "thought":
                return self._thought_item(opened, status, bare=bare)
            case "picture":
                made: Json = {"id": opened.id, "type": "image_generation_call", "status": status}
                return made | {"result": None if bare else opened.whole}
            case "function_call" | "custom_tool_call":
                content = "arguments" if opened.kind == "function_call" else "input"
                return {
                    "id": opened.id,
                    "type": opened.kind,
                    "status": status,
                    "call_id": opened.call_id,
                    "name": opened.name,
                    content: "" if bare else opened.whole,
                }
            case _:
                content_parts = [] if bare else [_part(opened)]
                return {
                    "id": opened.id,
                    "type": "message",
                    "role": "assistant",
                    "status": status,
                    "content": content_parts,
                }

    def _thought_item(self, opened: _Open, status: str, *, bare: bool) -> Json:
        made: Json = {"id": opened.id, "type": "reasoning", "summary": []}
        text = opened.whole
        if text and not bare:
            kind = "summary_text" if self._summarised else "reasoning_text"
            made["summary" if self._summarised else "content"] = [{"type": kind, "text": text}]
        sealed = None if bare else packed(self._thought)
        if sealed is not None:
            made["encrypted_content"] = sealed
        return made | {"status": status}

    def _at(self, opened: _Open) -> Json:
        """Where in the response something happens."""
        at: Json = {"item_id": opened.id, "output_index": opened.index}
        if opened.kind == "thought" and self._summarised:
            return at | {"summary_index": 0}
        return at if opened.kind in {"function_call", "custom_tool_call"} else at | {"content_index": 0}

    def _visible(self, response: Json) -> Json:
        output = response["output"]
        assert isinstance(output, list)
        return response | {"output": [shown(one, self._frame.include) for one in output]}

    def _event(self, kind: str, **fields: object) -> bytes:
        made = event(kind, {"type": kind, "sequence_number": self._sequence} | fields)
        self._sequence += 1
        return made


def event(kind: str, fields: object) -> bytes:
    """One server-sent event as the Responses API names them."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), encode(fields))


def _part(opened: _Open, *, bare: bool = False) -> Json:
    text = "" if bare else opened.whole
    match opened.kind:
        case "refusal":
            return {"type": "refusal", "refusal": text}
        case "thought":
            return {"type": "reasoning_text", "text": text}
        case _:
            notes, odds = ([], []) if bare else (opened.notes, opened.logprobs)
            return {"type": "output_text", "text": text, "annotations": notes, "logprobs": odds}


def _shown_part(opened: _Open, frame: Frame) -> Json:
    part = _part(opened)
    return part | {"logprobs": []} if "logprobs" in part and LOGPROBS not in frame.include else part
