"""Nonsense in a request: a refusal or a request that can be sent, never anything else."""

import json
from contextlib import suppress
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import errors, prompt_bound
from gateway.dialects.anthropic_native import UNSIGNED, AnthropicNative
from gateway.fronts.messages_chat import chat
from gateway.fronts.messages_count import count
from gateway.fronts.messages_request import parse, parse_count
from tests.fronts.messages import BEDROCK, FRONT, GEMINI, OPENAI, VLLM

SCALARS = (
    st.none() | st.booleans() | st.integers(-9, 2**60) | st.sampled_from(["", "a", "url", "text", "enabled", UNSIGNED])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "x", "enabled"]), inner, max_size=2)
    ),
    max_leaves=4,
)
KINDS = ["text", "image", "document", "tool_use", "tool_result", "thinking", "redacted_thinking", "search_result", "x"]
SOURCES = VALUES | st.fixed_dictionaries(
    {"type": st.sampled_from(["base64", "url", "text", "content", "file"])},
    optional={"data": VALUES, "url": VALUES, "media_type": VALUES, "content": VALUES},
)
NAMES = [
    "text",
    "title",
    "citations",
    "cache_control",
    "id",
    "name",
    "input",
    "tool_use_id",
    "is_error",
    "thinking",
    "signature",
    "data",
]
BLOCKS = st.recursive(
    VALUES,
    lambda inner: st.fixed_dictionaries(
        {"type": st.sampled_from(KINDS)},
        optional={**dict.fromkeys(NAMES, VALUES), "source": SOURCES, "content": st.lists(inner, max_size=2) | VALUES},
    ),
    max_leaves=3,
)
TURNS = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "x"]), "content": st.lists(BLOCKS, max_size=2) | VALUES}
)
TOP = [
    "system", "stream", "temperature", "top_p", "top_k", "stop_sequences", "tools", "tool_choice", "thinking", "output_config",
    "output_format", "metadata", "service_tier", "context_management", "speed",
]  # fmt: skip
SOUND = st.fixed_dictionaries(
    {"model": st.just("m"), "max_tokens": st.integers(0, 9), "messages": st.lists(TURNS, min_size=1, max_size=3)}
)
BODIES = st.builds(
    lambda sound, more: sound | more,
    SOUND,
    st.dictionaries(st.sampled_from([*TOP, "max_tokens", "messages"]), VALUES, max_size=1),
)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(fields=BODIES)
def test_any_request_is_refused_or_sent(fields: Any) -> None:
    """By its front, and by the provider's dialect behind it; what is sent is JSON."""
    body = json.dumps(fields).encode()
    with suppress(errors.BadRequest):
        parse_count(body)
        assert count(body, lambda _: None)[0] > 0
    try:
        request = parse(body)
    except errors.BadRequest:
        return
    assert prompt_bound.upper_bound(body, request) > 0
    json.loads(AnthropicNative().request("messages", body, "claude").body)
    assert "metadata" not in json.loads(FRONT.anonymous(body))
    for toward in (OPENAI, VLLM, GEMINI, BEDROCK):
        with suppress(errors.BadRequest):
            assert json.loads(chat(body, toward))["messages"]
