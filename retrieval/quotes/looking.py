"""Whether a question is looked up before it is answered: a search that the request offers as a function, and has not been called for it."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

_SEARCH: Final = re.compile(r"file_search(_\d+)?")
_CHOICES: Final = (None, "auto", "required")


def function_of(request: Mapping[str, Any]) -> str | None:
    """The name of the function that takes `queries`, as the gateway offers `file_search`; None where there is none to be called."""
    tools = request.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict):
            continue
        name = function.get("name")
        if isinstance(name, str) and _SEARCH.fullmatch(name) and _takes_queries(function):
            return name
    return None


def wanted(request: Mapping[str, Any]) -> str | None:
    """The function to call now: what it found is not there yet, and the client has not forbidden it."""
    name = function_of(request)
    if name is None or not (request.get("tool_choice") in _CHOICES or chosen(request, name)):
        return None
    return None if _found(request["messages"]) else name


def chosen(request: Mapping[str, Any], name: str) -> bool:
    """Whether the client insists on this function."""
    return request.get("tool_choice") in ("required", {"type": "function", "function": {"name": name}})


def arguments(question: str) -> str:
    return msgspec.json.encode({"queries": [question]}).decode()


def _takes_queries(function: Mapping[str, Any]) -> bool:
    parameters = function.get("parameters")
    properties = parameters.get("properties") if isinstance(parameters, dict) else None
    return isinstance(properties, dict) and "queries" in properties


def _found(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a tool has said something since the user has."""
    for message in reversed(messages):
        if message.get("role") in {"tool", "function"}:
            return True
        if message.get("role") == "user":
            return False
    return False
