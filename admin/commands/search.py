"""`penstock search`: ask a collection, and see where the answer stands."""

import argparse
import json
from collections.abc import Sequence
from typing import Any

from admin.commands.documents import Failed, ask, collection, server

SHOWN = 400  # characters of a passage


def run(arguments: argparse.Namespace) -> int:
    with server(arguments) as client:
        store = collection(client, arguments.collection)
        if store is None:
            raise Failed(f"there is no collection '{arguments.collection}': `penstock ingest` makes one")
        asked = {"query": arguments.query, "max_num_results": arguments.k}
        found = ask(client, "POST", f"vector_stores/{store['id']}/search", json=asked)
    if arguments.json:
        print(json.dumps(found))
    elif not found["data"]:
        print("nothing found")
    else:
        print("\n\n".join(_shown(result) for result in found["data"]))
    return 0


def _shown(result: Any) -> str:
    text = " ".join(result["content"][0]["text"].split())
    cut = text if len(text) <= SHOWN else text[:SHOWN].rsplit(" ", 1)[0] + " …"
    return f"{result['score']:.3f}  {_place(result)}\n{cut}"


def _place(result: Any) -> str:
    """`guide.md, page 3, line 12: Installing > From source`."""
    citation, name = result["citation"], result["attributes"].get("path", result["filename"])
    parts: Sequence[str] = [
        str(name),
        *(f"{what} {citation[what]}" for what in ("page", "line") if citation[what] is not None),
    ]
    heading = " > ".join(citation["heading"])
    return ", ".join(parts) + (f": {heading}" if heading else "")
