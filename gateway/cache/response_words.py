"""The Responses API where a deployment speaks it itself: the last event has all of it, and a whole one is told item by item."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def complete(response: Any) -> bool:
    return response.get("status") == "completed" and bool(response.get("output"))


def gathered(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Raises ValueError for what has no end."""
    for one in reversed(events):
        if one["type"] == "response.completed":
            return dict(one["response"])
    raise ValueError("the response has no end")


def told(response: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for number, one in enumerate(_events(response)):
        yield {"type": one["type"], "sequence_number": number, **one}


def _events(response: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    opening = {**response, "status": "in_progress", "output": [], "usage": None}
    yield {"type": "response.created", "response": opening}
    yield {"type": "response.in_progress", "response": opening}
    for index, item in enumerate(response["output"]):
        place = {"output_index": index}
        match item.get("type"):
            case "message":
                yield {"type": "response.output_item.added", **place, "item": {**item, "content": []}}
                yield from _content(item, place)
            case "function_call":
                yield {"type": "response.output_item.added", **place, "item": {**item, "arguments": ""}}
                named = {**place, "item_id": item.get("id")}
                given = item["arguments"]
                yield {"type": "response.function_call_arguments.delta", **named, "delta": given}
                yield {"type": "response.function_call_arguments.done", **named, "arguments": given}
            case _:
                yield {"type": "response.output_item.added", **place, "item": item}
        yield {"type": "response.output_item.done", **place, "item": item}
    yield {"type": "response.completed", "response": response}


def _content(item: Mapping[str, Any], place: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for number, part in enumerate(item["content"]):
        named = {**place, "item_id": item.get("id"), "content_index": number}
        kind, name = ("refusal", "refusal") if part.get("type") == "refusal" else ("output_text", "text")
        yield {"type": "response.content_part.added", **named, "part": {**part, name: ""}}
        logprobs = {"logprobs": part.get("logprobs") or []} if kind == "output_text" else {}
        yield {"type": f"response.{kind}.delta", **named, "delta": part[name], **logprobs}
        yield {"type": f"response.{kind}.done", **named, name: part[name], **logprobs}
        yield {"type": "response.content_part.done", **named, "part": part}
