"""Views that the configuration declares: there from the start, never narrowed by it, and REST has the last word; what the history keeps."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import Engine

from admin import migrate
from admin.config_file import ConfigError
from admin.feature_seeding import seed_views
from admin.settings import load
from gateway.database import appending, changing, connect, reading
from inference.features import row_store, view_store
from inference.features.forgetting import forget
from inference.features.view import FeatureView
from inference.features.writing import Written
from tests.fixtures.server import Server

Json = dict[str, Any]

DRIVERS = {"name": "drivers", "entities": [{"name": "driver_id"}], "features": [{"name": "rate", "datatype": "FP32"}]}
MORE = {**DRIVERS, "features": [*DRIVERS["features"], {"name": "trips", "datatype": "INT64"}], "ttl_s": 60}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = connect(f"sqlite:///{tmp_path / 'penstock.db'}")
    migrate.prepare(made)
    yield made
    made.dispose()


def declare(engine: Engine, folder: Path, *views: Json) -> None:
    """As a start with this file does."""
    path = folder / "penstock.yaml"
    path.write_text(yaml.safe_dump({"features": {"views": list(views)}}))
    loaded = load({"--config": str(path)}, {})
    with changing(engine) as tx:
        seed_views(tx, loaded)


def shown(engine: Engine) -> dict[str, FeatureView]:
    with reading(engine) as tx:
        return {view.name: view for view in view_store.every(tx)}


def test_a_view_is_declared_and_widened(engine: Engine, tmp_path: Path) -> None:
    """The same file again changes nothing; features come to it; none is taken away, and no entity changes."""
    declare(engine, tmp_path, DRIVERS)
    first = shown(engine)["drivers"]
    assert first.version == 1
    assert first.created_by.startswith("file ")
    assert first.created_by.endswith("penstock.yaml:3")
    declare(engine, tmp_path, DRIVERS)
    assert shown(engine)["drivers"] == first

    declare(engine, tmp_path, MORE)
    wide = shown(engine)["drivers"]
    assert ([one.name for one in wide.features], wide.version, wide.ttl_s) == (["rate", "trips"], 2, 60)
    assert wide.number == first.number
    for narrow in (
        DRIVERS,
        {**MORE, "entities": [{"name": "car"}]},
        {**MORE, "features": [{"name": "rate", "datatype": "BYTES"}]},
    ):
        declare(engine, tmp_path, narrow)
        assert shown(engine)["drivers"] == wide
    declare(engine, tmp_path)
    assert shown(engine)["drivers"] == wide


def test_rest_has_the_last_word(engine: Engine, tmp_path: Path) -> None:
    """A view that was edited there stays so; one that was deleted there does not come back, until it is made there."""
    declare(engine, tmp_path, DRIVERS)
    with changing(engine) as tx:
        view_store.change(tx, "drivers", 77, {"ttl_s": 5.0})
    declare(engine, tmp_path, MORE)
    assert shown(engine)["drivers"].ttl_s == 5
    with changing(engine) as tx:
        view_store.remove(tx, "drivers")
    declare(engine, tmp_path, MORE)
    assert shown(engine) == {}
    with changing(engine) as tx:
        view_store.add(tx, FeatureView(**{**_fields(), "number": 99}))
    assert shown(engine)["drivers"].number == 99


def _fields() -> Json:
    from admin.rest.feature_bodies import FeatureViewBody  # noqa: PLC0415 — for this one helper

    view = FeatureViewBody.model_validate(DRIVERS).view(98, "test")
    return {name: getattr(view, name) for name in FeatureView.__struct_fields__}


@pytest.mark.parametrize(
    ("view", "message"),
    [
        ({**DRIVERS, "ttls": 4}, "unknown key"),
        ({**DRIVERS, "features": []}, "features"),
        ({**DRIVERS, "entities": [{"name": "rate"}]}, "comes twice"),
        ({**DRIVERS, "source": {"kind": "feast"}}, "names its server"),
        (DRIVERS, "already"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, view: Json, message: str) -> None:
    """Before anything starts."""
    path = tmp_path / "penstock.yaml"
    path.write_text(yaml.safe_dump({"features": {"views": [DRIVERS, view]}}))
    with pytest.raises(ConfigError, match=message) as wrong:
        load({"--config": str(path)}, {})
    assert all(problem.path[:2] == ("features", "views") for problem in wrong.value.problems)


def test_a_server_has_what_its_file_declares(tmp_path: Path) -> None:
    """In force from the first request on."""
    server = Server({"features": {"views": [DRIVERS], "history_days": 30}}, tmp_path).start()
    try:
        assert [one["name"] for one in server.admin.get("/features").json()["data"]] == ["drivers"]
        rows = {"rows": [{"driver_id": 1, "rate": 0.5}]}
        assert server.admin.post("/features/drivers/rows", json=rows).status_code == 200
        asked = {"features": ["drivers:rate"], "entities": {"driver_id": [1]}}
        assert server.post("/get-online-features", asked).json()["results"][-1]["values"] == [0.5]
    finally:
        server.stop()


def test_history_goes_and_what_was_known_stays(engine: Engine, tmp_path: Path) -> None:
    """Of each entity the newest row before the edge is kept: who asks for a later moment finds what was known then."""
    declare(engine, tmp_path, DRIVERS)
    view = shown(engine)["drivers"].number
    times = {f"[{number}]": [number, 10 + number % 7, 20, 30] for number in range(1200)}
    rows = [Written(entity, at, "{}") for entity, all_ in times.items() for at in all_]
    with appending(engine) as tx:
        row_store.write(tx, view, rows, 1)
    forget(partial(appending, engine), 25 / 1_000_000)
    with reading(engine) as tx:
        found = row_store.history(tx, view, ["[3]", "[1199]"], None, 10_000)
    assert [row.event_us for row in found["[3]"]] == [20, 30]
    assert [row.event_us for row in found["[1199]"]] == [20, 30, 1199]
