"""Kinds of calls: what a client asks, how it reads the answer, and what an upstream of that kind says when it is ill."""

import json
from collections.abc import Iterator, Mapping
from typing import Final, Literal

import httpx
import msgspec

from tests.fixtures.server import Json

Api = Literal["chat", "embeddings", "responses", "messages"]

MAX_TOKENS: Final = 50
TEXT: Final = "water turns the wheel and the wheel turns the mill"
# https://docs.claude.com/en/api/errors
ANTHROPICS: Final = {429: "rate_limit_error", 502: "api_error", 503: "overloaded_error", 504: "timeout_error"}
PATHS: Final[Mapping[Api, str]] = {
    "chat": "/v1/chat/completions",
    "embeddings": "/v1/embeddings",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
}
CHAT: Final[Json] = {}
RESPONSES: Final[Json] = {"responses": True}  # what a deployment speaks that is asked for more than chat
CLAUDE: Final[Json] = {"provider": "anthropic"}


class Door(msgspec.Struct, frozen=True):
    """One API, streaming or not, in front of deployments that speak `place`.

    A second deployment speaks `other`. `opening`: pieces of a stream before its first word; `counted`: those of them that are
    taken for a token where a bill is estimated from what came.
    """

    name: str
    api: Api
    stream: bool = False
    place: Json = CHAT
    other: Json = CHAT
    opening: int = 1
    counted: int = 1

    def __str__(self) -> str:
        return self.name

    @property
    def native(self) -> bool:
        """Whether the deployment's own words go through."""
        return bool(self.place)

    def body(self, model: str) -> Json:
        asked: Json = {"model": model}
        match self.api:
            case "embeddings":
                return asked | {"input": TEXT}
            case "responses":
                return asked | {"input": "hello", "max_output_tokens": MAX_TOKENS, "stream": self.stream}
            case "chat" | "messages":
                turns = [{"role": "user", "content": "hello"}]
                return asked | {"messages": turns, "max_tokens": MAX_TOKENS, "stream": self.stream}

    def code(self, status: int, code: str) -> str:
        """What an error of ours is called there."""
        return ANTHROPICS[status] if self.api == "messages" else code


class Told(msgspec.Struct, frozen=True):
    """An error as a client reads it. `code` is Anthropic's `type` on Anthropic's paths."""

    code: str
    message: str


class Heard(msgspec.Struct, frozen=True):
    """What a client makes of an answer's body. `done`: the stream said that it is through; `odd`: what is wrong with its shape."""

    text: str
    error: Told | None
    done: bool
    odd: list[str]


def hear(door: Door, answer: httpx.Response) -> Heard:
    streamed = answer.headers.get("content-type", "").startswith("text/event-stream")
    if answer.status_code != 200:
        told, odd = _refusal(door, answer)
        return Heard("", told, done=False, odd=odd)
    if not streamed:
        return Heard("".join(_whole(door.api, answer.json())), None, done=False, odd=[])
    events = list(_events(answer.text))
    match door.api:
        case "responses":
            return _responses(events)
        case "messages":
            return _messages(events)
        case "chat" | "embeddings":
            return _chat(events, answer.text)


def _refusal(door: Door, answer: httpx.Response) -> tuple[Told, list[str]]:
    value = answer.json()
    error = value["error"]
    odd = []
    if door.api == "messages":
        if value.keys() != {"type", "error", "request_id"} or error.keys() != {"type", "message"}:
            odd.append(f"not Anthropic's shape: {value}")
        elif (value["type"], value["request_id"]) != ("error", answer.headers.get("request-id")):
            odd.append(f"not Anthropic's values: {value}")
        return Told(error["type"], error["message"]), odd
    if value.keys() != {"error"} or error.keys() != {"message", "type", "param", "code"}:
        odd.append(f"not OpenAI's shape: {value}")
    return Told(error.get("code") or error["type"], error["message"]), odd


def _whole(api: Api, value: Json) -> Iterator[str]:
    match api:
        case "chat":
            yield from (choice["message"]["content"] for choice in value["choices"])
        case "embeddings":
            yield TEXT if value["data"][0]["embedding"] else ""
        case "responses":
            yield from (part["text"] for item in value["output"] for part in item.get("content", ()))
        case "messages":
            yield from (block["text"] for block in value["content"] if block["type"] == "text")


def _events(text: str) -> Iterator[tuple[str | None, Json]]:
    """Name and object of each event but `[DONE]`; comments are left out."""
    for block in text.split("\n\n"):
        lines = [line.partition(": ") for line in block.split("\n")]
        name = next((value for field, _, value in lines if field == "event"), None)
        data = [value for field, _, value in lines if field == "data"]
        if data and data != ["[DONE]"]:
            yield name, json.loads("\n".join(data))


def _chat(events: list[tuple[str | None, Json]], raw: str) -> Heard:
    errors = [value["error"] for _, value in events if "error" in value]
    texts = [choice["delta"].get("content") or "" for _, value in events for choice in value.get("choices", ())]
    odd = [f"not OpenAI's shape: {one}" for one in errors if one.keys() != {"message", "type", "param", "code"}]
    told = Told(errors[0]["code"] or errors[0]["type"], errors[0]["message"]) if errors else None
    return Heard("".join(texts), told, done=raw.endswith("data: [DONE]\n\n"), odd=odd)


def _responses(events: list[tuple[str | None, Json]]) -> Heard:
    odd, kinds = [], [value["type"] for _, value in events]
    if [name for name, _ in events] != kinds:
        odd.append("an event is not called what it is")
    if [value["sequence_number"] for _, value in events] != list(range(len(events))):
        odd.append("events are not numbered one after another")
    text = "".join(value["delta"] for _, value in events if value["type"] == "response.output_text.delta")
    last = events[-1][1].get("response", {})
    told = next((Told(value["code"], value["message"]) for _, value in events if value["type"] == "error"), None)
    if told is None:
        if kinds[-1:] == ["response.completed"] and "".join(_whole("responses", last)) != text:
            odd.append("the deltas are not the whole")
    elif kinds[-2:] != ["error", "response.failed"]:
        odd.append(f"an error ends with {kinds[-2:]}")
    elif (last["status"], bool(last["error"]["code"]), bool(last["error"]["message"])) != ("failed", True, True):
        odd.append(f"not how a response fails: {last['status']} {last['error']}")
    return Heard(text, told, done=kinds[-1:] == ["response.completed"], odd=odd)


def _messages(events: list[tuple[str | None, Json]]) -> Heard:
    odd, kinds = [], [value["type"] for _, value in events]
    if [name for name, _ in events] != kinds:
        odd.append("an event is not called what it is")
    if kinds.count("message_start") != 1:
        odd.append(f"{kinds.count('message_start')} beginnings")
    deltas = [value["delta"] for _, value in events if value["type"] == "content_block_delta"]
    errors = [value for _, value in events if value["type"] == "error"]
    odd += [
        f"not Anthropic's shape: {value}"
        for value in errors
        if value["error"].keys() != {"type", "message"} or not value.get("request_id")
    ]
    if errors and kinds[-1] != "error":
        odd.append(f"an error is followed by {kinds[-1]}")
    told = Told(errors[0]["error"]["type"], errors[0]["error"]["message"]) if errors else None
    return Heard("".join(d["text"] for d in deltas if "text" in d), told, done=kinds[-1:] == ["message_stop"], odd=odd)


def overheated(door: Door) -> str:
    """A body that tells an error under a status of 200."""
    match door.place:
        case {"provider": "anthropic"}:
            return '{"type": "error", "error": {"type": "api_error", "message": "overheated"}}'
        case {"responses": True}:
            failed = {"id": "resp_x", "object": "response", "status": "failed", "output": []}
            return json.dumps(failed | {"error": {"code": "server_error", "message": "overheated"}})
        case _:
            return '{"error": {"message": "overheated", "type": "server_error"}}'


def unfinished(door: Door) -> str:
    """A stream that says two words, and ends without saying why."""
    match door.place:
        case {"provider": "anthropic"}:
            message: Json = {"id": "msg_x", "type": "message", "role": "assistant", "model": "m", "content": []}
            message |= {"usage": {"input_tokens": 1, "output_tokens": 1}, "stop_reason": None}
            events: list[Json] = [{"type": "message_start", "message": message}]
            events.append({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
            delta = {"type": "text_delta", "text": "water turns"}
            events.append({"type": "content_block_delta", "index": 0, "delta": delta})
        case {"responses": True}:
            response = {"id": "resp_x", "object": "response", "status": "in_progress", "output": []}
            at = {"item_id": "msg_x", "output_index": 0, "content_index": 0, "logprobs": []}
            events = [{"type": "response.created", "response": response}]
            events.append({"type": "response.output_text.delta", "delta": "water turns", **at})
        case _:
            choice = {"index": 0, "delta": {"content": "water turns"}, "finish_reason": None}
            return f"data: {json.dumps({'choices': [choice]})}\n\n"
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)


def end_alone(door: Door) -> str:
    """A stream that says nothing but that it is through."""
    if door.place is CLAUDE:
        return 'event: message_stop\ndata: {"type": "message_stop"}\n\n'
    return "data: [DONE]\n\n"


DOORS: Final = (
    Door("chat", "chat"),
    Door("stream", "chat", stream=True),
    Door("embeddings", "embeddings"),
    Door("responses", "responses", other=RESPONSES),
    Door("responses stream", "responses", stream=True, other=RESPONSES),
    Door("native responses", "responses", place=RESPONSES),
    Door("native responses stream", "responses", stream=True, place=RESPONSES, opening=3, counted=0),
    Door("messages", "messages", other=CLAUDE),
    Door("messages stream", "messages", stream=True, other=CLAUDE),
    Door("native messages", "messages", place=CLAUDE),
    Door("native messages stream", "messages", stream=True, place=CLAUDE, opening=2, counted=0),
)
