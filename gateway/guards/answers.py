"""A whole answer in any of the APIs, opened so that its texts can be read and changed."""

from collections.abc import Mapping
from typing import Any, final

import msgspec

from gateway.errors import UpstreamError
from gateway.guards import texts as reading
from gateway.guards.texts import Text


@final
class Answer:
    """A whole answer: JSON, or a text."""

    def __init__(self, body: bytes) -> None:
        self.fields: dict[str, Any] = {}
        self._text: list[str] = []
        found = reading.read(body)
        if found is not None:
            self.fields = found
            self.texts = reading.said(found)
            return
        try:
            self._text = [body.decode()]
            self.texts = [Text(self._text, 0, self._text[0], "assistant")]
        except UnicodeDecodeError:
            raise UpstreamError("The upstream's answer is neither JSON nor a text that guards could read") from None

    def written(self) -> bytes:
        if self._text:
            return self._text[0].encode()
        reading.without_logprobs(self.fields)
        return msgspec.json.encode(self.fields)


def content(fields: Mapping[str, Any]) -> str:
    """The text of the first choice, in any of the APIs."""
    choices = fields.get("choices")
    if isinstance(choices, list) and choices:
        message = choices[0].get("message") or {}
        content = message.get("content", choices[0].get("text"))
        return content if isinstance(content, str) else ""
    parts: list[Any] = fields.get("content") or [
        part for item in fields.get("output") or () for part in item.get("content") or ()
    ]
    return "".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))
