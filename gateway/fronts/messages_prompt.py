"""Prompts that are kept here, in a request of the Messages API: their messages are chat's, and its are not."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from gateway import errors
from gateway.dialects.anthropic_messages import parts
from gateway.dialects.anthropic_wire import Text
from gateway.dialects.chat import Message
from gateway.wire import array_in

# Chat's names, and what they are called here. Other parameters have another shape, or do not exist.
_NAMES: Final[Mapping[str, str]] = {
    "max_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "stop": "stop_sequences",
    "stop_sequences": "stop_sequences",
    "thinking": "thinking",
}
_OF_A_COUNT: Final = frozenset({"thinking"})
_messages: Final = msgspec.json.Decoder(list[Message])


def put_before(
    fields: dict[str, Any], messages: Sequence[Mapping[str, Any]], params: Mapping[str, Any], *, counts: bool
) -> None:
    """Changes `fields`, a request: instructions go to `system`, turns before its own, parameters where it has none. `counts`: it asks for
    a number of tokens and takes fewer of them. Raises BadRequest.
    """
    try:
        system, turns = parts(_messages.decode(msgspec.json.encode(messages)))
    except (msgspec.DecodeError, errors.BadRequest) as error:
        raise _unfit(f"its messages cannot be told in the Messages API: {error}") from None
    fields["messages"] = [*turns, *array_in(fields, "messages")]
    if system:
        own = fields.get("system")
        fields["system"] = [*system, *([Text(own)] if isinstance(own, str) else array_in(fields, "system"))]
    for name, value in params.items():
        here = _NAMES.get(name)
        if here is None:
            raise _unfit(f"its parameter '{name}' has no place in the Messages API")
        if not counts or here in _OF_A_COUNT:
            fields.setdefault(here, [value] if here == "stop_sequences" and isinstance(value, str) else value)


def _unfit(reason: str) -> errors.BadRequest:
    return errors.BadRequest(f"This prompt cannot be used here: {reason}", param="prompt.id", code="unsupported_value")
