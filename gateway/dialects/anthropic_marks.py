"""Breakpoints of Anthropic's prompt cache, set where a client has set none: `prompt_caching: auto` on a model.

Anthropic keeps a prompt up to each mark and reads it for a tenth of the price when the next one begins alike; writing costs a quarter more.
So marks stand where conversations go on from: behind the tools, behind the instructions, behind the last turn of the user's, and behind
the one before it, which the last call wrote. Four is the API's limit. https://docs.claude.com/en/docs/build-with-claude/prompt-caching
"""

from collections.abc import Mapping
from typing import Any, Final, final

import msgspec
from msgspec import Raw

from gateway.bodies import UpstreamFault
from gateway.dialect import NO_HEADERS, Dialect, Outgoing, Stream
from gateway.used import Usage

LEAST_BYTES: Final = 2048  # less is below the 1,024 tokens that the API keeps at least
TURNS: Final = 2

_MARK: Final = {"type": "ephemeral"}
_UNMARKABLE: Final = frozenset({"thinking", "redacted_thinking"})
_fields: Final = msgspec.json.Decoder(dict[str, Raw])
_list: Final = msgspec.json.Decoder(list[Raw])
_block: Final = msgspec.json.Decoder(dict[str, Any])
_value: Final = msgspec.json.Decoder()
_encode: Final = msgspec.json.Encoder().encode


@final
class Marked:
    """A dialect of Anthropic's whose requests are marked; everything else is the inner one's."""

    def __init__(self, inner: Dialect) -> None:
        self._inner = inner
        self.endpoints = inner.endpoints

    def authorization(self, api_key: str) -> tuple[tuple[str, str], ...]:
        return self._inner.authorization(api_key)

    def request(self, endpoint: str, body: bytes, model: str, headers: Mapping[bytes, bytes] = NO_HEADERS) -> Outgoing:
        made = self._inner.request(endpoint, body, model, headers)
        return made if endpoint == "count_tokens" else msgspec.structs.replace(made, body=marked(made.body))

    def answer(self, endpoint: str, body: bytes, model: str, asked: bytes = b"") -> tuple[bytes, Usage | None]:
        return self._inner.answer(endpoint, body, model, asked)

    def stream(self, endpoint: str, model: str, *, keep_usage: bool, asked: bytes = b"") -> Stream:
        return self._inner.stream(endpoint, model, keep_usage=keep_usage, asked=asked)

    def fault(self, status: int, body: bytes, headers: Mapping[bytes, bytes]) -> UpstreamFault:
        return self._inner.fault(status, body, headers)


def marked(body: bytes) -> bytes:
    """The request with marks; as it is where the client has its own, where it is short, and where it has another shape."""
    if len(body) < LEAST_BYTES or b'"cache_control"' in body:
        return body
    try:
        fields = _fields.decode(body)
        for name in ("tools", "system"):
            if name in fields:
                fields[name] = _last_marked(fields[name])
        fields["messages"] = _turns_marked(fields["messages"])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError):
        return body  # which Anthropic itself refuses
    return _encode(fields)


def _turns_marked(raw: Raw) -> Raw:
    """The user's last turns. Only these end a prompt that was sent before."""
    turns = _list.decode(raw)
    left = TURNS
    for index in range(len(turns) - 1, -1, -1):
        turn = _fields.decode(turns[index])
        if bytes(turn["role"]) != b'"user"':
            continue
        turn["content"] = _last_marked(turn["content"])
        turns[index] = Raw(_encode(turn))
        left -= 1
        if not left:
            break
    return Raw(_encode(turns))


def _last_marked(raw: Raw) -> Raw:
    """A text, or a list whose last block or tool gets the mark."""
    if bytes(raw).startswith(b'"'):
        text = _value.decode(raw)
        return Raw(_encode([{"type": "text", "text": text, "cache_control": _MARK}])) if text.strip() else raw
    blocks = _list.decode(raw)
    if not blocks:
        return raw
    last = _block.decode(blocks[-1])
    if last.get("type") in _UNMARKABLE or (last.get("type") == "text" and not str(last.get("text", "")).strip()):
        return raw  # the API refuses a mark there
    blocks[-1] = Raw(_encode({**last, "cache_control": _MARK}))
    return Raw(_encode(blocks))
