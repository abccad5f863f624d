"""What a client makes of a stream: every chunk is read by the types of OpenAI's own SDK, then put together as its users do."""

import json
from typing import Any

import msgspec
from openai.types.chat import ChatCompletionChunk
from openai.types.completion_usage import CompletionUsage


class Heard(msgspec.Struct):
    """A whole answer, put together."""

    ids: set[str] = set()
    models: set[str] = set()
    content: str = ""
    refusal: str = ""
    reasoning: str = ""
    calls: dict[int, dict[str, str]] = {}
    thinking_blocks: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    finish: list[str] = []
    usage: CompletionUsage | None = None
    roles: list[str] = []


def chunks(out: bytes) -> list[ChatCompletionChunk]:
    """The chunks of a translated stream, in order; comments are none."""
    events = [event for event in out.split(b"\n\n") if event and not event.startswith(b":")]
    assert all(event.startswith(b"data: ") for event in events)
    return [ChatCompletionChunk.model_validate_json(event[6:], strict=True) for event in events]


def hear(out: bytes) -> Heard:
    heard = Heard()
    for chunk in chunks(out):
        heard.ids.add(chunk.id)
        heard.models.add(chunk.model)
        heard.usage = chunk.usage or heard.usage
        for choice in chunk.choices:
            assert choice.index == 0
            delta = choice.delta
            extra = delta.model_extra or {}
            heard.roles.extend([delta.role] if delta.role else [])
            heard.content += delta.content or ""
            heard.refusal += delta.refusal or ""
            heard.reasoning += extra.get("reasoning_content", "")
            heard.thinking_blocks.extend(extra.get("thinking_blocks", []))
            heard.annotations.extend(extra.get("annotations", []))
            heard.finish.extend([choice.finish_reason] if choice.finish_reason else [])
            for call in delta.tool_calls or []:
                known = heard.calls.setdefault(call.index, {"id": "", "name": "", "arguments": ""})
                known["id"] += call.id or ""
                if call.function is not None:
                    known["name"] += call.function.name or ""
                    known["arguments"] += call.function.arguments or ""
    for known in heard.calls.values():
        json.loads(known["arguments"])  # what a client does first
    return heard
