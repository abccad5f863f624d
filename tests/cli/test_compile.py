"""`penstock compile`: the hot path as machine code. What is compiled answers as the interpreter does in every test that starts a server."""

import subprocess
import sys
from pathlib import Path

import pytest

from gateway import compiled

ROOT = Path(__file__).resolve().parents[2]
LOOK = """
import sys
from gateway import compiled
print(compiled.use())
import gateway.drive, gateway.wire
print(gateway.drive.__file__.endswith(".so"), compiled.LIBRARY in sys.modules)
"""


def look(root: Path) -> list[str]:
    return subprocess.run(
        [sys.executable, "-c", LOOK], cwd=root, capture_output=True, text=True, check=True
    ).stdout.split()


def test_every_module_that_is_compiled_is_there() -> None:
    for name in compiled.MODULES:
        assert (ROOT / f"{name.replace('.', '/')}.py").is_file(), name


@pytest.mark.parametrize("name", compiled.MODULES)
def test_what_is_compiled_keeps_to_what_mypyc_can(name: str) -> None:
    """A struct's metaclass gets arguments, which mypyc leaves out: frozen ones would not be. And `_thread` would be a keyword of C."""
    text = (ROOT / f"{name.replace('.', '/')}.py").read_text()
    assert "(msgspec.Struct" not in text
    assert "asyncio.Protocol)" not in text
    assert "self._thread" not in text
    assert "copy(self)" not in text


def test_nobody_asks_a_compiled_class_for_its_slots() -> None:
    """It has none, and says so without a word."""
    asked = [
        str(path.relative_to(ROOT))
        for path in ROOT.glob("*/**/*.py")
        if path.parts[len(ROOT.parts)] in ("gateway", "admin") and ".__slots__" in path.read_text()
    ]
    assert asked == []


def test_a_server_runs_what_was_compiled_of_this_very_source() -> None:
    if not compiled.place().is_dir():
        pytest.skip("nothing is compiled of this source: penstock compile")
    assert look(ROOT) == ["True", "True", "True"]


def test_another_source_is_interpreted(tmp_path: Path) -> None:
    for source in compiled.sources():
        copy = tmp_path / source.relative_to(compiled.ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(source.read_bytes())
    with (tmp_path / "gateway/errors.py").open("a") as file:
        file.write("\n# another word\n")
    assert look(tmp_path) == ["False", "False", "False"]
