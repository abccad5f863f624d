"""`penstock search`: ask a collection, and see where the answer stands."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from admin.commands.documents import Failed, ask, collection, server

MISSING = "No such Vector store"
SHOWN = 400  # characters of a passage
BOLD, PLAIN = "\033[1m", "\033[0m"


def run(arguments: argparse.Namespace) -> int:
    asked = body(arguments)
    with server(arguments) as client:
        store = collection(client, arguments.collection)
        wanted = arguments.collection if store is None else store["id"]  # a retriever is searched by its name
        try:
            found = ask(client, "POST", f"vector_stores/{quote(wanted, safe='')}/search", json=asked)
        except Failed as error:
            if store is not None or not str(error).startswith(MISSING):
                raise
            raise Failed(f"there is no collection '{arguments.collection}': `penstock ingest` makes one") from None
    if arguments.json:
        print(json.dumps(found))
        return 0
    for stage in found.get("stages", ()):
        if stage["status"] == "skipped":
            print(f"{stage['name']} was left out: {stage['reason']}", file=sys.stderr)
    if not found["data"]:
        print("nothing found")
    else:
        print("\n\n".join(_shown(result, marked=sys.stdout.isatty()) for result in found["data"]))
    return 0


def body(arguments: argparse.Namespace) -> dict[str, Any]:
    """The request. Raises Failed."""
    ranking = {"ranker": arguments.ranker, "score_threshold": arguments.threshold}
    expand = {"multi_query": arguments.multi_query, "hyde": arguments.hyde or None, "model": arguments.chat_model}
    recency = {"half_life_days": arguments.half_life, "attribute": arguments.date}
    around = arguments.neighbors
    asked = {
        "query": arguments.query,
        "max_num_results": arguments.k,
        "filters": _filter(arguments.filter),
        "tenant": arguments.tenant,
        "ranking_options": _given(ranking),
        "rewrite_query": arguments.rewrite or None,
        "expand": _given(expand),
        "group": None if arguments.group is None else {"by": "file", "size": arguments.group},
        "mmr": None if arguments.mmr is None else {"lambda": arguments.mmr},
        "recency": _given(recency),
        "neighbors": None if around is None else {"before": around, "after": around},
        "highlight": True,
        "explain": arguments.explain or None,
    }
    return _given(asked) or {}


def _given(fields: dict[str, Any]) -> dict[str, Any] | None:
    return {name: value for name, value in fields.items() if value is not None} or None


def _filter(given: str | None) -> Any:
    if given is None:
        return None
    try:
        return json.loads(given)
    except ValueError as error:
        raise Failed(f"--filter is not valid JSON: {error}") from None


def _shown(result: Any, *, marked: bool) -> str:
    texts = (_text(content, marked=marked) for content in result["content"])
    return "\n".join((f"{result['score']:.3f}  {_place(result)}", *_reasons(result), *texts))


def _text(content: Any, *, marked: bool) -> str:
    if content.get("context") is not None:
        return str(content["context"]["text"])
    text, spans = content["text"], content["highlights"] if marked else ()
    cut = len(text) if len(text) <= SHOWN else text.rfind(" ", 0, SHOWN)
    cut = cut if cut > 0 else SHOWN
    for span in reversed([span for span in spans if span["end"] <= cut]):
        start, end = span["start"], span["end"]
        text = f"{text[:start]}{BOLD}{text[start:end]}{PLAIN}{text[end:]}"
        cut += len(BOLD) + len(PLAIN)
    whole = cut >= len(text)
    return " ".join(text[:cut].split()) + ("" if whole else " …")


def _reasons(result: Any) -> Sequence[str]:
    """`dense 2 (0.613), lexical 1 (7.201)`: place and score in each stage."""
    traces = [f"{each['name']} {each['rank']} ({each['score']:.3f})" for each in result.get("explain", ())]
    return (", ".join(traces),) if traces else ()


def _place(result: Any) -> str:
    """`guide.md, page 3, line 12: Installing > From source`."""
    citation, name = result["citation"], result["attributes"].get("path", result["filename"])
    parts: Sequence[str] = [
        str(name),
        *(f"{what} {citation[what]}" for what in ("page", "line") if citation[what] is not None),
    ]
    heading = " > ".join(citation["heading"])
    return ", ".join(parts) + (f": {heading}" if heading else "")
