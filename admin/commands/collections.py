"""`penstock collections`: what is kept on a running server, what of it could not be read, its bounds, its index and its snapshots."""

import argparse
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

import httpx

from admin.commands.documents import Failed, Json, ask, pages, server

PLANE: Final = "/admin/v1/"
MB: Final = 1_000_000
MOST: Final = "1000"  # of a page


def run(arguments: argparse.Namespace) -> int:
    with server(arguments, PLANE) as client:
        made = ACTIONS[arguments.action](client, arguments)
    if arguments.json:
        print(json.dumps(made))
    else:
        print("\n".join(SHOWN[arguments.action](made)))
    return 0


def id_of(client: httpx.Client, wanted: str) -> str:
    """By its id, else the only one of that name. Raises Failed."""
    ids = [each["id"] for each in pages(client, "collections", limit=MOST) if wanted in (each["id"], each["name"])]
    if wanted in ids:
        return wanted
    if len(ids) != 1:
        raise Failed(f"there {'are several collections' if ids else 'is no collection'} '{wanted}': name its id")
    return str(ids[0])


def _list(client: httpx.Client, _arguments: argparse.Namespace) -> Json:
    return {"data": list(pages(client, "collections", limit=MOST))}


def _show(client: httpx.Client, arguments: argparse.Namespace) -> Json:
    return _asked(client, "GET", _path(client, arguments))


def _documents(client: httpx.Client, arguments: argparse.Namespace) -> Json:
    params: dict[str, str] = {}
    if arguments.collection is not None:
        params["collection_id"] = id_of(client, arguments.collection)
    if arguments.status is not None:
        params["status"] = arguments.status
    return {"data": list(pages(client, "documents", limit=MOST, **params))}


def _retry(client: httpx.Client, arguments: argparse.Namespace) -> Json:
    body = {"file_ids": arguments.files or None, "key_id": arguments.key_id}
    return _asked(client, "POST", f"{_path(client, arguments)}/documents/retry", json=_said(body))


def _bound(client: httpx.Client, arguments: argparse.Namespace) -> Json:
    """0 takes a bound away."""
    asked = {"quota_passages": arguments.passages, "quota_bytes": arguments.mb and arguments.mb * MB}
    body = {name: value or None for name, value in asked.items() if value is not None}
    return _asked(client, "PATCH", _path(client, arguments), json=body)


def _advice(client: httpx.Client, arguments: argparse.Namespace) -> Json:
    return _asked(client, "GET", f"{_path(client, arguments)}/advice", params=_said({"rows": arguments.rows}))


def _snapshot(client: httpx.Client, arguments: argparse.Namespace) -> Json:
    return _asked(client, "POST", f"{_path(client, arguments)}/snapshots")


def _snapshots(client: httpx.Client, arguments: argparse.Namespace) -> Json:
    return _asked(client, "GET", f"{_kept(client, arguments)}/snapshots")


def _restore(client: httpx.Client, arguments: argparse.Namespace) -> Json:
    return _asked(client, "POST", f"{_kept(client, arguments)}/snapshots/{arguments.snapshot}/restore")


def _delete(client: httpx.Client, arguments: argparse.Namespace) -> Json:
    return _asked(client, "DELETE", _path(client, arguments))


def _path(client: httpx.Client, arguments: argparse.Namespace) -> str:
    return f"collections/{id_of(client, arguments.collection)}"


def _kept(client: httpx.Client, arguments: argparse.Namespace) -> str:
    """Snapshots outlive their collection: an id need not be there any more."""
    wanted: str = arguments.collection
    return f"collections/{wanted}" if wanted.startswith("vs_") else _path(client, arguments)


def _asked(client: httpx.Client, method: str, path: str, **options: Any) -> Json:
    answer: Json = ask(client, method, path, **options)
    return answer


def _said(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _collection_line(one: Json) -> str:
    counts = one["documents"]
    state = ", ".join(f"{counts[what]} {what.replace('_', ' ')}" for what in ("in_progress", "failed") if counts[what])
    files = f"{counts['total']} files" + (f" ({state})" if state else "")
    return f"{one['id']}  {one['name'] or '-'}  {files}, {one['passages']} passages, {_mb(one['usage_bytes'])}, {one['embedding_model']}"


def _collection_lines(made: Json) -> list[str]:
    return [
        _collection_line(made),
        *(f"  {name}: {made[name]}" for name in _DETAILS if made.get(name) not in (None, {})),
    ]


def _document_line(one: Json) -> str:
    why = ""
    if one["last_error"] is not None:
        why = f": {one['last_error']['code']}, {one['last_error']['message']}"
    elif one["waiting"] is not None:
        until = datetime.fromisoformat(one["waiting"]["retry_at"]).strftime("%H:%M:%S")
        why = f": waits, attempt {one['attempts']}, again at {until} UTC: {one['waiting']['reason']}"
    elif one["working"]:
        why = ": is read now"
    return f"{one['collection_id']}  {one['file_id']}  {one['filename']}  {one['status'].replace('_', ' ')}{why}"


def _snapshot_line(one: Json) -> str:
    size = f"{one['documents']} files, {one['passages']} passages, {_mb(one['bytes'])}"
    return f"{one['id']}  {one['created_at']}  {size}, sha256 {one['sha256']}"


def _advice_lines(made: Json) -> list[str]:
    lines = [f"{made['rows']} passages: files of {_mb(made['artefact_bytes'])} and texts of {_mb(made['texts_bytes'])}"]
    if not made["graph_wanted"]:
        lines.append("no graph: everything is compared")
    elif made["graph_bytes"] is not None:
        lines.append(
            f"a graph by {made['engine']}: {_mb(made['graph_bytes'])}, made in {made['build_seconds']:.0f} s "
            f"(from a sample of {made['sampled']})"
        )
    return [*lines, made["note"]] if made["note"] else lines


def _rows(line: Callable[[Json], str], empty: str) -> Callable[[Json], list[str]]:
    return lambda made: [line(each) for each in made["data"]] or [empty]


def _mb(size: int) -> str:
    return f"{size / MB:.1f} MB"


_DETAILS: Final = ("access", "engine", "quantization", "quota_passages", "quota_bytes", "expires_at", "recall")
ACTIONS: Final[Mapping[str, Callable[[httpx.Client, argparse.Namespace], Json]]] = {
    "list": _list,
    "show": _show,
    "documents": _documents,
    "retry": _retry,
    "bound": _bound,
    "advice": _advice,
    "snapshot": _snapshot,
    "snapshots": _snapshots,
    "restore": _restore,
    "delete": _delete,
}
SHOWN: Final[Mapping[str, Callable[[Json], list[str]]]] = {
    "list": _rows(_collection_line, "there are no collections"),
    "show": _collection_lines,
    "documents": _rows(_document_line, "there are no such files"),
    "retry": lambda made: [f"{len(made['file_ids'])} files of {made['collection_id']} are read again"],
    "bound": _collection_lines,
    "advice": _advice_lines,
    "snapshot": lambda made: [_snapshot_line(made)],
    "snapshots": _rows(_snapshot_line, "there are no snapshots"),
    "restore": _collection_lines,
    "delete": lambda made: [f"{made['id']} is deleted"],
}
