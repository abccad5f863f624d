"""Tools and formats of answers: what OpenAI's clients ask for, as the Messages API takes it.

A schema for the answer is the model's own business where it can keep to one. An older model gets a tool whose input has that schema,
and must call it; `anthropic_answer` and `anthropic_stream` make content of such a call again.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Raw

from gateway import errors
from gateway.dialects import chat
from gateway.dialects.anthropic_messages import cache_control
from gateway.dialects.anthropic_models import Traits
from gateway.dialects.anthropic_wire import Text, Tool, ToolChoice
from gateway.wire import present

ANSWER_TOOL: Final = "penstock_answer_in_json"
JSON_ONLY: Final = Text("Answer with one valid JSON object and nothing else: no prose around it, no code fence.")

_NO_PARAMETERS: Final = Raw(b'{"type":"object","properties":{}}')


class Toolbox(msgspec.Struct, frozen=True):
    """`forced`: the model must call a tool, which the API does not combine with thinking on most models."""

    tools: list[Tool] | None = None
    choice: ToolChoice | None = None

    @property
    def forced(self) -> bool:
        return self.choice is not None and self.choice.type in {"any", "tool"}


class Format(msgspec.Struct, frozen=True):
    """How an answer is to look: at most one of the three."""

    schema: Raw | None = None
    instruction: Text | None = None
    tool: Tool | None = None


def toolbox(request: chat.Chat, of: Traits, answer_tool: Tool | None) -> Toolbox:
    """Raises BadRequest."""
    tools = [_tool(tool, of, f"tools[{index}]") for index, tool in enumerate(request.tools or ())]
    kind, name, allowed = _choice(request.tool_choice)
    if allowed is not None:
        tools = [tool for tool in tools if tool.name in allowed]
    single = request.parallel_tool_calls is False
    if answer_tool is not None:
        return _with_answer(tools, answer_tool, kind, name, single=single)
    if not tools:
        return Toolbox()
    if kind is None and not single:
        return Toolbox(tools)
    kind = kind or "auto"
    return Toolbox(tools, ToolChoice(kind, name, disable_parallel_tool_use=single and kind != "none"))


def answer_format(wanted: chat.ResponseFormat | None, of: Traits) -> Format:
    """Raises BadRequest."""
    match wanted.type if wanted is not None else "text":
        case "text":
            return Format()
        case "json_object":
            return Format(instruction=JSON_ONLY)
        case "json_schema":
            given = wanted.json_schema if wanted is not None else None
            if given is None or given.schema is None:
                at = "response_format.json_schema.schema"
                raise errors.BadRequest(
                    f"Missing required parameter: '{at}'", param=at, code="missing_required_parameter"
                )
            schema = Raw(msgspec.json.encode(closed(given.schema)))
            if of.schema:
                return Format(schema=schema)
            return Format(tool=Tool(ANSWER_TOOL, schema, given.description or "Gives the answer to the user."))
        case other:
            raise errors.BadRequest(f"Unknown format {other!r}", param="response_format.type", code="unsupported_value")


def closed(schema: object) -> object:
    """The schema with objects that allow no more than they name, unless they say so: the API wants it spelled out."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: closed(part) for name, part in schema.items()}
    if made.get("type") == "object" and made.get("properties") and "additionalProperties" not in made:
        made["additionalProperties"] = False
    return made


def _tool(tool: chat.Tool, of: Traits, at: str) -> Tool:
    function = tool.function
    if function is None:
        raise errors.BadRequest(
            f"Claude gets functions as tools, not {tool.type!r}", param=f"{at}.type", code="unsupported_value"
        )
    return Tool(
        function.name,
        function.parameters if present(function.parameters) else _NO_PARAMETERS,
        function.description,
        strict=function.strict is True and of.schema,
        cache_control=cache_control(tool.cache_control, function.cache_control),
    )


def _choice(given: str | chat.ToolChoice | None) -> tuple[str | None, str | None, frozenset[str] | None]:
    """Anthropic's kind of choice, the tool that is meant, and the names that may be called."""
    match given:
        case None:
            return None, None, None
        case "auto" | "none":
            return given, None, None
        case "required":
            return "any", None, None
        case chat.ToolChoice(type="function", function=chat.NamedFunction(name=name)):
            return "tool", name, None
        case chat.ToolChoice(type="allowed_tools", allowed_tools=chat.AllowedTools(mode=mode, tools=tools)):
            names = frozenset(tool.function.name for tool in tools if tool.function is not None)
            return ("any" if mode == "required" else "auto"), None, names
        case _:
            raise errors.BadRequest(
                "'tool_choice' is 'none', 'auto', 'required', a function or allowed tools",
                param="tool_choice",
                code="unsupported_value",
            )


def _with_answer(tools: Sequence[Tool], answer: Tool, kind: str | None, name: str | None, *, single: bool) -> Toolbox:
    """The tool that stands for an answer, beside those that may be called before it."""
    if kind == "tool":
        return Toolbox([*tools, answer], ToolChoice("tool", name, disable_parallel_tool_use=single))
    if not tools or kind == "none":
        return Toolbox([*tools, answer], ToolChoice("tool", ANSWER_TOOL, disable_parallel_tool_use=True))
    return Toolbox([*tools, answer], ToolChoice("any", disable_parallel_tool_use=single))
