"""docs/openai.md claims methods of the SDKs: each has a test in each of them, and what the SDKs have beside that is said not to be here."""

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Final

import anthropic
import openai
import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = (ROOT / "docs" / "openai.md").read_text()
METHOD: Final = re.compile(r"`([a-z_.]+(?:\(stream\))?)`")
NEW_WORD: Final = re.compile(r"_([a-z])")
RAW: Final = frozenset(("with_raw_response", "with_streaming_response", "beta"))
NO_SDK: Final = frozenset(("rerank", "predict", "feedback"))  # what OpenAI does not have


def table(after: str) -> dict[str, list[set[str]]]:
    """By resource, its methods column by column, of the first table behind some words."""
    lines = PAGE.partition(after)[2].lstrip("\n").partition("|")[2].split("\n\n")[0].split("\n")[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name.strip("`"): [set(METHOD.findall(cell)) for cell in cells] for name, *cells in rows}


def named(rows: dict[str, list[set[str]]], *columns: int) -> set[str]:
    return {f"{name}.{method}" for name, cells in rows.items() for column in columns for method in cells[column]}


OPENAIS: Final = table("## Methods of the SDKs")
ANTHROPICS: Final = table("And `anthropic` for Python:")


def called(package: str) -> set[str]:
    """What tests that import a package call of its clients, as `resource.method` or `resource.method(stream)`."""
    found: set[str] = set()
    for path in ROOT.glob("tests/**/*.py"):
        source = path.read_text()
        if re.search(rf"^\s*(?:import|from) {package}\b", source, re.MULTILINE):
            found.update(name for node in ast.walk(ast.parse(source)) for name in _call(node))
    return found


def _call(node: ast.AST) -> Iterator[str]:
    if not isinstance(node, ast.Call):
        return
    parts: list[str] = []
    at: ast.expr = node.func
    while isinstance(at, ast.Attribute):
        parts.insert(0, at.attr)
        at = at.value
    if not isinstance(at, ast.Name):
        return
    name = ".".join(part for part in parts if part not in RAW)
    streams = any(
        keyword.arg in {"stream", "stream_format"}
        and isinstance(keyword.value, ast.Constant)
        and keyword.value.value in {True, "sse"}
        for keyword in node.keywords
    )
    yield f"{name}(stream)" if streams else name
    if at.id == "streaming":  # `client.audio.speech.with_streaming_response`, under a name
        yield f"audio.speech.{name}(stream)"


def public(resource: object, prefix: str) -> Iterator[str]:
    """Every method of an SDK's resource and of those below it."""
    for name in dir(type(resource)):
        attribute = inspect.getattr_static(type(resource), name)
        if name.startswith(("_", "with_")):
            continue
        if isinstance(attribute, cached_property):
            yield from public(getattr(resource, name), f"{prefix}{name}.")
        elif callable(attribute):
            yield prefix + name


@pytest.mark.parametrize(
    ("package", "claimed"),
    [("openai", named(OPENAIS, 0, 1)), ("anthropic", named(ANTHROPICS, 0))],
    ids=["openai", "anthropic"],
)
def test_each_claimed_method_is_called_by_a_test(package: str, claimed: set[str]) -> None:
    """Of the Python SDKs."""
    assert len(claimed) > 6
    assert claimed - called(package) == set()


def test_each_claimed_method_is_called_by_the_program_of_npm() -> None:
    """And no other one: the table and the program say the same."""
    program = set(
        re.findall(r'^  "([a-zA-Z.]+(?: stream)?)": async', (ROOT / "tests/npm/methods.mjs").read_text(), re.MULTILINE)
    )
    claimed = {NEW_WORD.sub(lambda found: found[1].upper(), name) for name in named(OPENAIS, 0, 2)}
    assert {name.replace("(stream)", " stream") for name in claimed} == program


@pytest.mark.parametrize("package", ["openai", "anthropic"])
def test_nothing_that_an_sdk_can_do_is_passed_over_in_silence(package: str) -> None:
    """A method that a new version brings is claimed, or said not to be here."""
    client: object = openai.OpenAI(api_key="x") if package == "openai" else anthropic.Anthropic(api_key="x")
    rows, columns = (OPENAIS, (0, 1, 3)) if package == "openai" else (ANTHROPICS, (0, 1))
    said = {name.removesuffix("(stream)") for name in named(rows, *columns)}
    resources = {name.partition(".")[0] for name in rows}
    has = {method for name in resources for method in public(getattr(client, name), f"{name}.")}
    assert has - said == set()
    assert said - has == set()


def test_each_path_that_is_served_has_methods_that_are_claimed() -> None:
    """The table of paths and the table of methods are about the same surface."""
    resources = {name for name, cells in {**OPENAIS, **ANTHROPICS}.items() if cells[0]}
    rows = [line.split("|") for line in PAGE.split("\n") if line.startswith(("| `POST /v", "| `GET /v", "| `/v"))]
    served = [cells[1] for cells in rows if not cells[2].strip().startswith(("refused", "on the way"))]
    assert len(served) > 12
    for cell in served:
        path = re.search(r"/v\d/([a-z_/]+)", cell)
        assert path is not None
        dotted = path[1].strip("/").replace("/", ".")
        parts = {dotted, dotted.partition(".")[0]}
        assert parts & (resources | NO_SDK), f"{cell} has no row among the methods"
