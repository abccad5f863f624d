"""The items of a conversation as the Responses API has them: messages, calls, their results, and thoughts.

An item is kept as the JSON that it came as, with an id and whole parts; only who needs a field looks into it.
"""

import re
from collections.abc import Collection, Sequence
from typing import Final

import msgspec
from msgspec import Raw

from gateway import errors
from gateway.bodies import NULL, RawObject
from gateway.wire import present

MAX_ITEMS: Final = 10_000  # of one request, with all that went before
PREFIXES: Final = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
}
ENCRYPTED: Final = "reasoning.encrypted_content"
LOGPROBS: Final = "message.output_text.logprobs"
IMAGE_URLS: Final = "message.input_image.image_url"
FOUND: Final = "file_search_call.results"

_ID: Final = re.compile(rb'"[!#-\[\]-~]{1,256}"')  # no escapes: it is looked up as it is
_WITH_STATUS: Final = frozenset(("message", "function_call", "function_call_output"))
_SOMETIMES: Final = (b'"encrypted_content"', b'"logprobs"', b'"input_image"', b'"file_search_call"')
_MESSAGE_TYPE: Final = b'"message"'
_MESSAGE: Final = Raw(_MESSAGE_TYPE)
_COMPLETED: Final = Raw(b'"completed"')
_object: Final = msgspec.json.Decoder(RawObject)
_list: Final = msgspec.json.Decoder(list[Raw])
_text: Final = msgspec.json.Decoder(str)
_parts: Final = msgspec.json.Decoder(list[RawObject])
encode: Final = msgspec.json.Encoder().encode


def given(value: Raw) -> list[Raw]:
    """`input` as items: a text is a user's message. Raises BadRequest."""
    if not present(value):
        return []
    try:
        if bytes(value).startswith(b'"'):
            return [Raw(encode({"type": "message", "role": "user", "content": _text.decode(value)}))]
        found = _list.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.BadRequest(f"Invalid 'input': {error}", param="input", code="invalid_type") from None
    for number, one in enumerate(found):
        if not bytes(one).startswith(b"{"):
            raise errors.BadRequest(
                f"Invalid 'input[{number}]': expected an item", param=f"input[{number}]", code="invalid_type"
            )
    return found


def whole(items: Sequence[Raw], stem: str, param: str = "input") -> list[Raw]:
    """The same with a type, an id, a status and parts where the client left them out. `stem` makes the ids of this request its own.

    Raises BadRequest.
    """
    return [_whole(one, number, stem, param) for number, one in enumerate(items)]


def listed(items: Sequence[Raw]) -> Raw:
    return Raw(encode(items))


def id_of(item: Raw) -> str:
    """Of an item that `whole` has made or an answer brought."""
    value = _object.decode(item).get("id", NULL)
    return _text.decode(value) if present(value) else ""


def kind_of(item: Raw) -> str:
    """Its type. What is no text is none that anybody knows."""
    value = _object.decode(item).get("type", NULL)
    if not present(value):
        return "message"
    return _text.decode(value) if bytes(value).startswith(b'"') else ""


def shown(item: Raw, include: Collection[str]) -> Raw:
    """The item as a client gets it that did not ask for more: thoughts unsealed, log probabilities, pictures and what searches found
    only if included."""
    raw = bytes(item)
    if not any(name in raw for name in _SOMETIMES):
        return item
    fields = _object.decode(item)
    if FOUND not in include and bytes(fields.get("type", NULL)) == b'"file_search_call"':
        fields["results"] = NULL
    if ENCRYPTED not in include and "encrypted_content" in fields:
        del fields["encrypted_content"]
    content = fields.get("content", NULL)
    if bytes(fields.get("type", NULL)) == _MESSAGE_TYPE and bytes(content).startswith(b"["):
        parts = _parts.decode(content)
        for part in parts:
            if LOGPROBS not in include and "logprobs" in part:
                part["logprobs"] = Raw(b"[]")
            if IMAGE_URLS not in include and bytes(part.get("type", NULL)) == b'"input_image"':
                part.pop("image_url", None)
        fields["content"] = Raw(encode(parts))
    return Raw(encode(fields))


def page(
    items: Sequence[Raw], *, after: str | None, limit: int, ascending: bool, include: Collection[str]
) -> dict[str, object]:
    """A page in OpenAI's shape. Raises NotFound for a cursor that is none of the items'."""
    ordered = list(items) if ascending else list(reversed(items))
    start = 0
    if after is not None:
        start = next((at + 1 for at, one in enumerate(ordered) if id_of(one) == after), 0)
        if not start:
            raise errors.NotFound(f"There is no item '{after}' here", param="after", code="item_not_found")
    found = ordered[start : start + limit]
    ids = [id_of(one) for one in found]
    return {
        "object": "list",
        "data": [shown(one, include) for one in found],
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
        "has_more": len(ordered) > start + limit,
    }


def _whole(item: Raw, number: int, stem: str, param: str) -> Raw:
    try:
        fields = _object.decode(item)
        kind = kind_of(item)
        if kind == "message":
            fields = {"type": _MESSAGE} | fields
            content = fields.get("content", NULL)
            if bytes(content).startswith(b"["):
                _parts.decode(content)
            else:
                fields["content"] = _parted(content, assistant=bytes(fields.get("role", NULL)) == b'"assistant"')
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        at = f"{param}[{number}]"
        raise errors.BadRequest(f"Invalid '{at}': {error}", param=at, code="invalid_type") from None
    named = fields.get("id", NULL)
    if present(named) and not _ID.fullmatch(bytes(named)):
        raise errors.BadRequest(f"Invalid '{param}[{number}].id'", param=f"{param}[{number}].id", code="invalid_value")
    if not present(named):
        fields = {"id": Raw(encode(f"{PREFIXES.get(kind, 'item')}_{stem}{number:04x}"))} | fields
    if kind in _WITH_STATUS and not present(fields.get("status", NULL)):
        fields["status"] = _COMPLETED
    return Raw(encode(fields))


def _parted(text: Raw, *, assistant: bool) -> Raw:
    said = _text.decode(text)
    part: dict[str, object] = {"type": "output_text" if assistant else "input_text", "text": said}
    if assistant:
        part["annotations"] = []
    return Raw(encode([part]))
