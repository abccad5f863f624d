"""Tools of the Messages API as chat has them. Only those that the client runs itself can be: the provider's own run at Anthropic alone."""

import msgspec
from msgspec import UNSET, Raw

from gateway import errors
from gateway.bodies import NULL
from gateway.fronts.chat_wire import Function, Tool
from gateway.wire import present

CUSTOM = frozenset({None, "custom"})


class AskedTool(msgspec.Struct, gc=False):
    name: str = ""
    type: str | None = None
    description: str | None = None
    input_schema: Raw = NULL
    strict: bool | None = None
    input_examples: Raw = NULL
    allowed_callers: list[str] | None = None
    defer_loading: bool | None = None
    cache_control: Raw = NULL


class AskedChoice(msgspec.Struct, gc=False):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


def tool(asked: AskedTool, at: str, *, marked: bool) -> Tool:
    """Raises BadRequest."""
    if asked.type not in CUSTOM:
        raise errors.BadRequest(
            f"'{at}.type' is {asked.type!r}, which runs at Anthropic alone; this model's provider takes the client's own tools",
            param=f"{at}.type",
            code="unsupported_value",
        )
    if asked.defer_loading or (asked.allowed_callers is not None and "direct" not in asked.allowed_callers):
        name = "defer_loading" if asked.defer_loading else "allowed_callers"
        raise errors.BadRequest(
            f"'{at}.{name}' needs a tool of Anthropic's own", param=f"{at}.{name}", code="unsupported_value"
        )
    description = asked.description
    if present(asked.input_examples):  # a part of the prompt, which has no field of its own in chat
        examples = f"Examples of inputs: {bytes(asked.input_examples).decode()}"
        description = examples if description is None else f"{description}\n\n{examples}"
    return Tool(
        Function(
            asked.name,
            description,
            asked.input_schema if present(asked.input_schema) else UNSET,
            True if asked.strict else None,
        ),
        "function",
        cache_control=asked.cache_control if marked and present(asked.cache_control) else UNSET,
    )


def choice(asked: AskedChoice) -> str | dict[str, object]:
    """Raises BadRequest."""
    match asked.type:
        case "auto" | "none":
            return asked.type
        case "any":
            return "required"
        case "tool" if asked.name is not None:
            return {"type": "function", "function": {"name": asked.name}}
        case _:
            raise errors.BadRequest(
                "'tool_choice.type' is 'auto', 'any', 'tool' with a name, or 'none'",
                param="tool_choice.type",
                code="invalid_value",
            )
