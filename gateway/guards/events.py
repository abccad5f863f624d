"""A stream of server-sent events that is read text by text: each text of an answer slides through its own window.

Chat's chunks, completions, Anthropic's messages and responses. An event keeps its place and loses what may not go on yet; what a window
held back to the end comes in one more event of the same shape before the text's end is told.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, final

import msgspec

from gateway.errors import UpstreamError
from gateway.guards.texts import said, without_logprobs
from gateway.guards.window import Piece

DAMAGED: Final = "The upstream sent an event that is not the JSON it should be"
MOST_PIECES: Final = 4096  # texts of one stream that may be open at the same time
Place = tuple[Any, ...]
NewPiece = Callable[[bool], Piece]
"""For one text; whether it is the inside of a JSON document."""

_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode
_CLOSES: Final = ("response.completed", "response.incomplete", "response.failed", "message_stop", "message_delta")


@final
class Events:
    """`new_piece` makes what a text goes through, `heard` is told what came out. `names`: names of fields are texts, too.

    Raises whatever a piece raises, and UpstreamError for what is no event.
    """

    def __init__(
        self, new_piece: NewPiece, heard: Callable[[Place, str], None] = lambda *_: None, *, names: bool = True
    ) -> None:
        self._new_piece = new_piece
        self._names = names
        self._heard = heard
        self._open: dict[Place, tuple[Piece, Callable[[str], bytes]]] = {}
        self._tail = b""

    def feed(self, data: bytes) -> bytes:
        """Of whole events and pieces of them: what may go on."""
        if self._tail:
            data = self._tail + data
        *events, self._tail = data.split(b"\n\n")
        return b"".join([self._passed(one) for one in events if one])

    def finish(self) -> bytes:
        """What is left at the end."""
        tail, self._tail = self._tail, b""
        return (self._passed(tail) if tail.strip() else b"") + self._closed(lambda _: True)

    def _passed(self, event: bytes) -> bytes:
        lines = event.split(b"\n")
        payload = b"\n".join(line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:"))
        if not payload:
            return event + b"\n\n"
        if payload == b"[DONE]":
            return self._closed(lambda _: True) + event + b"\n\n"
        try:
            fields = _decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise UpstreamError(DAMAGED) from None
        if not isinstance(fields, dict):
            raise UpstreamError(DAMAGED)
        named = [line for line in lines if line.startswith((b"event:", b"id:"))]
        head = b"".join(line + b"\n" for line in named)
        if isinstance(fields.get("choices"), list):
            return self._chunk(fields, head)
        return self._typed(fields, head)

    def _chunk(self, fields: dict[str, Any], head: bytes) -> bytes:
        """Chat's and completions': any number of texts of any number of choices."""
        without_logprobs(fields)
        before = b""
        empty = not fields.get("usage")
        for choice in fields["choices"]:
            if not isinstance(choice, dict):
                raise UpstreamError(DAMAGED)
            number, ended = choice.get("index", 0), choice.get("finish_reason") is not None
            leaves = list(_leaves(choice))
            for path, holder, name, in_json in leaves:
                holder[name] = self._next(
                    (number, path), _chunk_maker(fields, number, path, head), holder[name], in_json
                )
                if ended or name == "name":  # a name comes in one piece
                    holder[name] += self._rest((number, path))
            if ended:
                before += self._closed(lambda place, number=number: place[0] == number)  # type: ignore[misc]
            empty = empty and not ended and bool(leaves) and not _says(choice)
        return before if empty else before + _event(fields, head)

    def _typed(self, fields: dict[str, Any], head: bytes) -> bytes:
        """Events with a type: one text at a time, and at its end often all of it once more."""
        kind = fields.get("type")
        if kind == "content_block_delta" and isinstance(fields.get("delta"), dict):
            return self._delta(fields, head, ("block", fields.get("index")), fields["delta"])
        if isinstance(kind, str) and kind.endswith(".delta") and isinstance(fields.get("delta"), str):
            if isinstance(fields.get("logprobs"), list):
                fields["logprobs"] = []
            place = (
                "output",
                fields.get("output_index"),
                kind,
                fields.get("content_index"),
                fields.get("summary_index"),
            )
            return self._delta(fields, head, place, fields)
        ended = self._ended_by(kind, fields)
        self._whole(fields)
        return ended + _event(fields, head)

    def _delta(self, fields: dict[str, Any], head: bytes, place: Place, delta: dict[str, Any]) -> bytes:
        for name in ("text", "thinking", "partial_json", "delta"):
            value = delta.get(name)
            if isinstance(value, str):
                in_json = name == "partial_json" or "arguments" in str(fields.get("type"))
                delta[name] = self._next((*place, name), _typed_maker(fields, delta, name, head), value, in_json)
                return _event(fields, head) if delta[name] or not value else b""
        self._whole(delta)  # a citation repeats a text in one piece
        return _event(fields, head)

    def _whole(self, fields: dict[str, Any]) -> None:
        for text in said(fields):
            if text.holder is None and not self._names:
                continue
            piece = self._new_piece(text.in_json)
            made = piece.feed(text.value) + piece.finish()
            if made != text.value:
                text.put(made)

    def _ended_by(self, kind: Any, fields: Mapping[str, Any]) -> bytes:
        if kind == "content_block_stop":
            index = fields.get("index")
            return self._closed(lambda place: place[0] == "block" and place[1] == index)
        if kind in _CLOSES:
            return self._closed(lambda _: True)
        if isinstance(kind, str) and kind.startswith("response.") and kind.endswith(".done"):
            output, delta = fields.get("output_index"), f"{kind[:-5]}.delta"
            whole = kind in {"response.output_item.done", "response.content_part.done"}
            return self._closed(
                lambda place: place[0] == "output" and place[1] == output and (whole or place[2] == delta)
            )
        return b""

    def _next(self, place: Place, put: Callable[[str], bytes], text: str, in_json: bool) -> str:
        known = self._open.get(place)
        if known is None and len(self._open) >= MOST_PIECES:
            raise UpstreamError(f"The upstream's stream has more than {MOST_PIECES} texts at the same time")
        piece = self._new_piece(in_json) if known is None else known[0]
        self._open[place] = piece, put
        return self._told(place, piece.feed(text))

    def _rest(self, place: Place) -> str:
        return self._told(place, self._open.pop(place)[0].finish())

    def _told(self, place: Place, text: str) -> str:
        if text:
            self._heard(place, text)
        return text

    def _closed(self, ends: Callable[[Place], bool]) -> bytes:
        out = []
        for place in [place for place in self._open if ends(place)]:
            put = self._open[place][1]
            rest = self._rest(place)
            if rest:
                out.append(put(rest))
        return b"".join(out)


def _says(choice: Mapping[str, Any]) -> bool:
    """Whether there is more to a chunk than texts that may not go on yet."""
    delta = choice.get("delta")
    return any(delta.values()) if isinstance(delta, dict) else bool(choice.get("text"))


def _leaves(choice: dict[str, Any]) -> Iterator[tuple[Place, Any, Any, bool]]:
    """The texts of a choice's delta. Tool calls are told apart by their `index`, which is not their place in the list."""
    if isinstance(choice.get("text"), str):
        yield ("text",), choice, "text", False
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        return
    waiting: list[tuple[Place, Any]] = [(("delta",), delta)]
    texts = {(id(text.holder), text.name): text.in_json for text in said(delta)}
    while waiting:
        path, holder = waiting.pop()
        for name, value in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
            number = value.get("index", name) if isinstance(holder, list) and isinstance(value, dict) else name
            if isinstance(value, (dict, list)):
                waiting.append(((*path, number), value))
            elif (id(holder), name) in texts:
                yield (*path, number), holder, name, texts[id(holder), name]


def _chunk_maker(fields: Mapping[str, Any], number: Any, path: Place, head: bytes) -> Callable[[str], bytes]:
    """What makes one more chunk, with some text of one kind."""
    shared = {
        name: fields[name] for name in ("id", "object", "created", "model", "system_fingerprint") if name in fields
    }

    def put(text: str) -> bytes:
        value: Any = text
        for name in reversed(path[1:]):
            value = (
                [{"index": name, **value}]
                if isinstance(name, int) and isinstance(value, dict)
                else [value]
                if isinstance(name, int)
                else {name: value}
            )
        choice = {"index": number, "text": text} if path == ("text",) else {"index": number, "delta": value}
        return _event({**shared, "choices": [{**choice, "logprobs": None, "finish_reason": None}]}, head)

    return put


def _typed_maker(fields: dict[str, Any], delta: dict[str, Any], name: str, head: bytes) -> Callable[[str], bytes]:
    def put(text: str) -> bytes:
        delta[name] = text
        return _event(fields, head)

    return put


def _event(fields: Mapping[str, Any], head: bytes) -> bytes:
    return b"%bdata: %b\n\n" % (head, _encode(fields))
