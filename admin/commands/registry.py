"""`penstock models register`, `classic`, `alias`, `rename` and `history`: classic models of a running server."""

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from admin.commands.documents import Failed, ask, pages, server
from inference.runtimes import archive

PLANE: Final = "/admin/v1/"
TIMEOUT_S: Final = 600.0
SUFFIXES: Final[Mapping[str, str]] = {
    ".onnx": "onnx",
    ".skops": "sklearn",
    ".pkl": "sklearn",
    ".joblib": "sklearn",
    ".ubj": "xgboost",
    ".json": "xgboost",
    ".txt": "lightgbm",
    ".lgb": "lightgbm",
}


def run(arguments: argparse.Namespace) -> int:
    with server(arguments, PLANE) as client:
        client.timeout = httpx.Timeout(TIMEOUT_S)
        match arguments.action:
            case "register":
                return _register(client, arguments)
            case "alias":
                return _alias(client, arguments)
            case "history":
                return _history(client, arguments)
            case "rename":
                return _renamed(client, arguments)
            case _:
                return _listed(client, arguments)


def _register(client: httpx.Client, arguments: argparse.Namespace) -> int:
    metadata = _metadata(arguments)
    with ExitStack() as stack:
        files: dict[str, Any] = {}
        if arguments.artifact.startswith("models:/"):
            metadata["uri"] = arguments.artifact
        else:
            artefact, found = stack.enter_context(_artefact(arguments))
            metadata["runtime"] = arguments.runtime or metadata.get("runtime") or found
            files["artifact"] = (artefact.name, stack.enter_context(artefact.open("rb")))
        files["metadata"] = (None, json.dumps(metadata).encode(), "application/json")
        if arguments.reference:
            reference = Path(arguments.reference)
            files["reference"] = (reference.name, stack.enter_context(reference.open("rb")))
        made = ask(client, "POST", f"registry/{arguments.name}/versions", files=files)
    if arguments.json:
        print(json.dumps(made))
    else:
        print("\n".join(_told(made)))
    return 0


def _alias(client: httpx.Client, arguments: argparse.Namespace) -> int:
    body = {"version": arguments.number}
    made = ask(client, "PUT", f"registry/{arguments.name}/aliases/{arguments.alias}", json=body)
    print(json.dumps(made) if arguments.json else f"{arguments.name}@{made['name']} is version {made['version']}")
    return 0


def _renamed(client: httpx.Client, arguments: argparse.Namespace) -> int:
    made = ask(client, "PATCH", f"registry/{arguments.name}", json={"name": arguments.new})
    print(json.dumps(made) if arguments.json else f"{arguments.name} is called {made['name']} now")
    return 0


def _history(client: httpx.Client, arguments: argparse.Namespace) -> int:
    found = list(pages(client, f"registry/{arguments.name}/history"))
    if arguments.json:
        print(json.dumps({"data": found}))
        return 0
    for each in found:
        about = [f"version {each['version']}"] if each["version"] else []
        about += [f"@{each['alias']}"] if each["alias"] else []
        about += [each["rollout"]] if each["rollout"] else []
        print(f"{each['at']}  {each['event']}  {' '.join([each['name'], *about])}  by {each['actor']}")
    return 0


def _listed(client: httpx.Client, arguments: argparse.Namespace) -> int:
    if arguments.name:
        found = list(pages(client, f"registry/{arguments.name}/versions"))
        lines = [line for each in found for line in _told(each)]
    else:
        found = list(pages(client, "registry"))
        lines = [
            f"{each['name']}  {' '.join(f'{alias}={version}' for alias, version in each['aliases'].items())}".rstrip()
            for each in found
        ]
    if arguments.json:
        print(json.dumps({"data": found}))
    elif lines:
        print("\n".join(lines))
    else:
        print("no classic models yet: `penstock models register NAME ARTIFACT` adds one")
    return 0


def _told(version: Mapping[str, Any]) -> Sequence[str]:
    """Two lines of a version: what it is, and how it is served."""
    names = "".join(f"  @{alias}" for alias in version["aliases"])
    conversion = version["facts"].get("conversion") or {}
    served = f"served by {version['runtime']}"
    if version["runtime"] != version["source"]["runtime"]:
        served += f", converted from {version['source']['runtime']}"
    elif conversion.get("reason"):
        served += f", as it is: {conversion['reason']}"
    return f"{version['model']} version {version['version']}{names}", f"  {served}  {version['digest'][:12]}"


@contextmanager
def _artefact(arguments: argparse.Namespace) -> Iterator[tuple[Path, str | None]]:
    """A file to send, and the runtime that its name speaks of. Raises Failed."""
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        path = Path(arguments.artifact)
        if path.is_dir():
            if not (path / "MLmodel").is_file():
                raise Failed(f"the folder {path} holds no file MLmodel: only models of MLflow are folders")
            yield archive.pack(path, Path(folder) / f"{path.name}.tar"), "mlflow"
            return
        if not path.is_file():
            raise Failed(f"there is no file or folder {arguments.artifact}")
        runtime = SUFFIXES.get(path.suffix.lower())
        if arguments.runtime is None and runtime is None and not arguments.metadata:
            raise Failed(f"what kind of model is {path.name}? Say so with --runtime")
        yield path, runtime


def _metadata(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the file says, with what the flags say over it. Raises Failed."""
    made: dict[str, Any] = {}
    if arguments.metadata:
        try:
            made = json.loads(Path(arguments.metadata).read_text(encoding="utf-8"))
        except ValueError as error:
            raise Failed(f"{arguments.metadata} is not JSON: {error}") from error
        if not isinstance(made, dict):
            raise Failed(f"{arguments.metadata}: expected an object")
    made |= {name: value for name in ("alias", "description") if (value := getattr(arguments, name))}
    if arguments.tag:
        made["tags"] = {**made.get("tags", {}), **dict(_pair(each) for each in arguments.tag)}
    if arguments.metric:
        lineage = made.setdefault("lineage", {})
        lineage["metrics"] = {**lineage.get("metrics", {}), **{k: _number(v) for k, v in map(_pair, arguments.metric)}}
    return made


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise Failed(f"{text}: expected NAME=VALUE")
    return name, value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise Failed(f"{text}: a metric is a number") from None
