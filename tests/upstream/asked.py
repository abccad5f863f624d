"""A request as the dialects need it: who asked, what was asked, and what an echo of it says."""

import email
import email.message
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


def read(body: bytes, content_type: str = "") -> Asked:
    """Never fails: what is neither JSON nor a form asks for nothing."""
    try:
        fields = msgspec.json.decode(body) if body and "multipart" not in content_type else {}
    except msgspec.DecodeError:
        fields = {}
    if "multipart" in content_type:
        fields = _form(body, content_type)
    if not isinstance(fields, dict):
        fields = {}
    options = fields.get("stream_options")
    said = _said(fields)
    return Asked(
        model=str(fields.get("model", "")),
        stream=fields.get("stream") is True or fields.get("stream") == "true" or fields.get("stream_format") == "sse",
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


def _form(body: bytes, content_type: str) -> JsonObject:
    """Texts, and bytes of files, by name; what comes twice is a list. Python's own reader of mail: not the gateway's."""
    message = email.message_from_bytes(b"content-type: " + content_type.encode() + b"\r\n\r\n" + body)
    fields: JsonObject = {}
    for part in message.get_payload() if message.is_multipart() else ():
        assert isinstance(part, email.message.Message)
        name = str(part.get_param("name", header="content-disposition"))
        raw = part.get_payload(decode=True)
        assert isinstance(raw, bytes)
        value: object = raw if part.get_filename() is not None else raw.decode()
        known = fields.get(name)
        fields[name] = value if known is None else [*(known if isinstance(known, list) else [known]), value]
    return fields


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
