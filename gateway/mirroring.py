"""Copies of a route's or a prompt's requests to another of its versions: what was said to the client is kept beside, and compared.

Only for requests of a family that has such a shadow; for all others one look at an empty table is all there is to it.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, final

import msgspec

from gateway.exchange import Exchange
from gateway.journal_records import Routed
from gateway.routing.versions import Mirror, Versions

MAX_HEARD_BYTES: Final = 256 * 1024  # an answer that is longer is not compared


@final
class Heard:
    """An exchange that keeps what is answered through it; see `gateway.exchange.Exchange`. `to` is where it goes, if anywhere."""

    def __init__(self, to: Exchange) -> None:
        self._to = to
        self._parts = bytearray()
        self._whole = True
        self.status = 0

    @property
    def said(self) -> bytes | None:
        """None for what was too long."""
        return bytes(self._parts) if self._whole else None

    @property
    def headers(self) -> Mapping[bytes, bytes]:
        return self._to.headers

    @property
    def body(self) -> bytes:
        return self._to.body

    @property
    def started_at(self) -> float:
        return self._to.started_at

    @property
    def begun(self) -> bool:
        return self._to.begun

    def respond(self, status: int, head: bytes, body: bytes) -> None:
        self.status = status
        self._hear(body)
        self._to.respond(status, head, body)

    def begin(self, status: int, head: bytes) -> None:
        self.status = status
        self._to.begin(status, head)

    def begin_events(self, status: int, head: bytes) -> None:
        self.status = status
        self._to.begin_events(status, head)

    def send(self, data: bytes) -> None:
        self._hear(data)
        self._to.send(data)

    def send_chunk(self, data: bytes, chunk: bytes) -> None:
        self._hear(data)
        self._to.send_chunk(data, chunk)

    def way(self) -> None: ...  # all of it is to be heard

    def end(self) -> None:
        self._to.end()

    def break_off(self) -> None:
        self._whole = False
        self._to.break_off()

    @property
    def write_paused(self) -> bool:
        return self._to.write_paused

    async def drained(self) -> None:
        await self._to.drained()

    def _hear(self, data: bytes) -> None:
        if self._whole and len(self._parts) + len(data) <= MAX_HEARD_BYTES:
            self._parts += data
        else:
            self._whole = False


def mirror_of(versions: Versions, routed: Routed | None) -> Mirror | None:
    """The shadow of what was drawn: of the route, else of the prompt."""
    if routed is None:
        return None
    for kind, drawn in (("route", routed.route_version), ("prompt", routed.prompt_version)):
        if drawn is not None and (found := versions.mirrors.get((kind, drawn.rpartition("@")[0]))) is not None:
            return found
    return None


def agreement(one: Heard, other: Heard) -> float | None:
    """1 for the same answer, 0 for another; None where one of them has failed or cannot be read."""
    if one.status != 200 or other.status != 200:
        return None
    said = [None if each.said is None else _words(each.said) for each in (one, other)]
    return None if None in said else float(said[0] == said[1])


def _words(answer: bytes) -> object:
    """What a chat or a completion says and calls, without regard to white space; None for anything else."""
    try:
        if answer.lstrip().startswith((b"data:", b"event:", b":")):
            return _streamed(answer)
        choices = msgspec.json.decode(answer)["choices"]
        return [_said(choice.get("message") or choice) for choice in choices]
    except (msgspec.DecodeError, AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return None


def _streamed(answer: bytes) -> object:
    texts: dict[int, str] = {}
    calls: dict[tuple[int, int], str] = {}
    for line in answer.splitlines():
        if not line.startswith(b"data:") or line[5:].strip() == b"[DONE]":
            continue
        for choice in msgspec.json.decode(line[5:]).get("choices", ()):
            at = choice.get("index", 0)
            delta = choice.get("delta") or choice
            texts[at] = texts.get(at, "") + (delta.get("content") or delta.get("text") or "")
            for call in delta.get("tool_calls") or ():
                place = at, call.get("index", 0)
                function = call.get("function") or {}
                calls[place] = calls.get(place, "") + (function.get("name") or "") + (function.get("arguments") or "")
    return [
        [_plain(texts[at]), [_plain(text) for (of, _), text in sorted(calls.items()) if of == at]]
        for at in sorted(texts)
    ]


def _said(message: Mapping[str, Any]) -> list[object]:
    calls = [call.get("function") or {} for call in message.get("tool_calls") or ()]
    texts = [(call.get("name") or "") + (call.get("arguments") or "") for call in calls]
    return [_plain(message.get("content") or message.get("text") or ""), [_plain(text) for text in texts]]


def _plain(text: object) -> object:
    """JSON is compared as such, everything else word by word."""
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text.split()
