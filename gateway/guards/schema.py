"""Structured output that has to be what its schema says, and what a model is told that got it wrong."""

from collections.abc import Mapping
from typing import Any, Final, NoReturn, final

import msgspec

MOST_PROBLEMS: Final = 5
NEEDED: Final = "a guard of the kind json_schema needs jsonschema-rs: install the extra `guards`"
_decode: Final = msgspec.json.Decoder().decode


@final
class Schema:
    """Raises LookupError where what checks it is not installed, ValueError for what is no schema."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        try:
            import jsonschema_rs  # noqa: PLC0415 — for those who have such guards
        except ImportError as error:
            raise LookupError(NEEDED) from error
        # Patterns in time that grows with the text alone, and no reference that is fetched from somewhere.
        self._validator = jsonschema_rs.validator_for(
            dict(schema), pattern_options=jsonschema_rs.RegexOptions(), retriever=_fetch_nothing
        )

    def problems(self, text: str) -> list[str]:
        """What is wrong with a text, by place and keyword, without its values; empty for what is right."""
        try:
            value = _decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            return [f"it is not JSON: {error}"]
        found = []
        for wrong in self._validator.iter_errors(value):
            place = "/".join(str(part) for part in wrong.instance_path) or "the top level"
            keyword = "/".join(str(part) for part in list(wrong.schema_path)[-2:])
            found.append(f"at {place}: {keyword} does not hold")
            if len(found) >= MOST_PROBLEMS:
                break
        return found


def schema_of(fields: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The schema that a request itself asks for, in any of the APIs."""
    for outer, inner in (
        ("response_format", "json_schema"),
        ("text", "format"),
        ("output_config", "format"),
        ("output_format", None),
    ):
        given = fields.get(outer)
        named = given.get(inner) if inner is not None and isinstance(given, dict) else given
        found = named.get("schema") if isinstance(named, dict) else None
        if isinstance(found, dict):
            return found
    return None


def asked_again(endpoint: str, fields: Mapping[str, Any], said: str, problems: list[str]) -> dict[str, Any] | None:
    """The request for another try; None where the API has no turns."""
    told = (
        "Your answer is not what was asked for: "
        + "; ".join(problems)
        + ". Answer again with the corrected JSON and nothing else."
    )
    turns = [{"role": "assistant", "content": said or "(nothing)"}, {"role": "user", "content": told}]
    match endpoint:
        case "chat" | "messages":
            return {**fields, "messages": [*fields["messages"], *turns]}
        case "responses":
            before = fields["input"]
            items = [{"role": "user", "content": before}] if isinstance(before, str) else list(before)
            return {**fields, "input": [*items, *turns]}
        case _:
            return None


def _fetch_nothing(uri: str) -> NoReturn:
    raise ValueError(f"{uri} is not part of the schema")
