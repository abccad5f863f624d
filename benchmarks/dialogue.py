"""What is said in a benchmark: one request of some 500 bytes, one answer of 640, one stream of 50 chunks."""

import json
from typing import Literal

# An answer in one piece, for a key with a budget and two limits; the same for keys with no account, one and eight of them; the same
# out of the exact cache (nginx passes it on as before);
# a stream with a chunk every 10 ms; one with chunks as fast as they go.
Load = Literal["plain", "free", "one", "eight", "hit", "paced", "flood"]
Route = Literal["plain", "paced", "flood"]


def route(load: Load) -> Route:
    """The model and the upstream behind a load."""
    return load if load == "paced" or load == "flood" else "plain"  # noqa: PLR1714 the type is narrowed by this form alone


TARGET_MODEL = "gpt-4o-mini"
CHUNKS = 50
EVENTS = CHUNKS + 1  # the usage has one of its own
PACE_S = 0.010

_SYSTEM = (
    "You are a careful assistant for a travel company. Answer in plain English, in at most three sentences, "
    "and say so when you do not know. Never give legal advice."
)
_QUESTION = (
    "We plan a family trip for next spring with two small children and one grandparent. "
    "Which city is the capital of France, where does it lie, and roughly how many people live there?"
)
_ANSWER = (
    "Paris is the capital of France. It lies on the Seine, has been the seat of government for most of the past "
    "thousand years, and is home to about two million people within the city limits."
)
_ID = "chatcmpl-BqX7fK2mZr9LwTn4sYvHd3Pj0aGc8"


def request_body(model: str, *, stream: bool) -> bytes:
    body: dict[str, object] = {
        "model": model,
        "messages": [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _QUESTION}],
        "temperature": 0.7,
        "max_tokens": 256,
        "user": "u-829113",
    }
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return _compact(body)


def answer() -> bytes:
    """The upstream's chat.completion, padded by its fingerprint to exactly 640 bytes."""
    message = {"role": "assistant", "content": _ANSWER, "refusal": None}
    completion: dict[str, object] = {
        "id": _ID,
        "object": "chat.completion",
        "created": 1761955200,
        "model": TARGET_MODEL,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": _usage(41) | {"prompt_tokens_details": {"cached_tokens": 0}},
        "service_tier": "default",
        "system_fingerprint": "fp_",
    }
    completion["system_fingerprint"] = "fp_" + "0" * (640 - len(_compact(completion)))
    return _compact(completion)


def events() -> tuple[bytes, ...]:
    """The server-sent events of one stream: CHUNKS chunks, one with the usage, and the end."""
    deltas: list[dict[str, object]] = [{"role": "assistant", "content": "", "refusal": None}]
    deltas += [{"content": f" word{number:02d}"} for number in range(CHUNKS - 2)]
    chunks = [_chunk([_choice(delta, None)]) for delta in deltas]
    chunks.append(_chunk([_choice({}, "stop")]))
    return (*chunks, _chunk([], {"usage": _usage(CHUNKS)}), b"data: [DONE]\n\n")


def _choice(delta: dict[str, object], finish_reason: str | None) -> dict[str, object]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _chunk(choices: list[dict[str, object]], more: dict[str, object] | None = None) -> bytes:
    head = {"id": _ID, "object": "chat.completion.chunk", "created": 1761955200, "model": TARGET_MODEL}
    return (
        b"data: "
        + _compact({**head, "system_fingerprint": "fp_44add55eef", "choices": choices, **(more or {})})
        + b"\n\n"
    )


def _usage(completion_tokens: int) -> dict[str, object]:
    return {"prompt_tokens": 92, "completion_tokens": completion_tokens, "total_tokens": 92 + completion_tokens}


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
