"""`${VAR}`, `${VAR:-default}` and `$$`."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from admin.references import UnresolvedError, references, resolve


@pytest.mark.parametrize(
    ("text", "environ", "expected"),
    [
        ("plain", {}, "plain"),
        ("${A}", {"A": "1"}, "1"),
        ("${A:-d}", {}, "d"),
        ("${A:-d}", {"A": ""}, "d"),
        ("${A:-}", {}, ""),
        ("${A}", {"A": ""}, ""),
        ("http://${H:-x}:${P}/", {"P": "1"}, "http://x:1/"),
        ("$$", {}, "$"),
        ("$${A}", {"A": "1"}, "${A}"),
        ("5$ and $HOME", {}, "5$ and $HOME"),
        ("${A}", {"A": "${B}"}, "${B}"),
    ],
)
def test_references_are_replaced(text: str, environ: dict[str, str], expected: str) -> None:
    """Values are taken as they are: what a variable holds is never read as a reference again."""
    assert resolve(text, environ) == expected


def test_a_missing_variable_is_named_with_the_way_out() -> None:
    """The message says which variable, and that a default would do."""
    with pytest.raises(UnresolvedError, match=r"SOME_KEY is not set.*\$\{SOME_KEY:-"):
        resolve("a${SOME_KEY}", {})


@pytest.mark.parametrize("text", ["${", "${}", "${1A}", "${A", "${A-b}", "${a b}"])
def test_a_malformed_reference_is_refused(text: str) -> None:
    """A typing error does not pass for text."""
    with pytest.raises(UnresolvedError, match="a reference is written"):
        resolve(text, {"A": "1"})


def test_the_variables_of_a_text_can_be_listed() -> None:
    """In order, without what `$$` escapes."""
    assert references("${A}${B:-c}$${D}") == ("A", "B")


@settings(deadline=None)
@given(st.text(alphabet="${}:-AB_ \n", max_size=40))
def test_any_text_resolves_or_is_refused(text: str) -> None:
    """No input ends in another exception."""
    with contextlib.suppress(UnresolvedError):
        assert "${A}" not in resolve(text, {"A": "1"}) or "$$" in text
