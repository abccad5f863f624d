"""Anthropic's messages: events put together to a message, and a message told in events."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

ENDED: Final = frozenset({"end_turn", "stop_sequence", "tool_use"})
_CALLS: Final = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})
_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode


def complete(message: Any) -> bool:
    return message["type"] == "message" and message.get("stop_reason") in ENDED and bool(message["content"])


def gathered(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Raises KeyError, and ValueError for what has no end."""
    message: dict[str, Any] = {}
    blocks: dict[int, dict[str, Any]] = {}
    inputs: dict[int, str] = {}
    for one in events:
        match one["type"]:
            case "message_start":
                message = dict(one["message"])
            case "content_block_start":
                blocks[one["index"]] = dict(one["content_block"])
            case "content_block_delta":
                _add(blocks[one["index"]], one["delta"], inputs, one["index"])
            case "message_delta":
                message |= one["delta"]
                message["usage"] = {**message.get("usage", {}), **_told(one.get("usage") or {})}
            case _:
                pass
    for index, text in inputs.items():
        blocks[index]["input"] = _decode(text or "{}")
    if not any(one["type"] == "message_stop" for one in events):
        raise ValueError("the message has no end")
    message["content"] = [blocks[index] for index in sorted(blocks)]
    return message


def told(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    usage = dict(message.get("usage") or {})
    opening = {**message, "content": [], "stop_reason": None, "stop_sequence": None}
    yield {"type": "message_start", "message": {**opening, "usage": {**usage, "output_tokens": 0}}}
    for index, block in enumerate(message["content"]):
        start, deltas = _parts(block)
        yield {"type": "content_block_start", "index": index, "content_block": start}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    ended = {"stop_reason": message.get("stop_reason"), "stop_sequence": message.get("stop_sequence")}
    yield {"type": "message_delta", "delta": ended, "usage": usage}
    yield {"type": "message_stop"}


def _parts(block: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """How a block begins, and what follows."""
    match block["type"]:
        case "text":
            cited = [{"type": "citations_delta", "citation": one} for one in block.get("citations") or ()]
            said = {"type": "text_delta", "text": block["text"]}
            return {**block, "text": "", **({"citations": []} if cited else {})}, [*cited, said]
        case "thinking":
            thought = {"type": "thinking_delta", "thinking": block["thinking"]}
            signed = {"type": "signature_delta", "signature": block.get("signature", "")}
            return {**block, "thinking": "", "signature": ""}, [thought, signed]
        case kind if kind in _CALLS:
            given = _encode(block.get("input") or {}).decode()
            return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": given}]
        case _:
            return dict(block), []


def _add(block: dict[str, Any], delta: Mapping[str, Any], inputs: dict[int, str], index: int) -> None:
    match delta["type"]:
        case "text_delta":
            block["text"] = block.get("text", "") + delta["text"]
        case "thinking_delta":
            block["thinking"] = block.get("thinking", "") + delta["thinking"]
        case "signature_delta":
            block["signature"] = delta["signature"]
        case "citations_delta":
            block["citations"] = [*(block.get("citations") or ()), delta["citation"]]
        case "input_json_delta":
            inputs[index] = inputs.get(index, "") + delta["partial_json"]
        case other:
            raise ValueError(f"a delta of the type {other!r} is not known")


def _told(usage: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in usage.items() if value is not None}
