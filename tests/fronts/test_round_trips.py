"""One conversation, said in chat, in messages and in responses: whichever API it comes in and whichever it goes out, it means the same.

Requests go from messages to chat, from chat to messages, and from responses to either; answers come back the same ways.
"""

import json
from typing import Any, Final

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.responses.chat_request import chat_request
from gateway.responses.frame import Frame
from gateway.responses.writer import Writer
from tests.dialects.anthropic_payloads import DIALECT
from tests.fronts.messages import FRONT, OPENAI
from tests.fronts.test_messages_properties import INPUTS, WORDS

PNG: Final = "cG5n"
SCHEMA: Final = {
    "type": "object",
    "properties": {"a": {"type": "string"}},
    "required": ["a"],
    "additionalProperties": False,
}
CLAUDE: Final = "claude-sonnet-4-5"


class Call(msgspec.Struct, frozen=True):
    id: str
    arguments: str  # as JSON with sorted keys


class Turn(msgspec.Struct, frozen=True):
    """`text` and `pictures` of the user or the assistant, its `calls`, or the `results` of the calls before it."""

    role: str
    text: str = ""
    pictures: tuple[str, ...] = ()
    calls: tuple[Call, ...] = ()
    results: tuple[tuple[str, str], ...] = ()


class Talk(msgspec.Struct, frozen=True):
    system: str
    turns: tuple[Turn, ...]
    tools: tuple[str, ...]
    choice: str  # auto, required, or a tool's name
    structured: bool
    limit: int


def exact(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


@st.composite
def talks(draw: st.DrawFn) -> Talk:
    pictures = st.lists(st.sampled_from([f"data:image/png;base64,{PNG}", "https://x.example/y.png"]), max_size=2)
    turns = [Turn("user", draw(WORDS), tuple(draw(pictures)))]
    for number in range(draw(st.integers(0, 3))):
        inputs = draw(st.lists(INPUTS, max_size=2))
        calls = tuple(Call(f"call_{number}_{at}", exact(one)) for at, one in enumerate(inputs))
        turns.append(Turn("assistant", draw(WORDS), calls=calls))
        if calls:
            turns.append(Turn("tool", results=tuple((call.id, draw(WORDS)) for call in calls)))
        else:
            turns.append(Turn("user", draw(WORDS), tuple(draw(pictures))))
    tools = draw(st.sampled_from([("f",), ("f", "g")]))
    return Talk(
        draw(WORDS), tuple(turns), tools, draw(st.sampled_from(["auto", "required", "f"])), draw(st.booleans()), 9
    )


# Said in each API


def in_chat(talk: Talk) -> bytes:
    messages: list[Any] = [{"role": "system", "content": talk.system}]
    for turn in talk.turns:
        if turn.results:
            messages += [{"role": "tool", "tool_call_id": id_, "content": text} for id_, text in turn.results]
            continue
        parts: list[Any] = [{"type": "text", "text": turn.text}]
        parts += [{"type": "image_url", "image_url": {"url": url}} for url in turn.pictures]
        said: dict[str, Any] = {"role": turn.role, "content": parts if turn.pictures else turn.text}
        calls = [
            {"id": c.id, "type": "function", "function": {"name": "f", "arguments": c.arguments}} for c in turn.calls
        ]
        messages.append(said | ({"tool_calls": calls} if calls else {}))
    tools = [{"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in talk.tools]
    chosen = {"type": "function", "function": {"name": talk.choice}} if talk.choice == "f" else talk.choice
    body = {"model": "m", "messages": messages, "max_tokens": talk.limit, "tools": tools, "tool_choice": chosen}
    form = {"type": "json_schema", "json_schema": {"name": "place", "strict": True, "schema": SCHEMA}}
    return json.dumps(body | ({"response_format": form} if talk.structured else {})).encode()


def in_messages(talk: Talk) -> bytes:
    turns: list[Any] = []
    for turn in talk.turns:
        blocks: list[Any] = [{"type": "text", "text": turn.text}] if turn.text else []
        blocks += [{"type": "image", "source": _source(url)} for url in turn.pictures]
        blocks += [{"type": "tool_use", "id": c.id, "name": "f", "input": json.loads(c.arguments)} for c in turn.calls]
        blocks += [{"type": "tool_result", "tool_use_id": id_, "content": text} for id_, text in turn.results]
        turns.append({"role": "user" if turn.role == "tool" else turn.role, "content": blocks})
    tools = [{"name": name, "input_schema": SCHEMA} for name in talk.tools]
    chosen = {"auto": {"type": "auto"}, "required": {"type": "any"}}.get(
        talk.choice, {"type": "tool", "name": talk.choice}
    )
    body = {"model": "m", "system": talk.system, "messages": turns, "max_tokens": talk.limit, "tools": tools}
    form = {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}
    return json.dumps(body | {"tool_choice": chosen} | (form if talk.structured else {})).encode()


def _source(url: str) -> Any:
    return (
        {"type": "url", "url": url}
        if url.startswith("http")
        else {"type": "base64", "media_type": "image/png", "data": PNG}
    )


def in_responses(talk: Talk) -> bytes:
    items: list[Any] = []
    for turn in talk.turns:
        if turn.role == "user":
            parts: list[Any] = [{"type": "input_text", "text": turn.text}]
            parts += [{"type": "input_image", "image_url": url, "detail": "auto"} for url in turn.pictures]
            items.append({"role": "user", "content": parts})
        elif turn.role == "assistant":
            items.append({"role": "assistant", "content": [{"type": "output_text", "text": turn.text}]})
        items += [{"type": "function_call", "call_id": c.id, "name": "f", "arguments": c.arguments} for c in turn.calls]
        items += [{"type": "function_call_output", "call_id": id_, "output": text} for id_, text in turn.results]
    tools = [{"type": "function", "name": name, "parameters": SCHEMA, "strict": None} for name in talk.tools]
    chosen = {"type": "function", "name": talk.choice} if talk.choice == "f" else talk.choice
    body = {"model": "m", "instructions": talk.system, "input": items, "max_output_tokens": talk.limit, "tools": tools}
    form = {"text": {"format": {"type": "json_schema", "name": "place", "strict": True, "schema": SCHEMA}}}
    return json.dumps(body | {"tool_choice": chosen} | (form if talk.structured else {})).encode()


# Heard from what goes out


def of_chat(body: bytes) -> Talk:
    value = json.loads(body)
    system, turns = "", list[Turn]()
    for message in value["messages"]:
        content = message.get("content") or ""
        parts: list[Any] = [{"type": "text", "text": content}] if isinstance(content, str) else content
        text = "".join(part["text"] for part in parts if part["type"] == "text")
        match message["role"]:
            case "system":
                system = text
            case "tool":
                before = turns.pop().results if turns[-1].role == "tool" else ()
                turns.append(Turn("tool", results=(*before, (message["tool_call_id"], text))))
            case role:
                pictures = tuple(part["image_url"]["url"] for part in parts if part["type"] == "image_url")
                calls = tuple(
                    Call(one["id"], exact(json.loads(one["function"]["arguments"])))
                    for one in message.get("tool_calls") or ()
                )
                turns.append(Turn(role, text, pictures, calls))
    tools = tuple(tool["function"]["name"] for tool in value["tools"])
    assert all(tool["function"]["parameters"] == SCHEMA for tool in value["tools"])
    chosen = value.get("tool_choice", "auto")
    form = value.get("response_format")
    assert form is None or form["json_schema"]["schema"] == SCHEMA
    limit = value.get("max_tokens") or value["max_completion_tokens"]
    name = chosen if isinstance(chosen, str) else chosen["function"]["name"]
    return Talk(system, tuple(turns), tools, name, form is not None, limit)


def of_messages(body: bytes) -> Talk:
    value = json.loads(body)
    turns = []
    for said in value["messages"]:
        blocks: list[Any] = (
            [{"type": "text", "text": said["content"]}] if isinstance(said["content"], str) else said["content"]
        )
        text = "".join(block["text"] for block in blocks if block["type"] == "text")
        pictures = tuple(
            block["source"].get("url") or f"data:{block['source']['media_type']};base64,{block['source']['data']}"
            for block in blocks
            if block["type"] == "image"
        )
        calls = tuple(Call(block["id"], exact(block["input"])) for block in blocks if block["type"] == "tool_use")
        results = tuple((b["tool_use_id"], _plain(b["content"])) for b in blocks if b["type"] == "tool_result")
        turns.append(Turn("tool" if results else said["role"], text, pictures, calls, results))
    tools = tuple(tool["name"] for tool in value["tools"])
    assert all(tool["input_schema"] == SCHEMA for tool in value["tools"])
    chosen = value.get("tool_choice", {"type": "auto"})
    choice = {"auto": "auto", "any": "required"}.get(chosen["type"], chosen.get("name", ""))
    form = value.get("output_config", {}).get("format")
    assert form is None or form["schema"] == SCHEMA
    return Talk(_plain(value["system"]), tuple(turns), tools, choice, form is not None, value["max_tokens"])


def _plain(content: Any) -> str:
    return content if isinstance(content, str) else "".join(block["text"] for block in content)


@settings(deadline=None, max_examples=60)
@given(talk=talks())
def test_a_conversation_means_the_same_in_every_api(talk: Talk) -> None:
    """Texts, pictures, calls and results, tools, which of them, the schema of the answer, the limit."""
    assert of_chat(in_chat(talk)) == of_messages(in_messages(talk)) == talk  # what is said here is understood here
    chat = FRONT.chat(in_messages(talk), OPENAI)
    assert of_chat(chat) == talk
    assert of_messages(DIALECT.request("chat", in_chat(talk), CLAUDE).body) == talk
    asked = chat_request(in_responses(talk), "up", limit="max_tokens")
    assert of_chat(asked) == talk
    assert of_messages(DIALECT.request("chat", asked, CLAUDE).body) == talk
    assert of_messages(DIALECT.request("chat", chat, CLAUDE).body) == talk


COUNTS: Final = st.tuples(*[st.integers(0, 99)] * 5)


@settings(deadline=None, max_examples=60)
@given(text=WORDS, inputs=st.lists(INPUTS, max_size=2), counts=COUNTS)
def test_an_answer_means_the_same_in_every_api(text: str, inputs: list[Any], counts: tuple[int, ...]) -> None:
    """Claude's message becomes a chat's completion and a response, the completion a message again: text, calls and every count."""
    plain, read, written, said, thought = counts
    calls = [{"type": "tool_use", "id": f"toolu_{at}", "name": "f", "input": one} for at, one in enumerate(inputs)]
    usage = {"input_tokens": plain, "cache_read_input_tokens": read, "cache_creation_input_tokens": written}
    usage |= {"output_tokens": said + thought}
    message: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": CLAUDE,
        "usage": usage,
        "stop_sequence": None,
    }
    message |= {"content": [{"type": "text", "text": text}, *calls], "stop_reason": "tool_use" if calls else "end_turn"}
    chat, used = DIALECT.answer("chat", json.dumps(message).encode(), "m")
    assert used is not None
    assert (used.input, used.cached_read, used.cache_write, used.output) == (
        plain + read + written,
        read,
        written,
        said + thought,
    )
    meant = [(call["id"], exact(call["input"])) for call in calls]
    back = json.loads(FRONT.answer(chat, "m", b""))
    assert [block["text"] for block in back["content"] if block["type"] == "text"] == [text]
    assert [(b["id"], exact(b["input"])) for b in back["content"] if b["type"] == "tool_use"] == meant
    assert back["stop_reason"] == message["stop_reason"]
    assert {name: back["usage"].get(name, 0) for name in usage} == usage
    writer = Writer(Frame("resp_1", 1, "m", {}), lambda: 2.0)
    writer.take(chat)
    writer.finish()
    response = json.loads(writer.response)
    output = response["output"]
    assert [part["text"] for item in output if item["type"] == "message" for part in item["content"]] == [text]
    found = [item for item in output if item["type"] == "function_call"]
    assert [(item["call_id"], exact(json.loads(item["arguments"]))) for item in found] == meant
    told = response["usage"]
    assert (told["input_tokens"], told["output_tokens"]) == (plain + read + written, said + thought)
    assert told["input_tokens_details"]["cached_tokens"] == read
