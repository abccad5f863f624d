"""The Messages API where it goes through: bytes stay what they are, and what has to be known of them is."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import errors, prompt_bound, wire
from gateway.dialects.anthropic_native import UNSIGNED, AnthropicNative, PassedMessages
from gateway.fronts.messages_request import UNMETERED, parse, parse_count
from tests.dialects.anthropic_payloads import PING, STREAMS, end, message, sse, start, text
from tests.fronts.messages import asked, follow

NATIVE = AnthropicNative()


def passed(data: bytes, cuts: Sequence[int] = ()) -> tuple[PassedMessages, bytes]:
    stream = PassedMessages()
    return stream, follow(stream, data, cuts)


@pytest.mark.parametrize("name", STREAMS)
@settings(deadline=None)
@given(cuts=st.lists(st.integers(0, 4000), max_size=40))
def test_a_stream_passes_as_it_is(name: str, cuts: list[int]) -> None:
    """Whatever its split; events that nobody knows yet as well."""
    stream, out = passed(STREAMS[name], cuts)
    assert out == STREAMS[name]
    assert stream.whole
    assert stream.content
    assert stream.reported is not None
    assert stream.reported.input >= 25


def test_usage_is_read_to_the_last_token() -> None:
    """What was read from the cache and written to it is part of the input here, and has prices of its own."""
    stream, _ = passed(STREAMS["thinking"])
    used = stream.reported
    assert used is not None
    assert (used.input, used.cached_read, used.cache_write, used.output) == (2125, 2000, 100, 120)
    searched, _ = passed(STREAMS["search"])
    assert searched.reported is not None
    assert searched.reported.search_units == 1


def test_a_stream_without_its_last_event_is_not_whole() -> None:
    """Whatever else it said."""
    stream, out = passed(sse(start(), *text(0, "a"), end("end_turn")))
    assert stream.content
    assert not stream.whole
    assert out


def test_an_opening_is_no_content() -> None:
    """Until a block says something the call may go elsewhere."""
    stream = PassedMessages()
    begun = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    stream.feed(sse(start(), PING, begun))
    assert not stream.content
    stream.feed(sse({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}}))
    assert stream.content


def test_an_error_is_kept_back() -> None:
    """It is the gateway's to tell, or to hide behind another answer."""
    said = sse(start(), *text(0, "a"))
    stream, out = passed(said + sse({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}))
    assert isinstance(stream.error, errors.Overloaded)
    assert out == said


def test_what_came_counts_until_the_provider_has_counted() -> None:
    """For a client that left: the opening's count stands for a token or so."""
    stream, _ = passed(sse(start(), *text(0, "abcd" * 5, "e")))
    assert stream.reported is not None
    assert stream.reported.output == 6


@settings(deadline=None)
@given(
    noise=st.binary(max_size=60),
    at=st.integers(0, 3000),
    name=st.sampled_from(sorted(STREAMS)),
    cut=st.integers(0, 3000),
)
def test_no_bytes_break_the_follower(noise: bytes, at: int, name: str, cut: int) -> None:
    """Damage is an error of the upstream's or none at all."""
    stream, _ = passed(STREAMS[name][:at] + noise + STREAMS[name][at:], (cut,))
    assert stream.error is None or not stream.whole


def test_a_whole_answer_passes_as_it_is() -> None:
    """Read for its usage alone; an error inside a 200 is one."""
    body = message([{"type": "text", "text": "hi"}])
    made, used = NATIVE.answer("messages", body, "m")
    assert made is body
    assert used is not None
    assert (used.input, used.output) == (25, 15)
    with pytest.raises(errors.Overloaded):
        NATIVE.answer("messages", b'{"type":"error","error":{"type":"overloaded_error","message":"x"}}', "m")
    for wrong in (b"[]", b"{}", b'{"type":"completion"}'):
        with pytest.raises(errors.UpstreamError):
            NATIVE.answer("messages", wrong, "m")


def test_a_request_goes_out_with_the_clients_bytes_and_headers() -> None:
    """Only the name is another one; a version that nobody named is the gateway's."""
    body = (
        b'{"model":"chat","max_tokens":1,"messages":[{"role":"user","content":"\\u00e4 1.50"}],"of_tomorrow":{"a":1.0}}'
    )
    headers = {b"anthropic-beta": b"a-2025,b-2026", b"anthropic-version": b"2099-01-01", b"x-other": b"1"}
    out = NATIVE.request("messages", body, "claude", headers)
    assert out.body == body.replace(b'"chat"', b'"claude"')
    assert out.headers == (("anthropic-version", "2099-01-01"), ("anthropic-beta", "a-2025,b-2026"))
    assert NATIVE.request("count_tokens", body, "claude").headers == (("anthropic-version", "2023-06-01"),)
    with pytest.raises(errors.BadRequest):
        NATIVE.request("messages", body, "claude", {b"anthropic-beta": b"\xff"})


def test_thoughts_that_another_provider_had_do_not_go_to_anthropic() -> None:
    """It refuses what it has not signed; its own go back untouched."""
    signed = {"type": "thinking", "thinking": "a", "signature": "sig"}
    other = {"type": "thinking", "thinking": "b", "signature": UNSIGNED}
    said = {"type": "text", "text": f"not a signature: {UNSIGNED}"}
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": [other, signed, said]}]
    out = json.loads(NATIVE.request("messages", asked(turns), "claude").body)
    assert out["messages"] == [turns[0], {"role": "assistant", "content": [signed, said]}]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"model": 7}, "model"),
        ({"temperature": 1.5}, "temperature"),
        ({"speed": "fast"}, "speed"),
        ({"tools": 7}, "tools"),
        ({"tools": [{"type": "code_execution_20250825"}]}, "tools.0.type"),
        ({"context_management": {"edits": [{"type": "compact_20260112"}]}}, "context_management.edits.0"),
        *(({name: "x"}, name) for name in UNMETERED),
    ],
)
def test_what_cannot_be_read_or_metered_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    """Whoever is to answer: money that is spent and not reported would be nobody's."""
    body = json.dumps(json.loads(asked()) | fields).encode()
    with pytest.raises(errors.BadRequest) as raised:
        parse(body)
    assert raised.value.param == param


def test_what_asks_for_nothing_passes() -> None:
    """A default that is spelled out."""
    assert parse(asked(inference_geo="global", speed="standard", container=None)).model == "m"
    assert parse_count(b'{"model":"m","messages":[{"role":"user","content":"x"}]}').max_tokens == 1


def test_the_bound_of_a_prompt_knows_what_has_no_words() -> None:
    """A picture counts as one and not as its base64; a document that is referred to as the model's whole context; calls as their text."""
    data = "A" * 400_000
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}
    file = {"type": "document", "source": {"type": "file", "file_id": "f"}}
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {"image": 1}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [picture]}

    def bound(*blocks: Any, **more: Any) -> int:
        body = asked([{"role": "user", "content": list(blocks)}], **more)
        return prompt_bound.upper_bound(body, parse(body))

    assert prompt_bound.IMAGE_TOKENS < bound(picture) < prompt_bound.IMAGE_TOKENS + 1000
    assert 2 * prompt_bound.IMAGE_TOKENS < bound(picture, result) < 2 * prompt_bound.IMAGE_TOKENS + 1200
    assert bound(file) > prompt_bound.FILE_TOKENS
    assert bound(call) < 1000
    assert bound(call, tools=[{"type": "web_search_20250305", "name": "w"}]) > prompt_bound.FILE_TOKENS


def test_a_budget_may_shorten_an_answer() -> None:
    """Under the name that the API has for it."""
    body = asked()
    assert json.loads(wire.capped(body, parse(body), 3))["max_tokens"] == 3
