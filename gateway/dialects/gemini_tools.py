"""Tools and formats of answers: what OpenAI's clients ask for, as the Gemini API takes it. Schemas go through as they are."""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import UNSET, Raw

from gateway import errors
from gateway.dialects import chat
from gateway.dialects.gemini_wire import FunctionCallingConfig, FunctionDeclaration, MaybeRaw, Tool, ToolConfig
from gateway.wire import present

JSON: Final = "application/json"


class Toolbox(msgspec.Struct, frozen=True):
    tools: list[Tool] | None = None
    config: ToolConfig | None = None


class Format(msgspec.Struct, frozen=True):
    """How an answer is to look."""

    mime_type: str | None = None
    schema: MaybeRaw = UNSET


class _Parameters(msgspec.Struct, gc=False):
    properties: dict[str, Raw] | None = None


_parameters: Final = msgspec.json.Decoder(_Parameters)


def toolbox(request: chat.Chat) -> Toolbox:
    """Raises BadRequest."""
    declared = [_declaration(tool, f"tools[{index}]") for index, tool in enumerate(request.tools or ())]
    mode, allowed = _choice(request.tool_choice)
    if allowed is not None and mode == "AUTO":  # only a forced call can be limited to some names
        declared = [function for function in declared if function.name in allowed]
    if not declared:
        if mode == "ANY":
            raise errors.BadRequest(
                "'tool_choice' wants a call, and there are no 'tools'", param="tool_choice", code="invalid_value"
            )
        return Toolbox()
    if request.parallel_tool_calls is False and mode != "NONE":
        raise errors.BadRequest(
            "Gemini may always call several tools at once; leave 'parallel_tool_calls' out",
            param="parallel_tool_calls",
            code="unsupported_value",
        )
    names = sorted(allowed) if allowed is not None and mode == "ANY" else None
    config = None if mode is None else ToolConfig(FunctionCallingConfig(mode, names))
    return Toolbox([Tool(declared)], config)


def answer_format(wanted: chat.ResponseFormat | None) -> Format:
    """Raises BadRequest."""
    match wanted.type if wanted is not None else "text":
        case "text":
            return Format()
        case "json_object":
            return Format(JSON)
        case "json_schema":
            given = wanted.json_schema if wanted is not None else None
            if given is None or given.schema is None:
                at = "response_format.json_schema.schema"
                raise errors.BadRequest(
                    f"Missing required parameter: '{at}'", param=at, code="missing_required_parameter"
                )
            return Format(JSON, Raw(msgspec.json.encode(given.schema)))
        case other:
            raise errors.BadRequest(f"Unknown format {other!r}", param="response_format.type", code="unsupported_value")


def _declaration(tool: chat.Tool, at: str) -> FunctionDeclaration:
    function = tool.function
    if function is None:
        raise errors.BadRequest(
            f"Gemini gets functions as tools, not {tool.type!r}", param=f"{at}.type", code="unsupported_value"
        )
    return FunctionDeclaration(function.name, function.description or None, _schema(function.parameters, at))


def _schema(parameters: Raw, at: str) -> MaybeRaw:
    """A function without parameters has no schema: the API refuses an object without properties."""
    if not present(parameters):
        return UNSET
    try:
        return parameters if _parameters.decode(parameters).properties else UNSET
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        param = f"{at}.function.parameters"
        raise errors.BadRequest("Parameters are a JSON schema", param=param, code="invalid_value") from None


def _choice(given: str | chat.ToolChoice | None) -> tuple[str | None, frozenset[str] | None]:
    """Gemini's mode, and the names that may be called."""
    match given:
        case None:
            return None, None
        case "auto" | "none":
            return given.upper(), None
        case "required":
            return "ANY", None
        case chat.ToolChoice(type="function", function=chat.NamedFunction(name=name)):
            return "ANY", frozenset({name})
        case chat.ToolChoice(type="allowed_tools", allowed_tools=chat.AllowedTools(mode=mode, tools=tools)):
            return ("ANY" if mode == "required" else "AUTO"), _names(tools)
        case _:
            raise errors.BadRequest(
                "'tool_choice' is 'none', 'auto', 'required', a function or allowed tools",
                param="tool_choice",
                code="unsupported_value",
            )


def _names(tools: Sequence[chat.AllowedTool]) -> frozenset[str]:
    return frozenset(tool.function.name for tool in tools if tool.function is not None)
