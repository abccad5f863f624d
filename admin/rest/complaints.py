"""What pydantic has against a body, as one sentence for whoever sent it: which field, and what is wrong with it. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from gateway.errors import BadRequest

Fault = Mapping[str, Any]

MOST_PARAM: Final = 200
_CODES: Final = {
    "missing": "missing_required_parameter",
    "extra_forbidden": "unknown_parameter",
    "json_invalid": "invalid_json",
}
_TAGS: Final = frozenset(("str", "int", "float", "bool", "none", "date", "datetime", "bytes", "literal"))  # of unions
_WORDS: Final = ((" after validation", ""), ("Tuple", "List"), ("valid tuple", "valid list"), ("Dictionary", "Object"))
_SHOULD: Final = "Input should be "


def complaint(errors: Sequence[Fault]) -> BadRequest:
    """The first of pydantic's complaints, with the other branches of its union, if it is about one."""
    first = errors[0]
    place, *path = first["loc"]
    code = _CODES.get(first["type"], "invalid_value")
    if first["type"] == "json_invalid":
        return BadRequest(f"The body is not valid JSON: {first['ctx']['error']}.", code=code)
    if not path:
        said = _message(first)
        end = ". Send a JSON object." if first["type"] == "model_type" else "."
        return BadRequest(f"The {place} is not valid: {said}{end}", code=code)
    chosen, message = _of_union(errors) or (first, _message(first))
    param = ".".join(str(part) for part in chosen["loc"][1:] if not _branch(part) or _named(chosen, part))[:MOST_PARAM]
    return BadRequest(f"{param}: {message}.", param=param, code=_CODES.get(chosen["type"], "invalid_value"))


def _of_union(errors: Sequence[Fault]) -> tuple[Fault, str] | None:
    """What is wrong with a value that may be of several kinds: what its own kind demands, else which kinds there are."""
    loc = errors[0]["loc"]
    at = next((place for place, part in enumerate(loc) if place and _branch(part) and part != "[key]"), None)
    if at is None:
        return None
    branches = [each for each in errors if each["loc"][:at] == loc[:at] and len(each["loc"]) > at]
    if len(branches) < 2:
        return None
    fitting = [each for each in branches if not each["type"].endswith(("_type", "_parsing"))]
    if fitting:
        return fitting[0], _message(fitting[0])
    kinds = dict.fromkeys(_message(each).removeprefix(_SHOULD) for each in branches if len(each["loc"]) == at + 1)
    inner = next((each for each in branches if len(each["loc"]) > at + 1), None)
    if not kinds or (inner is not None and len(kinds) < len(branches) - 1):
        return branches[-1], _message(branches[-1])
    if inner is not None:  # a list was given, and one of its elements is none
        return inner, _message(inner)
    return branches[0], _SHOULD + " or ".join(kinds)


def _branch(part: object) -> bool:
    """How pydantic names a branch of a union, or the key of a mapping; no field of ours is called so."""
    return isinstance(part, str) and (part in _TAGS or "[" in part)


def _named(fault: Fault, part: object) -> bool:
    """Fields that are called like a type, where there is no union."""
    return part in _TAGS and fault["loc"][-1] != part


def _message(fault: Fault) -> str:
    context = fault.get("ctx") or {}
    if fault["type"] in ("too_long", "too_short") and context.get("field_type") == "Value":  # a text behind a validator
        bound = context.get("max_length", context.get("min_length"))
        how = "most" if fault["type"] == "too_long" else "least"
        return f"Text should have at {how} {bound} character{'' if bound == 1 else 's'}, not {context.get('actual_length')}"
    said = str(fault["msg"]).removeprefix("Value error, ")
    for ours, theirs in _WORDS:
        said = said.replace(ours, theirs)
    return said
