"""What a call asks, opened so that its texts can be read and changed: JSON, or a form with files."""

from collections.abc import Mapping
from typing import Any, Final, final

import msgspec

from gateway.call import Call
from gateway.errors import BadRequest
from gateway.guards import texts as reading
from gateway.guards.texts import Text
from gateway.units.forms import Form, read_form

_NO_TEXT: Final = frozenset(
    {"model", "language", "response_format", "size", "quality", "user", "background", "output_format"}
)


@final
class Body:
    """`texts` in order. After they were changed, `write` puts them into the call."""

    def __init__(self, fields: dict[str, Any], texts: list[Text], form: Form | None) -> None:
        self.texts = texts
        self._fields = fields
        self._form = form

    def write(self, call: Call) -> None:
        """Raises BadRequest where the call is none any longer."""
        call.body = (
            msgspec.json.encode(self._fields) if self._form is None else _written(self._form, call.body, self._fields)
        )
        door, model = call.endpoint.door, call.request.model
        call.request = call.endpoint.parse(call.body) if door is None else door.read(call.body, call.exchange.headers)
        call.request.model = model


def opened(call: Call) -> Body:
    """Of what is no JSON, nothing: whoever answers it says what is wrong with it. Raises BadRequest for what nobody here can read."""
    kind = call.exchange.headers.get(b"content-type", b"")
    if call.endpoint.door is not None and kind.lstrip().lower().startswith(b"multipart/"):
        form = read_form(call.body, kind)
        fields: dict[str, Any] = {
            part.name: bytes(form.bytes_of(part)).decode("utf-8", "replace")
            for part in form.parts
            if not part.file and part.name not in _NO_TEXT
        }
        return Body(fields, [Text(fields, name, value, "user") for name, value in fields.items()], form)
    found = reading.read(call.body) or {}
    for name in ("input", "prompt"):
        if _has_tokens(found.get(name)):
            raise BadRequest(
                f"Guards cannot read tokens: send '{name}' as text", param=name, code="unsupported_by_guards"
            )
    return Body(found, reading.asked(found), None)


def _has_tokens(given: Any) -> bool:
    return isinstance(given, list) and any(isinstance(one, int) or _has_tokens(one) for one in given)


def _written(form: Form, body: bytes, fields: Mapping[str, str]) -> bytes:
    parts: list[bytes] = []
    at = 0
    for part in form.parts:
        if part.name in fields and not part.file:
            parts += (body[at : part.start], fields[part.name].encode())
            at = part.end
    return b"".join((*parts, body[at:]))
