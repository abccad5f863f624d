"""The tails of the code that `make shape` prints, held where they are to stay."""

from pathlib import Path

import pytest

from benchmarks import shape

ROOT = Path(__file__).parents[2]
MAX_LINES = 500


@pytest.fixture(scope="module")
def code() -> list[shape.Module]:
    return shape.modules(ROOT)


def test_no_modules_import_each_other_in_a_ring(code: list[shape.Module]) -> None:
    """Each module can be read, tested and moved without the ones that need it."""
    assert shape.cycles(shape.import_graph(code)) == []


def test_a_ring_of_imports_is_found() -> None:
    """The measure itself sees a ring of three and leaves a chain alone."""
    graph = {"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"], "e": []}
    assert shape.cycles(graph) == [["a", "b", "c"]]


def test_nothing_rebinds_a_global(code: list[shape.Module]) -> None:
    """State belongs to an object that someone made and passed on."""
    assert shape.global_statements(code) == []


def test_no_module_holds_a_live_object(code: list[shape.Module]) -> None:
    """Importing a module makes constants and types, never a pool, an application or an empty cache."""
    assert shape.live_objects(code) == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("app = FastAPI()", 1),
        ("CACHE = {}", 1),
        ("seen = [1]", 1),
        ("PENDING: dict[str, int] = dict()", 1),
        ("STATUS = {200: 'ok'}", 0),
        ("log = structlog.get_logger()", 0),
        ("KeyId = NewType('KeyId', str)", 0),
        ("__all__ = ['a']", 0),
    ],
)
def test_a_live_object_is_told_from_a_constant(tmp_path: Path, source: str, expected: int) -> None:
    """The measure itself: instances and collections that are there to be filled, not tables and types."""
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "module.py").write_text(source)
    assert len(shape.live_objects(shape.modules(tmp_path, ["part"]))) == expected


def test_the_environment_is_read_in_one_place(code: list[shape.Module]) -> None:
    """Where a setting comes from can be told, as nobody but the settings looks into the environment."""
    elsewhere = [place for place in shape.environment_reads(code) if not place.startswith("admin/settings.py:")]
    assert elsewhere == []


def test_a_long_file_has_its_reason_in_the_decisions() -> None:
    """At 500 lines a file holds a second noun, or DECISIONS.md says why it does not."""
    decisions = (ROOT / "DECISIONS.md").read_text()
    every = shape.modules(ROOT, [*shape.PACKAGES, "benchmarks", "tests"])
    long = [f"{module.path}: {module.lines}" for module in every if module.lines > MAX_LINES]
    assert [each for each in long if f"`{each.partition(':')[0]}`" not in decisions] == []
