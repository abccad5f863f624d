"""Reading `penstock.yaml`: lines, references, duplicates, and bounds against hostile files."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from admin.config_file import ConfigError, Document, parse, read


def parsed(text: str, **environ: str) -> Document:
    return parse(text.encode(), "penstock.yaml", environ)


def test_every_value_knows_its_line() -> None:
    """Keys and list items alike, in block and flow style."""
    document = parsed("a:\n  b: 1\nmodels:\n  - name: x\n    deployments: [{id: y}]\n")
    assert document.line(("a", "b")) == 2
    assert document.line(("models", 0)) == 4
    assert document.line(("models", 0, "deployments", 0, "id")) == 5


def test_an_unknown_path_has_the_line_of_what_is_around_it() -> None:
    """A missing key is reported where its section stands."""
    assert parsed("\na:\n  b: 1\n").line(("a", "missing", 3)) == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-5", -5),
        ("0.5", 0.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("no", "no"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("2026-01-02", "2026-01-02"),
        ("0x1f", "0x1f"),
        (".inf", ".inf"),
        ("'5'", "5"),
        ('"true"', "true"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_plain_words_mean_what_yaml_1_2_says(text: str, value: object) -> None:
    """`no` is Norway and 12:30 is no number; what is quoted stays text."""
    assert parsed(f"key: {text}\n").data == {"key": value}


def test_references_are_replaced_and_remembered() -> None:
    """The text as written is kept beside the value."""
    document = parsed("host: ${H:-localhost}\n", H="example.test")
    assert document.data == {"host": "example.test"}
    assert document.references == {("host",): "${H:-localhost}"}


def test_an_api_key_keeps_its_reference() -> None:
    """The secret itself never enters the document, even when the variable is missing."""
    document = parsed("api_key: ${SECRET}\nother:\n  api_key: x$$y\n", SECRET="sk-1")
    assert document.data == {"api_key": "${SECRET}", "other": {"api_key": "x$y"}}
    assert not parsed("api_key: ${SECRET}\n").problems


def test_an_empty_plain_reference_means_nothing() -> None:
    """`redis_url: ${REDIS:-}` is the same as leaving the value out; in quotes it is an empty text."""
    assert parsed("a: ${X:-}\nb: '${X:-}'\n").data == {"a": None, "b": ""}


def test_missing_variables_are_all_reported_with_line_and_path() -> None:
    """Not only the first one."""
    problems = [problem.text() for problem in parsed("a: ${ONE}\nb:\n  - ${TWO}\n").problems]
    assert problems[0].startswith("penstock.yaml:1: a: environment variable ONE is not set")
    assert problems[1].startswith("penstock.yaml:3: b[0]: environment variable TWO is not set")


def test_duplicate_keys_are_errors() -> None:
    """YAML's last-one-wins hides mistakes."""
    (problem,) = parsed("a: 1\nb: 2\na: 3\n").problems
    assert problem.text() == 'penstock.yaml:3: a: duplicate key "a", first seen on line 1'


def test_anchors_and_merge_keys_work() -> None:
    """Own keys win over merged ones, earlier merged mappings over later ones, and that is no duplicate."""
    document = parsed("x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2}\nz:\n  <<: [*x, *y]\n  a: 3\n")
    assert document.data["z"] == {"a": 3, "b": 1, "c": 2}
    assert not document.problems
    assert document.line(("z", "c")) == 2


def test_a_reference_in_braces_gets_a_hint() -> None:
    """`{key: ${VAR}}` is not YAML, and the message says what to do."""
    with pytest.raises(ConfigError, match=r'penstock\.yaml:2: not valid YAML.*needs quotes: "\$\{VAR\}"'):
        parsed("a: 1\nb: {key: ${VAR}}\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1\nb: 2\n", r"penstock\.yaml:\d: not valid YAML"),
        ("a: 1\n---\nb: 2\n", "expected a single document"),
        ("- a\n", "found a list"),
        ("text", "found a single value"),
        ("${X:-y}", "found a single value"),
        ("a: &a [*a]\n", "nested deeper"),
        ("a: &a {<<: *a}\n", "nested deeper"),
        ("[" * 5000, "nested deeper"),
        ("a: " + "[" * 60 + "]" * 60, "nested deeper"),
        ("a: \x00", "not valid YAML"),
        ('a: "\\UFFFFFFFF"', "not valid YAML"),
        ("a: *nowhere", "undefined alias"),
        ("a: 1\n" + "#" * (1 << 20), "larger than 1 MiB"),
    ],
)
def test_what_is_no_configuration_is_refused(text: str, message: str) -> None:
    """Each with a message, none with another exception."""
    with pytest.raises(ConfigError, match=message):
        parsed(text)


@pytest.mark.parametrize("link", ["[{}]", "{{<<: [{}]}}"])
def test_aliases_cannot_explode(link: str) -> None:
    """ "Billion laughs", as lists and as merge keys, ends at the bound."""
    rows = ["a0: &a0 {k: v}"] + [f"a{i}: &a{i} " + link.format(", ".join([f"*a{i - 1}"] * 9)) for i in range(1, 12)]
    with pytest.raises(ConfigError, match="more than 50000 values"):
        parsed("\n".join(rows))


@pytest.mark.parametrize("text", ["a: !!python/object:os.system x", "a: !!binary aGk=", "a: !x [1]", "? [a, b]\n: 1"])
def test_tags_and_odd_keys_are_problems(text: str) -> None:
    """Nothing is constructed from a file but plain values."""
    assert len(parsed(text).problems) == 1


def test_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    """With the line where it stops being text."""
    (tmp_path / "c.yaml").write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(ConfigError, match=r"c\.yaml:2: not UTF-8"):
        read(tmp_path / "c.yaml", {})


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A folder or a missing file is an error with its path."""
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file"):
        read(tmp_path / "none.yaml", {})
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read(tmp_path, {})


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "\ufeff"])
def test_an_empty_file_is_an_empty_configuration(text: str) -> None:
    """A file of comments alone is fine."""
    assert parsed(text).data == {}


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    """No input ends in another exception."""
    with contextlib.suppress(ConfigError):
        parse(content, "f", {})


@settings(deadline=None)
@given(st.text(alphabet="ab:{}[]-&*!<>|?%@`'\"#\n \t,$~.0159_\\Ux", max_size=80))
def test_anything_made_of_yaml_s_own_signs_is_read_or_refused(text: str) -> None:
    """The same, closer to the grammar."""
    with contextlib.suppress(ConfigError):
        assert all(problem.text().startswith("penstock.yaml:") for problem in parsed(text).problems)
