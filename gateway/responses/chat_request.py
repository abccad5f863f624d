"""A Responses request as a chat request: the same question to a deployment that knows no other way to be asked."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw

from gateway import errors
from gateway.bodies import NULL
from gateway.responses.chat_messages import Json, Thoughts, messages, unsupported
from gateway.responses.items import LOGPROBS, given
from gateway.wire import present

BYTES_PER_TOKEN: Final = 4  # of a guess at what fits into a context


class Format(msgspec.Struct, gc=False):
    type: str = "text"
    name: str = ""
    schema: Raw = NULL
    strict: bool | None = None
    description: str | None = None


class Text(msgspec.Struct, gc=False):
    format: Format | None = None
    verbosity: str | None = None


class Reasoning(msgspec.Struct, gc=False):
    effort: str | None = None
    summary: str | None = None


class Grammar(msgspec.Struct, gc=False):
    """How a custom tool's input looks."""

    type: str = "text"
    syntax: str | None = None
    definition: str | None = None


class Tool(msgspec.Struct, gc=False):
    type: str
    name: str = ""
    description: str | None = None
    parameters: Raw = NULL
    strict: bool | None = None
    format: Grammar | None = None


class Choice(msgspec.Struct, gc=False):
    type: str
    name: str = ""
    mode: str = "auto"
    tools: list[Tool] = []


class Asked(msgspec.Struct, gc=False):
    """What a translation reads. Bounds were checked by `gateway.wire`."""

    input: Raw = NULL
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: int | None = None
    max_completion_tokens: int | None = None  # this and the next come from the parameters of a route
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    include: list[str] | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    text: Text | None = None
    tools: list[Tool] | None = None
    tool_choice: str | Choice | None = None
    truncation: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None
    prompt: Raw = NULL
    moderation: Raw = NULL
    context_management: Raw = NULL


_asked: Final = msgspec.json.Decoder(Asked)
_encode: Final = msgspec.json.Encoder().encode
_PASSED_ON: Final = (
    "temperature",
    "top_p",
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "service_tier",
)
_REFUSED: Final = ("prompt", "moderation", "context_management")


def chat_request(
    body: bytes, model: str, *, limit: str, thoughts: Thoughts = "none", context_tokens: int | None = None
) -> bytes:
    """The body of the chat. `limit` is the name under which the deployment knows `max_output_tokens`.

    `context_tokens`: what the model takes at most, for `truncation: auto`. Raises BadRequest for what chat cannot do.
    """
    try:
        asked = _asked.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _invalid(error) from None
    for name in _REFUSED:
        if present(getattr(asked, name)):
            raise unsupported(f"'{name}'", name, "unsupported_parameter")
    said = messages(asked.instructions, given(asked.input), thoughts)
    if asked.truncation == "auto" and context_tokens is not None:
        said = shortened(said, context_tokens * BYTES_PER_TOKEN)
    made: Json = {"model": model, "messages": said}
    made |= {name: value for name in _PASSED_ON if (value := getattr(asked, name)) is not None}
    most = asked.max_output_tokens or asked.max_completion_tokens or asked.max_tokens
    if most is not None:
        made[limit] = most
    if asked.stream:
        made |= {"stream": True, "stream_options": {"include_usage": True}}
    if asked.include is not None and LOGPROBS in asked.include:
        made |= {"logprobs": True, "top_logprobs": asked.top_logprobs or 0}
    if asked.reasoning is not None and asked.reasoning.effort is not None:
        made["reasoning_effort"] = asked.reasoning.effort
    made |= _tools(asked) | _text(asked.text)
    return _encode(made)


def shortened(said: Sequence[Json], most_bytes: int) -> list[Json]:
    """Without as many of the oldest turns as it takes to fit. What the system said stays, and so does the last turn.

    A turn begins with a user's message, so that no result of a call is left without its call.
    """
    turns: list[list[Json]] = [[]]
    for one in said:
        if one["role"] == "user":
            turns.append([])
        turns[-1].append(one)
    over = sum(len(_encode(one)) for one in said) - most_bytes
    kept: list[Json] = []
    for turn in turns[:-1]:
        system = [one for one in turn if one["role"] == "system"]
        kept += system if over > 0 else turn
        if over > 0:
            over -= sum(len(_encode(one)) for one in turn if one["role"] != "system")
    return kept + turns[-1]


def _tools(asked: Asked) -> Json:
    if not asked.tools:
        return {}
    made: Json = {"tools": [_tool(tool, f"tools[{number}]") for number, tool in enumerate(asked.tools)]}
    if asked.tool_choice is not None:
        made["tool_choice"] = _choice(asked.tool_choice)
    if asked.parallel_tool_calls is not None:
        made["parallel_tool_calls"] = asked.parallel_tool_calls
    return made


def _tool(tool: Tool, at: str) -> Json:
    if tool.type == "function":
        function: Json = {"name": tool.name}
        if tool.description is not None:
            function["description"] = tool.description
        if present(tool.parameters):
            function["parameters"] = tool.parameters
        if tool.strict is not None:
            function["strict"] = tool.strict
        return {"type": "function", "function": function}
    if tool.type == "custom":
        custom: Json = {"name": tool.name}
        if tool.description is not None:
            custom["description"] = tool.description
        if tool.format is not None:
            custom["format"] = _grammar(tool.format)
        return {"type": "custom", "custom": custom}
    raise unsupported(f"The built-in tool '{tool.type}'", f"{at}.type", "unsupported_tool")


def _grammar(form: Grammar) -> Json:
    if form.type != "grammar":
        return {"type": form.type}
    return {"type": "grammar", "grammar": {"syntax": form.syntax, "definition": form.definition}}


def _choice(choice: str | Choice) -> Any:
    if isinstance(choice, str):
        return choice
    match choice.type:
        case "function" | "custom":
            return _named(choice.type, choice.name)
        case "allowed_tools":
            tools = []
            for number, tool in enumerate(choice.tools):
                if tool.type not in {"function", "custom"}:
                    at = f"tool_choice.tools[{number}].type"
                    raise unsupported(f"The built-in tool '{tool.type}'", at, "unsupported_tool")
                tools.append(_named(tool.type, tool.name))
            return {"type": "allowed_tools", "allowed_tools": {"mode": choice.mode, "tools": tools}}
        case other:
            raise unsupported(f"The built-in tool '{other}'", "tool_choice.type", "unsupported_tool")


def _named(kind: str, name: str) -> Json:
    return {"type": kind, kind: {"name": name}}


def _text(text: Text | None) -> Json:
    made: Json = {}
    if text is None:
        return made
    if text.verbosity is not None:
        made["verbosity"] = text.verbosity
    form = text.format
    if form is None or form.type == "text":
        return made
    if form.type == "json_object":
        return made | {"response_format": {"type": "json_object"}}
    if form.type != "json_schema":
        raise unsupported(f"The format '{form.type}'", "text.format.type")
    schema: Json = {"name": form.name}
    if form.description is not None:
        schema["description"] = form.description
    if form.strict is not None:
        schema["strict"] = form.strict
    if present(form.schema):
        schema["schema"] = form.schema
    return made | {"response_format": {"type": "json_schema", "json_schema": schema}}


def _invalid(error: Exception) -> errors.BadRequest:
    text, _, where = str(error).partition(" - at `$")
    param = where.strip("`.") or None
    return errors.BadRequest(f"Invalid '{param or 'body'}': {text}", param=param, code="invalid_type")
