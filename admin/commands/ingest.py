"""`penstock ingest`: files and folders into a collection. A second run sends what has changed and nothing else.

A file is known by its path, which is an attribute of it in the collection, and its content by a checksum beside that. A new version
takes the place of the old one, so that only the passages that differ are embedded.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from admin.commands.bar import bar
from admin.commands.documents import Failed, Json, ask, chunking_of, collection, pages, server

AT_ONCE: Final = 4
POLL_S: Final = 0.5

Tick = Callable[[int], None]


class Known(msgspec.Struct, frozen=True):
    """What the collection has under a path."""

    file_id: str
    sha256: str
    read: bool


class Report(msgspec.Struct):
    added: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    failed: dict[str, str] = {}


def run(arguments: argparse.Namespace) -> int:
    found = dict(_files(arguments.paths))
    with server(arguments) as client:
        store = collection(client, arguments.collection) or _made(client, arguments)
        whose = _whose(store, arguments.tenant)
        known = _known(client, store, whose)
        report = _sent(client, store, found, known, chunking_of(arguments), whose, quiet=arguments.json)
        if arguments.prune:
            _pruned(client, arguments.paths, found, known, report)
    _tell(report, store, as_json=arguments.json)
    return 1 if report.failed else 0


def _files(paths: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Every file below the paths, by how it is called; what is hidden is left out. Raises Failed."""
    for name in paths:
        path = Path(name)
        if path.is_file():
            yield str(path), path
        elif path.is_dir():
            for each in sorted(path.rglob("*")):
                hidden = any(part.startswith(".") for part in each.relative_to(path).parts)
                if each.is_file() and not hidden:
                    yield str(each), each
        else:
            raise Failed(f"there is no file or folder {name}")


def _made(client: httpx.Client, arguments: argparse.Namespace) -> Json:
    body: dict[str, Any] = {"name": arguments.collection} | (
        {"embedding_model": arguments.model} if arguments.model else {}
    )
    if arguments.tenant or arguments.tenancy:
        body["tenancy"] = {"attribute": arguments.tenancy or "tenant"}
    made: Json = ask(client, "POST", "vector_stores", json=body)
    return made


def _whose(store: Json, tenant: str | None) -> Json:
    """The attribute that says whose the files are, if there is one. Raises Failed."""
    tenancy = store.get("tenancy")
    if tenancy is None and tenant is not None:
        raise Failed(f"the collection {store['name']} declares no tenancy: leave --tenant out")
    if tenancy is None:
        return {}
    if not tenant:
        raise Failed(f"the collection {store['name']} keeps tenants apart: --tenant says whose these files are")
    return {tenancy["attribute"]: tenant}


def _known(client: httpx.Client, store: Json, whose: Json) -> Mapping[str, Known]:
    """Of the same tenant: two of them may have a file under one path."""
    found = {}
    for file in pages(client, f"vector_stores/{store['id']}/files"):
        if not whose.items() <= file["attributes"].items():
            continue
        path, sum_ = file["attributes"].get("path"), file["attributes"].get("sha256")
        if isinstance(path, str) and isinstance(sum_, str):
            found[path] = Known(file["id"], sum_, file["status"] == "completed")
    return found


def _sent(
    client: httpx.Client,
    store: Json,
    found: Mapping[str, Path],
    known: Mapping[str, Known],
    chunking: Json | None,
    whose: Json,
    *,
    quiet: bool,
) -> Report:
    """Sends what is new, and waits until all of it is read."""
    report = Report(failed={})
    with _progress(len(found), quiet=quiet) as tick, ThreadPoolExecutor(AT_ONCE) as pool:
        sent = list(pool.map(lambda name: _send(client, store, name, found[name], known, chunking, whose), found))
        for what in sent:
            setattr(report, what[0], getattr(report, what[0]) + 1)
        waiting = {file_id: name for what, name, file_id in sent if what != "unchanged"}
        tick(report.unchanged)
        _await(client, store, waiting, report, tick)
    replaced = [known[name].file_id for what, name, _ in sent if what == "changed" and name not in report.failed]
    for file_id in replaced:
        client.delete(f"files/{file_id}")
    return report


def _send(
    client: httpx.Client,
    store: Json,
    name: str,
    path: Path,
    known: Mapping[str, Known],
    chunking: Json | None,
    whose: Json,
) -> tuple[str, str, str]:
    """What it was, its path, and the id that it has now."""
    with path.open("rb") as file:
        sum_ = hashlib.file_digest(file, "sha256").hexdigest()
        before = known.get(name)
        if before is not None and before.sha256 == sum_ and before.read:
            return "unchanged", name, before.file_id
        file.seek(0)
        made = ask(client, "POST", "files", data={"purpose": "assistants"}, files={"file": (path.name, file)})
    body: dict[str, Any] = {"file_id": made["id"], "attributes": {"path": name[-512:], "sha256": sum_, **whose}}
    if chunking is not None:
        body["chunking_strategy"] = chunking
    if before is not None:
        body["replaces"] = before.file_id
    ask(client, "POST", f"vector_stores/{store['id']}/files", json=body)
    return ("added" if before is None else "changed"), name, made["id"]


def _await(client: httpx.Client, store: Json, waiting: dict[str, str], report: Report, tick: Tick) -> None:
    """Until each of them is read, or is known not to be readable."""
    files = f"vector_stores/{store['id']}/files"
    left = len(waiting)
    while left:
        counts = ask(client, "GET", f"vector_stores/{store['id']}")["file_counts"]
        now = min(left, int(counts["in_progress"]))
        tick(left - now)
        left = now
        if left:
            time.sleep(POLL_S)
    for file in pages(client, files, filter="failed"):
        if file["id"] in waiting:
            report.failed[waiting[file["id"]]] = file["last_error"]["message"]


def _pruned(
    client: httpx.Client,
    paths: Sequence[str],
    found: Mapping[str, Path],
    known: Mapping[str, Known],
    report: Report,
) -> None:
    for name, gone in known.items():
        below = any(Path(name).is_relative_to(path) for path in paths)
        if below and name not in found:
            ask(client, "DELETE", f"files/{gone.file_id}")
            report.removed += 1


@contextmanager
def _progress(total: int, *, quiet: bool) -> Iterator[Tick]:
    with bar(f"reading {total} files …", quiet=quiet) as shown:
        if shown is None:
            yield lambda _: None
        else:
            task = shown.add_task("reading", total=total)
            yield lambda done: shown.advance(task, done)


def _tell(report: Report, store: Json, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"collection": store["id"], **msgspec.to_builtins(report)}))
        return
    for name, reason in report.failed.items():
        print(f"{name}: {reason}", file=sys.stderr)
    done = ", ".join(f"{getattr(report, what)} {what}" for what in ("added", "changed", "unchanged", "removed"))
    print(f"{done}, {len(report.failed)} failed in {store['name'] or store['id']} ({store['id']})")
