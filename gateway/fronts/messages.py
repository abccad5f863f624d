"""Anthropic's Messages API for clients: https://docs.claude.com/en/api/messages.

At Anthropic itself a request goes through, elsewhere it becomes a chat.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, final

import msgspec
from msgspec import Raw

from gateway import errors
from gateway.dialect import Dialect, Stream
from gateway.dialects.anthropic_native import AnthropicNative
from gateway.exchange import Exchange
from gateway.front import Toward
from gateway.fronts import messages_errors
from gateway.fronts.messages_answer import message
from gateway.fronts.messages_chat import chat
from gateway.fronts.messages_exchange import MessagesExchange
from gateway.fronts.messages_prompt import put_before
from gateway.fronts.messages_request import Metadata
from gateway.fronts.messages_stream import MessagesFromChat

_fields: Final = msgspec.json.Decoder(dict[str, Raw])
_metadata: Final = msgspec.json.Decoder(Metadata)


@final
class Messages:
    """`new_id` makes what is unique: not every server gives its answers an id."""

    native: Mapping[str, Dialect] = MappingProxyType({"anthropic": AnthropicNative()})

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id

    def chat(self, body: bytes, toward: Toward) -> bytes:
        return chat(body, toward)

    def answer(self, chat: bytes, model: str, asked: bytes) -> bytes:  # noqa: ARG002  # an answer does not repeat its request
        return message(chat, model, self._new_id())

    def stream(self, chat: Stream, model: str, asked: bytes) -> Stream:  # noqa: ARG002  # as above
        return MessagesFromChat(chat, model, self._new_id())

    def error(self, error: errors.GatewayError, request_id: str) -> bytes:
        return messages_errors.body(error, request_id)

    def error_event(self, error: errors.GatewayError, request_id: str) -> bytes:
        return messages_errors.event(error, request_id)

    def anonymous(self, body: bytes) -> bytes:
        fields = _fields.decode(body)
        fields.pop("metadata", None)
        return msgspec.json.encode(fields)

    def end_user(self, metadata: Raw) -> str | None:
        try:
            return _metadata.decode(metadata).user_id
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return None  # whoever parses the request says what is wrong

    def prompted(
        self, fields: dict[str, Any], messages: Sequence[Mapping[str, Any]], params: Mapping[str, Any], endpoint: str
    ) -> None:
        put_before(fields, messages, params, counts=endpoint == "count_tokens")

    def exchange(self, exchange: Exchange) -> Exchange:
        return MessagesExchange(exchange)
