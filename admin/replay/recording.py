"""What was asked and answered once, and what came of asking it again."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

PATHS: Final = {
    "chat": "chat/completions",
    "completions": "completions",
    "responses": "responses",
    "messages": "messages",
    "embeddings": "embeddings",
    "rerank": "rerank",
}
_OWN: Final = frozenset({"stream", "stream_options", "user"})  # of whoever asked, or of how they wanted to be told


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """One answer. `text` is its JSON; `cost_nanousd` None: not known."""

    status: int
    text: str | None
    latency_ms: float
    cost_nanousd: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Recording(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request as it was recorded, redacted, with its answer; `again` is what another model answered."""

    id: str
    endpoint: str
    request: str
    reply: Reply
    model: str | None = None
    again: Reply | None = None


def asked(recording: Recording, model: str | None, changes: Mapping[str, Any]) -> bytes:
    """The request for another time: whole instead of as a stream, for `model` and with `changes` by path (`prompt.version`).

    Raises ValueError for a request that was cut, or that cannot be changed so.
    """
    try:
        body = msgspec.json.decode(recording.request)
    except msgspec.DecodeError:
        raise ValueError("the request was not recorded whole") from None
    if not isinstance(body, dict):
        raise TypeError("the request is no object")
    kept = {name: value for name, value in body.items() if name not in _OWN}
    if model is not None:
        kept["model"] = model
    for path, value in changes.items():
        _set(kept, path.split("."), value)
    return msgspec.json.encode(kept)


def _set(body: dict[str, Any], path: list[str], value: Any) -> None:
    *above, name = path
    for part in above:
        inner = body.setdefault(part, {})
        if not isinstance(inner, dict):
            raise TypeError(f"{'.'.join(path)}: {part} is no object in the request")
        body = inner
    body[name] = value
