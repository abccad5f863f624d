"""Who serves what: the table in the documentation, and the providers that there are."""

from pathlib import Path

from gateway.kinds import EVERY, PATHS, TEXT, served_by
from gateway.providers import PROVIDERS
from gateway.units.endpoints import ENDPOINTS

DOC = Path(__file__).resolve().parents[2] / "docs" / "openai.md"


def test_the_documentation_says_what_each_provider_has() -> None:
    """Providers that are not in it have text alone, or are asked for whatever a client wants."""
    rows = [line.strip("| ").split(" | ") for line in DOC.read_text().split("\n") if line.startswith("| `")]
    told = {
        name.strip("`"): kinds for name, kinds in (row for row in rows if len(row) == 2) if name.strip("`") in PROVIDERS
    }
    for name in PROVIDERS:
        served = served_by(name)
        beside = sorted(served - TEXT) if served is not None else []
        assert told.get(name, "") == ", ".join(f"`{kind}`" for kind in beside), name


def test_every_path_of_a_door_is_one_of_its_kind_s() -> None:
    """The catalogue names the paths that are there."""
    assert {path.decode() for path in ENDPOINTS} == {
        path for kind in EVERY - TEXT - {"realtime"} for path in PATHS[kind]
    }
    assert all(path.decode() in PATHS[endpoint.kind] for path, endpoint in ENDPOINTS.items())
