"""What decides without doing anything: patterns, programs, documents."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mcp.openapi import DocumentError, made, operations
from gateway.mcp.rights import Rights, matches
from gateway.mcp.settings import CommandSpec, permitted

TEXT = st.text("ab_*", max_size=12)


@given(TEXT, st.text("ab_", max_size=12))
def test_a_pattern_admits_what_a_regular_expression_would(pattern: str, name: str) -> None:
    """Without the time that one can take."""
    expected = re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), name) is not None
    assert matches(pattern, name) is expected


def test_what_is_named_restricts_and_what_is_not_does_not() -> None:
    """Servers and tools are two conditions; an empty list admits nothing."""
    assert Rights(("git*",), None).admits("github", "search")
    assert not Rights(("git*",), None).admits("crm", "search")
    assert Rights(None, ("*__get_*",)).admits("crm", "get_one")
    assert not Rights(("crm",), ("*__get_*",)).admits("crm", "put_one")
    assert not Rights((), None).admits_server("crm")


@pytest.mark.parametrize(
    ("args", "env", "fits"),
    [
        (("a",), (), True),
        (("a", "b"), (), False),
        ((), (), False),
        (("m", "x"), ("E",), True),
        (("m",), ("F",), False),
        (("n", "m"), (), False),
    ],
)
def test_a_program_is_what_the_file_says(args: tuple[str, ...], env: tuple[str, ...], fits: bool) -> None:
    """Exactly, or with more behind it where that is allowed."""
    allowed = (
        CommandSpec(command="/bin/x", args=("a",)),
        CommandSpec(command="/bin/x", args=("m",), more_args=True, env=("E",)),
    )
    assert (permitted("/bin/x", args, frozenset(env), allowed) is None) is fits
    assert permitted("x", args, frozenset(env), allowed) is not None


def document(**paths: Any) -> dict[str, Any]:
    return {"openapi": "3.1.0", "paths": {f"/{name}": {"get": item} for name, item in paths.items()}}


def test_a_document_that_refers_in_a_circle_comes_to_an_end() -> None:
    """References to references, and schemas that grow without end, leave their operation out and no other."""
    circle = {"parameters": [{"$ref": "#/paths/~1circle/get/parameters/0"}]}
    wide: dict[str, Any] = {
        "type": "object",
        "properties": {f"p{n}": {"$ref": f"#/components/schemas/L{n % 2}"} for n in range(30)},
    }
    bomb = {
        f"L{n}": {
            "type": "object",
            "properties": {f"p{m}": {"$ref": f"#/components/schemas/L{n + 1}"} for m in range(12)},
        }
        for n in range(12)
    }
    given_ = document(circle=circle, bomb={"parameters": [{"name": "a", "in": "query", "schema": wide}]}, fine={})
    given_["components"] = {"schemas": {**bomb, "L12": {"type": "string"}}}
    found, left = operations(given_)
    assert [one.name for one in found] == ["get_fine"]
    assert len(left) == 2


@pytest.mark.parametrize(
    "wrong", [{}, {"openapi": "2.0", "paths": {}}, {"openapi": "3.0.0", "paths": []}, {"swagger": "2.0"}]
)
def test_what_is_no_document_is_said_to_be_none(wrong: dict[str, Any]) -> None:
    """Before anything of it is read."""
    with pytest.raises(DocumentError):
        operations(wrong)


@given(st.text(max_size=30))
def test_no_argument_leads_to_another_path(text: str) -> None:
    """One segment stays one segment, whatever is in it."""
    item = {"parameters": [{"name": "id", "in": "path", "required": True, "schema": {}}]}
    given_: dict[str, Any] = {"openapi": "3.0.0", "paths": {"/a/{id}/b": {"get": item}}}
    (operation,), _ = operations(given_)
    if text in {"", ".", ".."}:
        with pytest.raises(ValueError, match="may not be"):
            made(operation, {"id": text})
        return
    path = made(operation, {"id": text}).path
    assert path.count("/") == 3
    assert "?" not in path
    assert "#" not in path
