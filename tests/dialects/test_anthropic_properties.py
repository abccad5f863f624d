"""Whatever conversation comes in, what goes out keeps to the API's rules; whatever bytes come back, the stream survives them."""

import json
import re
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import errors
from gateway.dialects.anthropic_stream import MessageStream
from tests.dialects.anthropic_payloads import DIALECT, STREAMS

TEXT = st.sampled_from(["", " ", "\n", "a", "Grüße 🌍", "ends in white space \n"])
IDS = st.sampled_from(["call_1", "functions.f:0", "", "ü"])
PARTS = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": TEXT}),
    st.just({"type": "image_url", "image_url": {"url": "https://x.example/y.png"}}),
)
CONTENT = st.one_of(st.none(), TEXT, st.lists(PARTS, max_size=3))
CALL = st.fixed_dictionaries(
    {"id": IDS, "type": st.just("function"), "function": st.just({"name": "f", "arguments": '{"a": [1]}'})}
)
MESSAGES = st.one_of(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "developer"]), "content": TEXT}),
    st.fixed_dictionaries({"role": st.just("user"), "content": CONTENT}),
    st.fixed_dictionaries({"role": st.just("assistant"), "content": TEXT, "tool_calls": st.lists(CALL, max_size=2)}),
    st.fixed_dictionaries({"role": st.just("tool"), "tool_call_id": IDS, "content": CONTENT}),
)


@settings(deadline=None)
@given(messages=st.lists(MESSAGES, min_size=1, max_size=8))
def test_any_conversation_becomes_turns_that_the_api_takes(messages: list[dict[str, Any]]) -> None:
    """Roles alternate, no block is blank, results stand first and answer to ids that the API takes; nothing said is lost."""
    try:
        body = DIALECT.request("chat", json.dumps({"model": "m", "messages": messages}).encode(), "m").body
    except errors.BadRequest as refusal:
        assert refusal.param == "messages"  # noqa: PT017  # the only reason there is: nothing is said to Claude
        return
    made = json.loads(body)
    roles = [turn["role"] for turn in made["messages"]]
    assert all(before != after for before, after in pairwise(roles))
    for turn in made["messages"]:
        kinds = [block["type"] for block in turn["content"]]
        assert kinds
        assert kinds == sorted(kinds, key=lambda kind: kind != "tool_result")
        for block in turn["content"]:
            assert block["type"] != "text" or block["text"].strip()
            for name in ("id", "tool_use_id"):
                assert re.fullmatch(r"[a-zA-Z0-9_-]+", block.get(name, "x"))
    blocks = [block for turn in made["messages"] for block in turn["content"]]
    calls = sum(len(message.get("tool_calls", ())) for message in messages)
    results = sum(message["role"] == "tool" for message in messages)
    assert [block["type"] for block in blocks].count("tool_use") == calls
    assert [block["type"] for block in blocks].count("tool_result") == results
    last = blocks[-1]
    assert roles[-1] != "assistant" or last["type"] != "text" or last["text"] == last["text"].rstrip()


@settings(deadline=None)
@given(
    noise=st.binary(max_size=60),
    at=st.integers(0, 3000),
    name=st.sampled_from(sorted(STREAMS)),
    cut=st.integers(0, 3000),
)
def test_no_bytes_break_the_follower(noise: bytes, at: int, name: str, cut: int) -> None:
    """Damage is an error of the upstream's or none at all; a stream with an error is never whole."""
    data = STREAMS[name][:at] + noise + STREAMS[name][at:]
    stream = MessageStream("m", 1, keep_usage=True)
    for piece in (data[:cut], data[cut:]):
        stream.feed(piece)
    stream.close()
    assert stream.error is None or not stream.whole
    assert stream.reported is None or stream.reported.output >= 0
