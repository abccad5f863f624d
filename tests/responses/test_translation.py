"""Chat ↔ Responses without a server: what goes round comes back, under any split of the bytes."""

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from gateway import errors, usage
from gateway.responses import native
from gateway.responses.chat_request import chat_request, shortened
from gateway.responses.frame import Frame
from gateway.responses.items import whole
from gateway.responses.native import NativeStream, Reader
from gateway.responses.outlet import Outlet
from gateway.responses.writer import Writer
from gateway.shadow import Copy
from gateway.sse import ChatStream

STEM = "0123456789abcdef0123456789abcdef"
EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
ARGUMENTS = st.dictionaries(TEXT, TEXT, max_size=2).map(json.dumps)
CALL = st.fixed_dictionaries({"name": st.sampled_from(["f", "g"]), "arguments": ARGUMENTS})
COUNT = st.integers(0, 10**6)
ANSWERS = st.fixed_dictionaries(
    {},
    optional={
        "reasoning_content": TEXT,
        "content": TEXT,
        "refusal": TEXT,
        "tool_calls": st.lists(CALL, min_size=1, max_size=3),
        "thinking_blocks": st.just([{"type": "thinking", "thinking": "t", "signature": "s"}]),
    },
)
USAGE = st.fixed_dictionaries({"prompt_tokens": COUNT, "completion_tokens": COUNT})


def frame(include: Sequence[str] = ("reasoning.encrypted_content",)) -> Frame:
    return Frame(f"resp_{STEM}", 1, "m", {}, include=include)


def message(said: dict[str, Any]) -> dict[str, Any]:
    """An assistant's message as a chat has it."""
    made = {"role": "assistant", "content": None} | said
    if "tool_calls" in said:
        made["tool_calls"] = [
            {"id": f"call_{number}", "type": "function", "function": call}
            for number, call in enumerate(said["tool_calls"])
        ]
    return made


def completion(said: dict[str, Any], used: dict[str, int]) -> bytes:
    choice = {"index": 0, "message": message(said), "finish_reason": "stop"}
    return json.dumps({"object": "chat.completion", "choices": [choice], "usage": used}).encode()


def stream(said: dict[str, Any], used: dict[str, int]) -> bytes:
    """The same in pieces, a character or a call at a time."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    for name in ("reasoning_content", "thinking_blocks", "content", "refusal"):
        deltas += [{name: piece if isinstance(piece, str) else [piece]} for piece in said.get(name, ())]
    for index, call in enumerate(message(said).get("tool_calls", ())):
        opening = {
            "id": call["id"],
            "type": "function",
            "function": {"name": call["function"]["name"], "arguments": ""},
        }
        deltas.append({"tool_calls": [{"index": index, **opening}]})
        deltas += [
            {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}
            for piece in call["function"]["arguments"]
        ]
    chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    chunks.append({"choices": [], "usage": used})
    return b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks) + b"data: [DONE]\n\n"


class Client(Copy):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(b"", 0.0)
        self.told = b""

    def send(self, data: bytes) -> None:
        self.told += data


def told(data: bytes) -> list[dict[str, Any]]:
    found = [json.loads(block.partition(b"data: ")[2]) for block in data.split(b"\n\n") if block]
    for event in found:
        EVENT.validate_python(event)
    return found


def whole_response(said: dict[str, Any], used: dict[str, int]) -> dict[str, Any]:
    writer = Writer(frame(), lambda: 2.0)
    writer.take(completion(said, used))
    writer.finish()
    made: dict[str, Any] = json.loads(writer.response)
    Response.model_validate(made)
    return made


@settings(deadline=None, max_examples=60)
@given(said=ANSWERS, used=USAGE, cuts=st.lists(st.integers(0, 4000), max_size=6))
def test_a_stream_and_a_whole_answer_are_the_same_response(
    said: dict[str, Any], used: dict[str, int], cuts: list[int]
) -> None:
    """Under any split; each event is one of the SDK's, numbers have no gap, and deltas add up to what is done."""
    data = stream(said, used)
    chat, client = ChatStream(keep_usage=True), Client()
    outlet = Outlet(client, b"", frame(), lambda: 2.0, summarised=False)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in pairwise(edges):
        out = chat.feed(data[start:end])
        if out:
            outlet.send(out)
    outlet.send(b"data: [DONE]\n\n")
    outlet.release(kept=True)
    events = told(client.told)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["type"] == "response.completed"
    assert events[-1]["response"]["output"] == whole_response(said, used)["output"]
    assert events[-1]["response"]["usage"] == whole_response(said, used)["usage"]
    parts: dict[str, str] = {}
    for event in events:
        kind, _, step = event["type"].rpartition(".")
        if step == "delta":
            parts[event["item_id"]] = parts.get(event["item_id"], "") + event["delta"]
        elif step == "done" and kind.rpartition(".")[2] in {"output_text", "refusal", "reasoning_text"}:
            assert parts[event["item_id"]] == event.get("text", event.get("refusal"))
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert sorted(done, key=lambda item: str(item["id"])) == sorted(
        events[-1]["response"]["output"], key=lambda item: str(item["id"])
    )


@settings(deadline=None)
@given(said=ANSWERS, used=USAGE)
def test_an_answer_goes_back_as_the_message_that_it_was(said: dict[str, Any], used: dict[str, int]) -> None:
    """Words, calls and sealed thoughts come back to the chat as one assistant's message, whatever they were as items."""
    made = whole_response(said, used)
    body = json.dumps({"model": "m", "input": made["output"]}).encode()
    sent = json.loads(chat_request(body, "up", limit="max_tokens", thoughts="sealed"))["messages"]
    expected = message(said)
    if not (said.keys() & {"content", "refusal", "tool_calls"}):
        assert sent == []
        return
    texts = [text for one in sent for text in _texts(one["content"])]
    assert texts == [said[name] for name in ("content", "refusal") if name in said]
    assert [call for one in sent for call in one.get("tool_calls", ())] == expected.get("tool_calls", [])
    assert [block for one in sent for block in one.get("thinking_blocks", ())] == said.get("thinking_blocks", [])
    used_again = made["usage"]
    assert (used_again["input_tokens"], used_again["output_tokens"]) == (
        used["prompt_tokens"],
        used["completion_tokens"],
    )


def _texts(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content] if content else []
    return [part.get("text", part.get("refusal")) for part in content or ()]


PARTS = st.one_of(
    st.fixed_dictionaries({"type": st.just("input_text"), "text": TEXT}),
    st.fixed_dictionaries(
        {"type": st.just("input_image"), "image_url": TEXT}, optional={"detail": st.sampled_from(["low", "high"])}
    ),
    st.fixed_dictionaries({"type": st.just("input_file"), "filename": TEXT, "file_data": TEXT}),
)
ITEMS = st.one_of(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["user", "system", "developer"]),
            "content": TEXT | st.lists(PARTS, min_size=1, max_size=3),
        },
        optional={"type": st.just("message")},
    ),
    st.fixed_dictionaries({"role": st.just("assistant"), "content": TEXT}),
    st.fixed_dictionaries(
        {"type": st.just("function_call"), "call_id": TEXT, "name": st.just("f"), "arguments": ARGUMENTS}
    ),
    st.fixed_dictionaries({"type": st.just("function_call_output"), "call_id": TEXT, "output": TEXT}),
    st.fixed_dictionaries({"type": st.just("reasoning"), "summary": st.just([])}, optional={"encrypted_content": TEXT}),
)


@settings(deadline=None)
@given(items=st.lists(ITEMS, max_size=8))
def test_everything_that_is_said_reaches_the_chat(items: list[dict[str, Any]]) -> None:
    """Texts, pictures, files, calls and results, in order, each once; also after it was kept."""
    kept = whole([Raw(json.dumps(item).encode()) for item in items], STEM)
    for given_items in (items, [json.loads(bytes(one)) for one in kept]):
        body = json.dumps({"model": "m", "input": given_items}).encode()
        sent = json.loads(chat_request(body, "up", limit="max_tokens"))["messages"]
        heard: list[Any] = []
        for one in sent:
            heard += _texts_and_media(one["content"])
            heard += [call["function"]["arguments"] for call in one.get("tool_calls", ())]
        meant: list[Any] = []
        for item in items:
            meant += _texts_and_media(item.get("content", item.get("output")))
            meant += [item["arguments"]] if "arguments" in item else []
        assert heard == meant


def _texts_and_media(content: Any) -> list[Any]:
    if isinstance(content, str):
        return [content]
    found: list[Any] = []
    for part in content or ():
        picture = part.get("image_url")
        file = part.get("file", part)
        found.append(
            part.get("text") or (picture["url"] if isinstance(picture, dict) else picture) or file.get("file_data")
        )
    return found


def test_what_is_too_long_loses_its_oldest_turns() -> None:
    """Never the system's words, never the last question, never a result without its call."""
    said: list[dict[str, object]] = [{"role": "system", "content": "s"}]
    for number in range(5):
        said += [{"role": "user", "content": f"{number}" * 50}, {"role": "assistant", "content": "a" * 50}]
        said += [{"role": "tool", "content": "t"}]
    said.append({"role": "user", "content": "last"})
    kept = shortened(said, 400)
    assert [one["role"] for one in kept][:2] == ["system", "user"]
    assert kept[-1]["content"] == "last"
    assert [one["role"] for one in kept] == ["system", "user", "assistant", "tool", "user"]
    assert shortened(said, 10_000) == said
    assert [one["content"] for one in shortened(said, 1)] == ["s", "last"]


def test_a_summary_is_told_as_such_if_it_was_asked_for() -> None:
    """Otherwise the text of thoughts is content, as open models have it."""
    for summarised, name in ((True, "summary"), (False, "content")):
        writer = Writer(frame(()), lambda: 2.0, summarised=summarised)
        data = b"".join([*writer.start(), *writer.take(completion({"reasoning_content": "hm"}, {})), *writer.finish()])
        kinds = [event["type"] for event in told(data)]
        assert ("response.reasoning_summary_text.delta" in kinds) is summarised
        assert ("response.reasoning_text.delta" in kinds) is not summarised
        item = json.loads(writer.response)["output"][0]
        assert item[name][0]["text"] == "hm"


def test_what_gemini_seals_behind_a_call_goes_back_with_it() -> None:
    """A stream tells it when the thought itself is over: it gets an item of its own, behind the call."""
    seal = {"google": {"thought_signature": "sig"}}
    call = {
        "index": 0,
        "id": "c1",
        "type": "function",
        "function": {"name": "f", "arguments": "{}"},
        "extra_content": seal,
    }
    writer = Writer(frame(), lambda: 2.0)
    for delta in ({"reasoning_content": "hm"}, {"tool_calls": [call]}, {"extra_content": {"google": {"x": 1}}}):
        writer.take(json.dumps({"choices": [{"delta": delta}]}).encode())
    writer.finish()
    output = json.loads(writer.response)["output"]
    assert [item["type"] for item in output] == ["reasoning", "function_call", "reasoning"]
    body = json.dumps({"model": "m", "input": output}).encode()
    sent = json.loads(chat_request(body, "up", limit="max_tokens", thoughts="sealed"))["messages"]
    assert len(sent) == 1
    assert sent[0]["tool_calls"][0]["extra_content"] == seal
    assert sent[0]["extra_content"] == {"google": {"x": 1}}
    plain = json.loads(chat_request(body, "up", limit="max_tokens", thoughts="text"))["messages"]
    assert plain[0]["reasoning_content"] == "hm"
    assert "extra_content" not in plain[0]["tool_calls"][0]


def test_a_picture_in_an_answer_is_one_of_a_tool() -> None:
    """As Gemini draws it; what follows is another message, and a chat that goes on is not told of it."""
    link = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    writer = Writer(frame(), lambda: 2.0)
    out = writer.start()
    for delta in ({"content": "look"}, {"images": [link]}, {"content": "nice"}):
        out += writer.take(json.dumps({"choices": [{"delta": delta}]}).encode())
    events = told(b"".join([*out, *writer.finish()]))
    output = events[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["message", "image_generation_call", "message"]
    assert (output[1]["result"], output[1]["status"]) == ("AAAA", "completed")
    body = json.dumps({"model": "m", "input": output}).encode()
    sent = json.loads(chat_request(body, "up", limit="max_tokens"))["messages"]
    assert [one["content"] for one in sent] == ["look", "nice"]


def test_log_probabilities_are_shown_to_who_asked() -> None:
    """On deltas and in the item."""
    odds = [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}]
    chunk = {"choices": [{"delta": {"content": "a"}, "logprobs": {"content": odds}}]}
    for include, shown in ((("message.output_text.logprobs",), odds), ((), [])):
        writer = Writer(frame(include), lambda: 2.0)
        events = told(b"".join([*writer.start(), *writer.take(json.dumps(chunk).encode()), *writer.finish()]))
        delta = next(event for event in events if event["type"] == "response.output_text.delta")
        assert delta["logprobs"] == shown
        assert events[-1]["response"]["output"][0]["content"][0]["logprobs"] == shown


def events_of(*payloads: dict[str, Any]) -> bytes:
    return b"".join(b"event: %b\ndata: %b\n\n" % (p["type"].encode(), json.dumps(p).encode()) for p in payloads)


CREATED = {"type": "response.created", "sequence_number": 0, "response": {"id": "up", "status": "in_progress"}}
DELTA = {"type": "response.output_text.delta", "sequence_number": 1, "item_id": "x", "delta": "hi"}
COMPLETED = {
    "type": "response.completed",
    "sequence_number": 2,
    "response": {
        "id": "up",
        "object": "response",
        "status": "completed",
        "output": [{"type": "web_search_call", "id": "ws"}],
        "usage": {"input_tokens": 3, "output_tokens": 4},
    },
}


@pytest.mark.parametrize(
    ("event", "says"),
    [
        ({"type": "response.output_item.added", "item": {"type": "message", "content": []}}, False),
        ({"type": "response.output_item.added", "item": {"type": "reasoning", "summary": []}}, False),
        ({"type": "response.content_part.added", "part": {"type": "output_text", "text": ""}}, False),
        ({"type": "response.output_text.delta", "delta": ""}, False),
        ({"type": "response.output_item.added", "item": {"type": "function_call", "name": "f"}}, True),
        ({"type": "response.output_text.delta", "delta": "a"}, True),
    ],
)
def test_what_says_nothing_can_still_begin_anew_elsewhere(event: dict[str, Any], says: bool) -> None:
    """An item or a part that opens empty is no content, as at Anthropic."""
    followed = NativeStream()
    followed.feed(events_of(CREATED, event))
    assert followed.content is says


@settings(deadline=None)
@given(cuts=st.lists(st.integers(0, 500), max_size=6))
def test_an_upstreams_own_events_are_followed_under_any_split(cuts: list[int]) -> None:
    """Content, end and usage, with searches, which are billed by themselves."""
    data = events_of(CREATED, DELTA, COMPLETED).replace(b"\n", b"\r\n")
    followed, out = NativeStream(), b""
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in pairwise(edges):
        out += followed.feed(data[start:end])
    assert (followed.content, followed.done, followed.whole, followed.events) == (True, True, True, 1)
    assert followed.reported == usage.usage(3, 4, search_units=1)
    reader = Reader(frame())
    seen = [event for payload in out.split(b"\n\n") if payload for event in reader.take(payload[6:])] + reader.finish()
    last = json.loads(seen[-1].partition(b"data: ")[2])
    assert (last["sequence_number"], last["response"]["id"]) == (2, f"resp_{STEM}")


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        ({"type": "error", "code": "rate_limit_exceeded", "message": "slow down"}, errors.UpstreamRefused),
        ({"type": "error", "code": "server_error", "message": "oh"}, errors.UpstreamFailed),
        (
            {"type": "response.failed", "response": {"error": {"code": "invalid_prompt", "message": "no"}}},
            errors.UpstreamRefused,
        ),
        ({"type": "response.completed"}, errors.UpstreamError),
        ({"type": ""}, errors.UpstreamError),
    ],
)
def test_an_upstreams_failure_keeps_its_meaning(payload: dict[str, Any], kind: type[errors.GatewayError]) -> None:
    """Nothing is passed on after it."""
    followed = NativeStream()
    assert followed.feed(events_of(CREATED)) != b""
    assert not followed.content
    assert followed.feed(b"data: %b\n\n" % json.dumps(payload).encode()) == b""
    assert isinstance(followed.error, kind)
    assert not followed.whole
    assert followed.feed(events_of(DELTA)) == b""


def test_damaged_answers_are_no_responses() -> None:
    """Not JSON, not a response, failed, or damaged deeper inside."""
    for body in (b"", b"[]", b'{"object":"list"}', b'{"object":"response","status":"failed","error":{"message":"x"}}'):
        with pytest.raises(errors.UpstreamError):
            native.answer(body)
    with pytest.raises(errors.UpstreamError):
        Reader(frame()).whole(b'{"output":["logprobs"]}')
    with pytest.raises(errors.UpstreamError):
        Reader(frame()).take(b'{"type":"response.output_item.done"}')
    with pytest.raises(errors.UpstreamError):
        Writer(frame(), lambda: 2.0).take(b'{"choices":[{"delta":{"annotations":[5]}}]}')
