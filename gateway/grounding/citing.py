"""An exchange around another one that adds to an answer what its marks cite, whole or event by event.

Text goes through as it came, marks and all: where a citation belongs can be told from its `index`. Of the model that quotes, citations
are what it says itself.
"""

from collections.abc import Mapping
from typing import Any, Final, final

import msgspec
from msgspec import Raw

from gateway.call import Call
from gateway.exchange import Exchange
from gateway.grounding.citations import Citations
from gateway.grounding.marks import Marker, Note, read
from gateway.grounding.sources import Sources
from gateway.providers import QUOTES

Json = dict[str, Any]

_decode: Final = msgspec.json.Decoder(Json).decode
_raw: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_encode: Final = msgspec.json.Encoder().encode
_DONE: Final = b"[DONE]"
_DELTA: Final = "content_block_delta"
_ENDS: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})


@final
class Citing:
    """See `gateway.exchange.Exchange`. `call` says, once it is answered, by whom."""

    __slots__ = ("_blocks", "_call", "_citations", "_markers", "_named", "_sources", "_texts", "inner")

    def __init__(self, inner: Exchange, call: Call, sources: Sources) -> None:
        self.inner = inner
        self._call = call
        self._named = call.model.name
        self._sources = sources
        self._citations = Citations(sources)
        self._markers: dict[int, Marker] = {}  # by choice, or by block
        self._blocks: dict[int, set[int]] = {}  # what each has cited
        self._texts: dict[int, str] = {}  # of the model that quotes

    @property
    def headers(self) -> Mapping[bytes, bytes]:
        return self.inner.headers

    @property
    def body(self) -> bytes:
        return self.inner.body

    @property
    def started_at(self) -> float:
        return self.inner.started_at

    @property
    def begun(self) -> bool:
        return self.inner.begun

    def respond(self, status: int, head: bytes, body: bytes) -> None:
        self.inner.respond(status, head, self._whole(body) if status == 200 else body)

    def begin(self, status: int, head: bytes) -> None:
        self.inner.begin(status, head)

    def begin_events(self, status: int, head: bytes) -> None:
        self.inner.begin_events(status, head)

    def send(self, data: bytes) -> None:
        if not (data.startswith((b"data:", b"event:")) and data.endswith(b"\n\n")):
            self.inner.send(data)  # a comment, or no events at all
            return
        self.inner.send(b"".join(map(self._event, (one + b"\n\n" for one in data.split(b"\n\n") if one))))

    def send_chunk(self, data: bytes, chunk: bytes) -> None:  # noqa: ARG002 — the port's names
        self.send(data)

    def way(self) -> None: ...

    def end(self) -> None:
        self.inner.end()

    def break_off(self) -> None:
        self.inner.break_off()

    @property
    def write_paused(self) -> bool:
        return self.inner.write_paused

    async def drained(self) -> None:
        await self.inner.drained()

    # Whole answers

    @property
    def _quotes(self) -> bool:
        return self._call.record.provider == QUOTES

    def _whole(self, body: bytes) -> bytes:
        answer = _decode(body)
        if isinstance(answer.get("choices"), list):
            for choice in answer["choices"]:
                message = choice.get("message")
                if isinstance(message, dict) and isinstance(message.get("content"), str):
                    self._annotate(message, self._noted(message, message["content"]))
            return _encode(self._marked(answer))
        if answer.get("type") == "message" and isinstance(answer.get("content"), list):
            for block in answer["content"]:
                if isinstance(block, dict) and isinstance(block.get("text"), str):
                    self._locate(block, block["text"])
            return _encode(answer)
        if answer.get("object") == "response":
            fields = _raw(body)
            return _encode(self._cited(fields))
        return body

    def _locate(self, block: Json, text: str) -> None:
        """A block of Anthropic's, where citations are of the whole block."""
        numbers = dict.fromkeys(note.number for note in read(text, self._sources.known, strip=False).notes)
        if numbers:
            given = block.get("citations")
            here = given if isinstance(given, list) else ()
            block["citations"] = [*here, *map(self._sources.location, numbers)]

    def _noted(self, message: Json, text: str) -> list[Note]:
        if self._quotes:
            return self._quoted(message.get("citations"), text)
        return list(read(text, self._sources.known, strip=False).notes)

    def _quoted(self, citations: Any, text: str) -> list[Note]:
        """Of quotations, in the order of the text. Each is told where it stands in its file, not in the prompt."""
        notes = []
        read = 0
        for one in citations if isinstance(citations, list) else ():
            quote = str(one.get("quote"))
            number = self._sources.quoted(str(one.get("source")), quote)
            if number is not None:
                mark = f"[{one.get('index')}]"
                at = max(0, text.find(mark, read))
                read = max(read, at + 1)
                notes.append(Note(at, number, at + len(mark)))
                one.update(self._sources.place(number, quote))
        return notes

    def _annotate(self, said: Json, notes: list[Note]) -> None:
        """`said` is a message or a delta."""
        if notes:
            given = said.get("annotations")
            said["annotations"] = [*(given if isinstance(given, list) else ()), *map(self._annotation, notes)]

    def _annotation(self, note: Note) -> Json:
        return self._sources.link(note.number, note.index, note.end) | {"citation": self._sources.citation(note.number)}

    def _marked(self, answer: Json) -> Json:
        """An answer that somebody else gave says so."""
        if self._quotes and self._call.model.name != self._named:
            answer["penstock"] = {"fallback": self._call.model.name, "instead_of": self._named}
        return answer

    def _cited(self, response: dict[str, Raw]) -> dict[str, Raw]:
        """A response of a deployment that speaks that API itself."""
        output = response.get("output")
        if output is None or not bytes(output).startswith(b"["):
            return response
        items = [self._citations.item(one) for one in msgspec.json.decode(output, type=list[Raw])]
        return response | {"output": Raw(_encode(items))}

    # Streams

    def _event(self, event: bytes) -> bytes:
        at = event.find(b"data:")
        payload = event[at + 5 :].strip() if at >= 0 else b""
        if payload == _DONE:
            return b"".join(map(_told, self._rest())) + event
        if not payload.startswith(b"{"):
            return event
        if event.startswith(b"event: response.") or payload.startswith(b'{"type":"response.'):
            return self._response_event(payload)
        if event.startswith(b"event: content_block_"):
            return self._block_event(event, _decode(payload))
        if not payload.find(b'"choices"') >= 0:
            return event
        return self._chunk(event, _decode(payload))

    def _block_event(self, event: bytes, fields: Json) -> bytes:
        """Of Anthropic's stream: behind a piece of text what it cites, each passage once in a block."""
        index, delta = fields.get("index", 0), fields.get("delta")
        if fields.get("type") == "content_block_stop":
            marker = self._markers.pop(index, None)
            rest = () if marker is None else marker.close().notes
            return self._located(index, rest, self._blocks.pop(index, set())) + event
        text = delta.get("text") if isinstance(delta, dict) and delta.get("type") == "text_delta" else None
        if not isinstance(text, str):
            return event
        if index not in self._markers:
            self._markers[index] = Marker(self._sources.known, strip=False)
        told = self._blocks.setdefault(index, set())
        return event + self._located(index, self._markers[index].feed(text).notes, told)

    def _located(self, index: int, notes: tuple[Note, ...], told: set[int]) -> bytes:
        made = []
        for note in notes:
            if note.number not in told:
                told.add(note.number)
                delta = {"type": "citations_delta", "citation": self._sources.location(note.number)}
                made.append(_event(_DELTA, {"type": _DELTA, "index": index, "delta": delta}))
        return b"".join(made)

    def _chunk(self, event: bytes, chunk: Json) -> bytes:
        """The chunk, before it what the last one left, behind it what it cites."""
        before: list[Json] = []
        after: list[Json] = []
        changed = False
        for choice in chunk.get("choices") or ():
            index, delta = choice.get("index", 0), choice.get("delta")
            text = delta.get("content") if isinstance(delta, dict) else None
            if isinstance(text, str) and text:
                after += self._said(index, text)
            if choice.get("finish_reason") is not None:
                before += self._left(index)
                if self._quotes and isinstance(delta, dict):
                    self._annotate(delta, self._quoted(delta.get("citations"), self._texts.get(index, "")))
                    self._marked(chunk)
                    changed = True
        made = _told(chunk) if changed else event
        frame = {name: value for name, value in chunk.items() if name not in {"choices", "usage", "penstock"}}
        return b"".join((*(_told(frame | one) for one in before), made, *(_told(frame | one) for one in after)))

    def _said(self, index: int, text: str) -> list[Json]:
        if self._quotes:
            self._texts[index] = self._texts.get(index, "") + text
            return []
        if index not in self._markers:
            self._markers[index] = Marker(self._sources.known, strip=False)
        return self._notes(index, self._markers[index].feed(text).notes)

    def _left(self, index: int) -> list[Json]:
        marker = self._markers.pop(index, None)
        return [] if marker is None else self._notes(index, marker.close().notes)

    def _rest(self) -> list[Json]:
        return [one for index in tuple(self._markers) for one in self._left(index)]

    def _notes(self, index: int, notes: tuple[Note, ...]) -> list[Json]:
        if not notes:
            return []
        delta = {"annotations": [self._annotation(one) for one in notes]}
        return [{"choices": [{"index": index, "delta": delta, "finish_reason": None}]}]

    def _response_event(self, payload: bytes) -> bytes:
        fields = _raw(payload)
        kind = msgspec.json.decode(fields["type"], type=str)
        if kind in _ENDS:
            fields["response"] = Raw(_encode(self._cited(_raw(fields["response"]))))
            return _event(kind, fields)
        if "output_index" not in fields:
            return _event(kind, fields)
        index = msgspec.json.decode(fields["output_index"], type=int)
        rest = {name: value for name, value in fields.items() if name not in {"type", "output_index"}}
        told = self._citations.heard(kind, index, rest)
        return b"".join(_event(name, {"type": name, "output_index": index, **more}) for name, more in told)


def _told(chunk: Json) -> bytes:
    return b"data: %b\n\n" % _encode(chunk)


def _event(kind: str, fields: Mapping[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), _encode(fields))
