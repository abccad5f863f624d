"""`penstock reembed`: another embedding model for a collection of a running server, from the first vector to the way back."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from admin.commands.collections import id_of
from admin.commands.documents import Failed, Json, ask, chunking_of, pages, server

PLANE = "/admin/v1/"
LOOK_S = 0.5
SETTLED = ("ready", "canary", "swapped", "finished", "rolled_back", "failed", "cancelled")


def run(arguments: argparse.Namespace) -> int:
    with server(arguments, PLANE) as client:
        base = f"collections/{id_of(client, arguments.collection)}/reembeddings"
        if arguments.action == "start":
            made = ask(client, "POST", base, json=_wanted(arguments))
        elif arguments.action == "status":
            return _listed(list(pages(client, base)), as_json=arguments.json)
        else:
            path = f"{base}/{_newest(client, base)['id']}/{arguments.action}"
            made = ask(client, "POST", path, json=_move(arguments))
        if getattr(arguments, "wait", False):
            made = _waited(client, f"{base}/{made['id']}")
    print(json.dumps(made) if arguments.json else _told(made))
    return 1 if made["state"] == "failed" else 0


def _wanted(arguments: argparse.Namespace) -> dict[str, Any]:
    """Raises Failed, OSError."""
    gate = None
    if arguments.questions is not None:
        gate = {"queries": _questions(Path(arguments.questions)), "max_loss": arguments.max_loss}
    asked = {
        "embedding_model": arguments.model,
        "dimensions": arguments.dimensions,
        "key_id": arguments.key_id,
        "gate": gate,
        "chunking_strategy": chunking_of(arguments),
        "promote": "auto" if arguments.auto else "manual",
        "keep_s": arguments.keep_days * 86_400,
    }
    return {name: value for name, value in asked.items() if value is not None}


def _questions(path: Path) -> list[dict[str, Any]]:
    """As `penstock eval` reads them; files by their ids. Raises Failed, OSError."""
    from retrieval.evaluation import questions  # noqa: PLC0415 — for those who have some

    try:
        with path.open(encoding="utf-8") as lines:
            found = questions.read(lines)
    except questions.BadQuestions as error:
        raise Failed(f"{path}: {error}") from None
    return [
        {
            "query": each.query,
            "relevant": [{"id": name, "grade": grade} for name, grade in each.judged.items()],
        }
        for each in found
    ]


def _move(arguments: argparse.Namespace) -> dict[str, Any]:
    match arguments.action:
        case "canary":
            return {"share": arguments.share, "keys": arguments.keys or []}
        case "promote":
            return {"force": arguments.force}
        case _:
            return {"reason": arguments.reason} if arguments.reason else {}


def _newest(client: httpx.Client, base: str) -> Json:
    """Raises Failed."""
    found: list[Json] = ask(client, "GET", base, params={"limit": 1})["data"]
    if not found:
        raise Failed("nothing was embedded anew: `penstock reembed start` begins it")
    return found[0]


def _waited(client: httpx.Client, path: str) -> Json:
    """Once it is ready, or has ended."""
    shown = ""
    while True:
        now: Json = ask(client, "GET", path)
        line = _progress(now)
        if line != shown:
            print(line, file=sys.stderr, flush=True)
            shown = line
        if now["state"] in SETTLED and not now["behind"]:
            return now
        if now["state"] in ("failed", "cancelled", "rolled_back", "finished"):
            return now
        time.sleep(LOOK_S)


def _listed(found: list[Json], *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"data": found}))
    elif not found:
        print("nothing was embedded anew: `penstock reembed start` begins it")
    else:
        print("\n".join(_told(each) for each in found))
    return 0


def _progress(now: Json) -> str:
    progress = now["progress"]
    cut = f"{progress['cut']} of {progress['documents']} documents, " if progress["documents"] is not None else ""
    return f"{now['state'].replace('_', ' ')}: {cut}{progress['embedded']} of {progress['passages']} passages" + (
        f" ({now['reason']})" if now["reason"] else ""
    )


def _told(now: Json) -> str:
    old, new = (f"{now[each]['embedding_model']} (version {now[each]['version']})" for each in ("before", "after"))
    lines = [
        f"{now['id']}  {old} → {new}",
        f"  {_progress(now)}; version {now['reading']} is read",
    ]
    if now["gate"] is not None:
        lines.append(f"  gate {now['gate']['verdict']}: {now['gate']['reason'] or 'not asked yet'}")
    lines += [f"  kept as it was: {each['file_id']} ({each['reason']})" for each in now["kept"]]
    if now["canary"]["share"] or now["canary"]["keys"]:
        lines.append(f"  canary: {now['canary']['share']:.0%} of keys, {len(now['canary']['keys'])} by name")
    return "\n".join(lines)
