"""`penstock features`: views, rows and training sets. Tables are read and written by this very process, on the database itself."""

import argparse
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import yaml
from sqlalchemy import Engine

from admin.commands.configuration import database
from admin.commands.documents import Failed, ask, server
from admin.commands.registry import PLANE
from gateway.database import appending, reading
from gateway.errors import BadRequest
from inference.features import row_store, tabular, training, view_store, wire
from inference.features.rest import keep
from inference.features.tabular import Format
from inference.features.view import EVENT_TIME, FeatureView
from inference.features.wire import timestamp
from inference.features.writing import Columns
from inference.signature import Column

AT_ONCE: Final = 5_000  # rows in one transaction: others write, too
SUFFIXES: Final[Mapping[str, Format]] = {".csv": "csv", ".parquet": "parquet", ".json": "json"}


def run(arguments: argparse.Namespace) -> int:
    match arguments.action:
        case "apply":
            return _apply(arguments)
        case "skew":
            return _skew(arguments)
        case action:
            with database(arguments) as engine:
                work = {"list": _list, "materialize": _materialize, "training-set": _training_set}[action]
                return work(engine, arguments)


def _list(engine: Engine, arguments: argparse.Namespace) -> int:
    with reading(engine) as tx:
        found = [(view, *row_store.counted(tx, view.number)) for view in view_store.every(tx)]
    if arguments.json:
        rows = [
            {"name": view.name, "version": view.version, "entities": count, "newest": newest and timestamp(newest)}
            for view, count, newest in found
        ]
        print(json.dumps({"data": rows}))
        return 0
    for view, count, newest in found:
        features = ", ".join(each.name for each in view.features)
        since = "" if newest is None else f", the newest of {timestamp(newest)}"
        print(f"{view.name}  by {', '.join(view.keys)}: {features}  {count} entities{since}")
    if not found:
        print("no feature views yet: `penstock features apply FILE` adds one")
    return 0


def _apply(arguments: argparse.Namespace) -> int:
    """Makes what is not there, and changes what is."""
    try:
        said = yaml.safe_load(Path(arguments.file).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise Failed(f"{arguments.file} cannot be read: {error}") from error
    views = said if isinstance(said, list) else [said]
    with server(arguments, PLANE) as client:
        known = {each["name"] for each in ask(client, "GET", "features", params={"limit": 1000})["data"]}
        for view in views:
            if not isinstance(view, dict) or not isinstance(view.get("name"), str):
                raise Failed(f"{arguments.file}: a feature view is a mapping with a name")
            name = view["name"]
            if name in known:
                changes = {key: value for key, value in view.items() if key not in {"name", "entities"}}
                made = ask(client, "PATCH", f"features/{name}", json=changes)
            else:
                made = ask(client, "POST", "features", json=view)
            print(json.dumps(made) if arguments.json else f"{name} is at version {made['version']}")
    return 0


def _materialize(engine: Engine, arguments: argparse.Namespace) -> int:
    with reading(engine) as tx:
        view = view_store.find(tx, arguments.view)
    columns, rows, form = _table(arguments.file, (*view.entities, *view.features))
    if arguments.timestamp != EVENT_TIME:
        if arguments.timestamp not in columns:
            raise Failed(f"{arguments.file} has no column {arguments.timestamp}")
        columns = {EVENT_TIME if name == arguments.timestamp else name: values for name, values in columns.items()}
    wanted = {*view.keys, *(each.name for each in view.features), EVENT_TIME}
    columns = {name: values for name, values in columns.items() if name in wanted}
    for first in range(0, rows, AT_ONCE):
        some = {name: values[first : first + AT_ONCE] for name, values in columns.items()}
        place = partial(_place, tabular.place(form), first)
        keep(partial(appending, engine), view, some, min(AT_ONCE, rows - first), place)
    print(json.dumps({"view": view.name, "rows": rows}) if arguments.json else f"{rows} rows are in {view.name}")
    return 0


def _training_set(engine: Engine, arguments: argparse.Namespace) -> int:
    with reading(engine) as tx:
        views: dict[str, FeatureView] = {view.name: view for view in view_store.every(tx)}
    asked: dict[str, Any] = {"features": [one for one in (arguments.features or "").split(",") if one]}
    if arguments.view:
        asked["feature_service"] = arguments.view
    wanted = wire.wanted(asked, views.get)
    known = {each.name: each for view, _ in wanted for each in view.entities}
    columns, rows, form = _table(arguments.entities, tuple(known.values()))
    made = training.joined(
        partial(reading, engine),
        wanted,
        columns,
        tabular.place(form),
        time_column=arguments.timestamp,
        full_names=arguments.full_feature_names,
    )
    output = Path(arguments.output)
    fresh = output.with_suffix(".new")
    fresh.write_bytes(tabular.write(made, _format(output)))
    fresh.replace(output)
    print(json.dumps({"output": str(output), "rows": rows}) if arguments.json else f"{rows} rows are in {output}")
    return 0


def _skew(arguments: argparse.Namespace) -> int:
    """1 where any column has drifted, for scripts."""
    with server(arguments, PLANE) as client:
        path = f"registry/{arguments.model}/versions/{arguments.number}/skew"
        said = ask(client, "GET", path, params={"window_s": arguments.window_s})
    if arguments.json:
        print(json.dumps(said))
        return int(said["drifted"])
    print(f"{said['window']['rows']} rows asked, {said['reference_rows']} trained on")
    for each in said["columns"]:
        psi = "" if each["psi"] is None else f"  psi {each['psi']:.3f} of {each['threshold']:.3f}"
        print(f"{each['name']}{psi}  {', '.join(each['reasons']) or 'as in training'}")
    return int(said["drifted"])


def _table(file: str, known: tuple[Column, ...]) -> tuple[Columns, int, Format]:
    path = Path(file)
    form = _format(path)
    try:
        body = path.read_bytes()
    except OSError as error:
        raise Failed(f"{file} cannot be read: {error.strerror}") from error
    return *tabular.read(body, form, known), form


def _format(path: Path) -> Format:
    found = SUFFIXES.get(path.suffix.lower())
    if found is None:
        raise BadRequest(f"{path}: a table is .csv, .parquet or .json")
    return found


def _place(inner: Any, first: int, name: str, row: int) -> str:
    """Of a value by its row in the whole file."""
    place: str = inner(name, first + row)
    return place
