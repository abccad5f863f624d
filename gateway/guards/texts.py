"""The texts of a request and of an answer, in whichever API: every string that a model reads or writes, and whose it is.

Everything is looked at but what is known to be none: names of parameters that steer, ids, pictures, sound and signatures.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec

from gateway.guards.report import Refused

# Of a request: what steers, and is no text.
_STEERING: Final = frozenset({
    "model", "stream", "stream_options", "user", "service_tier", "tool_choice", "prompt_cache_key", "prompt_cache_retention",
    "safety_identifier", "include", "encoding_format", "previous_response_id", "conversation", "reasoning_effort", "verbosity",
    "modalities",
    "voice", "size", "quality", "output_format", "background", "style", "truncation", "speed", "language",
    "anthropic_version", "anthropic_beta", "container", "betas", "input_type", "embedding_types",
})  # fmt: skip
# Anywhere: what a model reads as something else than text, or not at all.
_NO_TEXT: Final = frozenset({
    "role", "type", "id", "tool_call_id", "tool_use_id", "call_id", "item_id", "response_id", "object", "status", "phase", "detail",
    "cache_control", "file_id", "mime_type", "mimeType", "media_type", "format", "data", "file_data", "signature", "thought_signature",
    "thoughtSignature", "encrypted_content", "encrypted_index", "finish_reason", "finishReason", "stop_reason", "system_fingerprint",
    "model", "service_tier", "b64_json", "partial_image_b64", "obfuscation", "container_id", "file_ids", "vector_store_ids", "$schema",
    "$ref", "modelVersion", "responseId",
})  # fmt: skip
_IN_JSON: Final = frozenset({"arguments", "partial_json"})
_SYSTEM: Final = frozenset({"system", "instructions", "tools", "functions"})
_decode: Final = msgspec.json.Decoder().decode


class Text(NamedTuple):
    """One string: where it stands, whose it is, and whether it is the inside of a JSON document."""

    holder: Any  # a dict or a list; None for the name of a field, which nobody changes
    name: Any  # its key or place in there
    value: str
    role: str
    in_json: bool = False

    def put(self, value: str) -> None:
        """Raises Refused for the name of a field."""
        if self.holder is None:
            raise Refused("A guard would have to change the name of a field, and refuses it instead")
        self.holder[self.name] = value


def read(body: bytes) -> dict[str, Any] | None:
    """The fields of a request or an answer; None for what is not a JSON object."""
    try:
        fields = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def asked(fields: dict[str, Any]) -> list[Text]:
    """The texts of a request, in order."""
    found: list[Text] = []
    for name, value in fields.items():
        if name in _STEERING:
            continue
        role = "system" if name in _SYSTEM else "user"
        if isinstance(value, str):
            found.append(Text(fields, name, value, role))
        else:
            found += every(value, role)
    return found


def said(fields: Any) -> list[Text]:
    """The texts of a whole answer, or of one event of it."""
    return list(every(fields, "assistant"))


def every(value: Any, role: str) -> Iterator[Text]:
    """Without recursion: a request may be as deep as it likes."""
    waiting: list[tuple[Any, str]] = [(value, role)]
    while waiting:
        holder, whose = waiting.pop()
        if isinstance(holder, dict):
            named = holder.get("role")
            whose = named if isinstance(named, str) else whose
            inner = list(holder.items())
            yield from (Text(None, None, name, whose) for name in holder if _is_unusual(name))
        elif isinstance(holder, list):
            inner = list(enumerate(holder))
        else:
            continue
        deeper = []
        for name, one in inner:
            if isinstance(one, str):
                if one and not _is_none(name, one):
                    yield Text(holder, name, one, whose, name in _IN_JSON)
            elif isinstance(one, (dict, list)):
                deeper.append((one, whose))
        waiting.extend(reversed(deeper))


def without_logprobs(value: Any) -> None:
    """They spell the answer out, token by token."""
    for choice in value.get("choices") or () if isinstance(value, dict) else ():
        if isinstance(choice, dict) and choice.get("logprobs") is not None:
            choice["logprobs"] = None


def _is_unusual(name: str) -> bool:
    """Whether a field's name may be something else: none of those that an API has."""
    return len(name) > 5 and not name.replace("_", "").isalpha()


def _is_none(name: Any, value: str) -> bool:
    return name in _NO_TEXT or (name in {"url", "image_url", "file_url"} and value.startswith("data:"))
