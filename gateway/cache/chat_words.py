"""Chat and completions: chunks put together to an answer, and an answer told in chunks."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from gateway.cache.entry import Words
from gateway.cache.events import event, payloads
from gateway.used import Usage

# Ended by itself; some servers say `eos` for it, and DeepSeek and Mistral nothing else than OpenAI.
ENDED: Final = frozenset({"stop", "tool_calls", "function_call", "eos", "end_turn", "stop_sequence"})
_REPLACED: Final = frozenset({"role", "type", "id", "index", "expires_at"})
_HEAD: Final = ("id", "created", "model", "service_tier", "system_fingerprint")
_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode


def complete(answer: Any) -> bool:
    choices = answer["choices"]
    return bool(choices) and not answer.get("error") and all(_ended(choice) for choice in choices)


def apart(events: Sequence[Mapping[str, Any]], used: Usage | None) -> tuple[list[bytes], bytes]:
    """The chunks without usage, and the usage object that they brought, or that `used` stands for."""
    report: Any = None
    content = []
    for one in events:
        found = one.get("usage")
        report = found or report
        if "usage" in one:
            one = {name: value for name, value in one.items() if name != "usage"}  # noqa: PLW2901 — the same without
        if one.get("choices") or found is None:
            content.append(event(one))
    report = report or (None if used is None else report_of(used))
    return content, b"" if report is None else _encode(report)


def report_of(used: Usage) -> dict[str, Any]:
    """Usage in OpenAI's words."""
    made: dict[str, Any] = {
        "prompt_tokens": used.input,
        "completion_tokens": used.output,
        "total_tokens": used.input + used.output,
    }
    if used.cached_read:
        made["prompt_tokens_details"] = {"cached_tokens": used.cached_read}
    if used.reasoning:
        made["completion_tokens_details"] = {"reasoning_tokens": used.reasoning}
    return made


def usage_event(content: bytes, report: bytes) -> bytes:
    """The chunk that ends a stream whose client asked for its usage."""
    if report in (b"", b"null"):
        return b""
    first = _decode(next(payloads(content)))
    head = _head(first)
    return event({**head, "object": first.get("object"), "choices": [], "usage": msgspec.Raw(report)})


def gathered(events: Sequence[Mapping[str, Any]], words: Words) -> dict[str, Any]:
    """The answer that the chunks are parts of."""
    choices: dict[int, dict[str, Any]] = {}
    head: dict[str, Any] = {}
    for one in events:
        head = {**_head(one), **head}
        for choice in one.get("choices") or ():
            _add(choices.setdefault(choice.get("index", 0), _opened(choice.get("index", 0), words)), choice)
    every = [choices[index] for index in sorted(choices)]
    for choice in every:
        for call in choice.get("message", {}).get("tool_calls") or ():
            call.pop("index", None)
    return {**head, "object": "chat.completion" if words == "chat" else "text_completion", "choices": every}


def told(answer: Mapping[str, Any], words: Words) -> Iterator[dict[str, Any]]:
    """The answer in chunks: each choice's message, then its end."""
    head = {**_head(answer), "object": "chat.completion.chunk" if words == "chat" else "text_completion"}
    for choice in answer["choices"]:
        rest = {name: value for name, value in choice.items() if name not in {"message", "finish_reason"}}
        if words != "chat":
            yield {**head, "choices": [{**rest, "finish_reason": choice.get("finish_reason")}]}
            continue
        delta = dict(choice["message"])
        for index, call in enumerate(delta.get("tool_calls") or ()):
            delta["tool_calls"][index] = {"index": index, **call}
        yield {**head, "choices": [{**rest, "delta": delta, "finish_reason": None}]}
        yield {
            **head,
            "choices": [{"index": rest.get("index", 0), "delta": {}, "finish_reason": choice.get("finish_reason")}],
        }


def _head(one: Mapping[str, Any]) -> dict[str, Any]:
    return {name: one[name] for name in _HEAD if one.get(name) is not None}


def _opened(index: int, words: Words) -> dict[str, Any]:
    said = {"message": {"role": "assistant", "content": None}} if words == "chat" else {"text": ""}
    return {"index": index, **said, "finish_reason": None}


def _add(whole: dict[str, Any], part: Mapping[str, Any]) -> None:
    for name, value in part.items():
        if name == "delta":
            _merge(whole["message"], value or {})
        elif name in {"text", "logprobs"}:
            _merge(whole, {name: value})
        elif value is not None or name not in whole:
            whole[name] = value


def _merge(whole: dict[str, Any], part: Mapping[str, Any]) -> None:
    """As OpenAI's SDK puts deltas together: texts are joined, lists by their index, objects by name."""
    for name, value in part.items():
        known = whole.get(name)
        if known is None or name in _REPLACED:
            if value is not None or name not in whole:
                whole[name] = _listed(value) if isinstance(value, list) else value
        elif isinstance(known, str) and isinstance(value, str):
            whole[name] = known if name == "name" and known == value else known + value
        elif isinstance(known, dict) and isinstance(value, dict):
            _merge(known, value)
        elif isinstance(known, list) and isinstance(value, list):
            _extend(known, value)
        elif value is not None:
            whole[name] = value


def _listed(parts: list[Any]) -> list[Any]:
    whole: list[Any] = []
    _extend(whole, parts)
    return whole


def _extend(whole: list[Any], parts: list[Any]) -> None:
    for part in parts:
        at = part.get("index") if isinstance(part, dict) else None
        known = next((one for one in whole if isinstance(one, dict) and one.get("index") == at), None)
        if at is None or known is None:
            whole.append(dict(part) if isinstance(part, dict) else part)
        else:
            _merge(known, part)


def _ended(choice: Mapping[str, Any]) -> bool:
    if choice.get("finish_reason") not in ENDED:
        return False
    calls = (choice.get("message") or {}).get("tool_calls") or ()
    return all(_is_whole(call.get("function")) for call in calls)


def _is_whole(function: Mapping[str, Any] | None) -> bool:
    """Whether the arguments of a call are JSON: what is cut off is none. Calls of custom tools have text."""
    if function is None:
        return True
    arguments = function.get("arguments")
    if arguments:
        _decode(arguments)  # its error is the caller's
    return bool(function.get("name"))
