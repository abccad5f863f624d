"""A request as the dialects need it: who asked, what was asked, and what an echo of it says."""

from typing import Any

import msgspec

JsonObject = dict[str, Any]


class Asked(msgspec.Struct, frozen=True):
    """`echo` names the caller and repeats the last user message, so that answers which cross over are seen."""

    model: str
    stream: bool
    include_usage: bool
    echo: str
    prompt_tokens: int
    fields: JsonObject


def read(body: bytes) -> Asked:
    """Never fails: what is not JSON asks for nothing."""
    try:
        fields = msgspec.json.decode(body) if body else {}
    except msgspec.DecodeError:
        fields = {}
    if not isinstance(fields, dict):
        fields = {}
    options = fields.get("stream_options")
    said = _said(fields)
    return Asked(
        model=str(fields.get("model", "")),
        stream=fields.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        echo=f"{fields.get('user') or '-'}|{said[-1] if said else ''}",
        prompt_tokens=sum(len(text.split()) for text in said),
        fields=fields,
    )


def pieces(text: str, count: int | None) -> list[str]:
    """The text word by word or, with `count`, in exactly so many pieces: joined at the end or followed by numbered words."""
    words = text.split(" ")
    words = [words[0], *(f" {word}" for word in words[1:])]
    if count is None or count == len(words):
        return words
    if count < len(words):
        kept = max(count, 1)
        return [*words[: kept - 1], "".join(words[kept - 1 :])]
    return [*words, *(f" w{number}" for number in range(len(words), count))]


def _said(fields: JsonObject) -> list[str]:
    if "prompt" in fields:
        return [str(fields["prompt"])]
    messages = fields.get("messages")
    if not isinstance(messages, list):
        return []
    return [_text(message) for message in messages if isinstance(message, dict) and message.get("role") == "user"]


def _text(message: JsonObject) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))
