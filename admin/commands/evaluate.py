"""`penstock eval`: how good searches are over questions with known answers, side by side; whether a model's cited sentences hold."""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from admin.commands import answers
from admin.commands.documents import Failed, ask, collection, server
from retrieval.evaluation.comparison import Comparison, compare
from retrieval.evaluation.measures import MEASURES, Ranking, measure
from retrieval.evaluation.questions import (
    BadQuestions,
    Found,
    Question,
    Requirement,
    Verdict,
    percentile,
    ranking,
    read,
    verdicts,
)

DEPTH: Final = 50  # what a search gives at most
NAMED: Final[Mapping[str, Mapping[str, Any]]] = {
    "hybrid": {"ranking_options": {"ranker": "none"}},
    "bm25": {"ranking_options": {"ranker": "none", "hybrid_search": {"embedding_weight": 0, "text_weight": 1}}},
    "dense": {"ranking_options": {"ranker": "none", "hybrid_search": {"embedding_weight": 1, "text_weight": 0}}},
    "default": {},
}


class Run(msgspec.Struct, frozen=True):
    """A search as it is configured: fields of its request."""

    name: str
    fields: Mapping[str, Any]


class Timed(msgspec.Struct, frozen=True):
    """What a run found for each question, how long each took, and which stages it did without."""

    found: Mapping[str, Ranking]
    took_ms: Sequence[float]
    skipped: Mapping[str, int]


def run(arguments: argparse.Namespace) -> int:
    questions = _questions(arguments.questions)
    runs = [_run(each) for each in arguments.run or ["hybrid"]]
    if len({each.name for each in runs}) != len(runs):
        raise Failed("two runs have the same name: --run NAME=JSON gives another one")
    measures = _measures(arguments.measures)
    required = [_requirement(each, measures) for each in arguments.require or ()]
    with server(arguments) as client:
        store = collection(client, arguments.collection)
        if store is None:
            raise Failed(f"there is no collection '{arguments.collection}': `penstock ingest` makes one")
        timed = {each.name: _timed(client, store["id"], each, questions, _depth(measures)) for each in runs}
        grounded = None
        if arguments.answers is not None:
            asked = answers.Asked(client, store, arguments.answers, arguments.judge, runs[-1].fields)
            grounded = asyncio.run(asked.all(questions))
    judged = {each.id: each.judged for each in questions}
    comparison = compare({name: each.found for name, each in timed.items()}, judged, measures)
    made = verdicts(comparison, required, no_worse=arguments.no_worse)
    if grounded is not None and arguments.require_supported is not None:
        least = arguments.require_supported
        what = f"{arguments.answers}: supported {grounded.supported.value:.4f} >= {least:g}"
        made.append(Verdict(what, grounded.supported.value >= least))
    if arguments.json:
        print(json.dumps(_as_json(comparison, timed, made, grounded)))
    else:
        print(_as_text(comparison, timed, made, grounded))
    return 0 if all(each.passed for each in made) else 1


def _timed(client: httpx.Client, store: str, run: Run, questions: Sequence[Question], depth: int) -> Timed:
    """Raises Failed."""
    found: dict[str, Ranking] = {}
    took: list[float] = []
    skipped: dict[str, int] = {}
    for number, question in enumerate(questions, 1):
        filters = {} if question.filters is None else {"filters": question.filters}
        body = {"max_num_results": depth, "group": {}, **run.fields, **filters, "query": question.query}
        began = time.perf_counter()
        page = ask(client, "POST", f"vector_stores/{store}/search", json=body)
        took.append(1000 * (time.perf_counter() - began))
        documents = [
            Found(each["file_id"], each["filename"], str(each["attributes"].get("path", ""))) for each in page["data"]
        ]
        found[question.id] = ranking(documents, question.judged)
        for stage in page.get("stages", ()):
            if stage["status"] == "skipped":
                skipped[stage["name"]] = skipped.get(stage["name"], 0) + 1
        if sys.stderr.isatty():
            print(f"\r{run.name}: {number} of {len(questions)}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return Timed(found, took, skipped)


def _questions(file: str) -> list[Question]:
    try:
        return read(Path(file).read_text(encoding="utf-8").splitlines())
    except (BadQuestions, UnicodeDecodeError) as error:
        raise Failed(f"{file}: {error}") from None


def _run(given: str) -> Run:
    """`dense`, `rerank:MODEL`, `mine={"mmr": {}}`."""
    name, equals, text = given.partition("=")
    if equals:
        try:
            fields = json.loads(text)
        except ValueError as error:
            raise Failed(f"--run {name}: what is behind '=' is not valid JSON: {error}") from None
        if not name or not isinstance(fields, dict):
            raise Failed(f"--run {given}: give a name, '=' and a JSON object of fields of a search")
        return Run(name, fields)
    kind, colon, model = given.partition(":")
    if colon and kind == "rerank" and model:
        return Run(given, {"ranking_options": {"ranker": model}})
    if given not in NAMED:
        raise Failed(f"--run {given}: there are {', '.join(NAMED)}, rerank:MODEL, and NAME=JSON")
    return Run(given, NAMED[given])


def _measures(given: str | None) -> Sequence[str]:
    names = tuple(MEASURES) if given is None else tuple(each.strip() for each in given.split(","))
    for name in names:
        try:
            measure(name, {}, {"d": 1})
        except ValueError as error:
            raise Failed(f"--measures: {error}") from None
    if _depth(names) > DEPTH:
        raise Failed(f"--measures: a search gives at most {DEPTH} documents")
    return names


def _depth(measures: Sequence[str]) -> int:
    return max(int(each.partition("@")[2]) for each in measures)


def _requirement(given: str, measures: Sequence[str]) -> Requirement:
    name, _, value = given.partition("=")
    try:
        least = float(value)
    except ValueError:
        raise Failed(f"--require {given}: give a measure and a number, as in ndcg@10=0.6") from None
    if name not in measures:
        raise Failed(f"--require {given}: measured are {', '.join(measures)}")
    return Requirement(name, least)


def _as_json(
    found: Comparison, timed: Mapping[str, Timed], made: Sequence[Verdict], grounded: "answers.Grounded | None"
) -> dict[str, Any]:
    rows = [
        {
            **msgspec.to_builtins(row),
            "latency_ms": {name: percentile(timed[row.name].took_ms, share) for name, share in _SHARES.items()},
            "skipped": dict(timed[row.name].skipped),
        }
        for row in found.rows
    ]
    report = {
        "questions": found.questions,
        "runs": rows,
        "checks": msgspec.to_builtins(made),
        "passed": all(each.passed for each in made),
    }
    return report if grounded is None else {**report, "answers": msgspec.to_builtins(grounded)}


_SHARES: Final = {"p50": 0.5, "p95": 0.95}


def _as_text(
    found: Comparison, timed: Mapping[str, Timed], made: Sequence[Verdict], grounded: "answers.Grounded | None"
) -> str:
    lines = [found.table(), "", f"{found.questions} questions; in brackets the interval of 95 %"]
    if len(found.rows) > 1:
        lines[-1] += f"; * differs from {found.rows[0].name} by more than chance (paired, p < 0.05)"
    for name, each in timed.items():
        times = ", ".join(f"{label} {percentile(each.took_ms, share):.1f} ms" for label, share in _SHARES.items())
        without = "".join(f"; {stage} was left out {count} times" for stage, count in each.skipped.items())
        lines.append(f"{name}: {times}{without}")
    if grounded is not None:
        lines.append(grounded.line())
    lines += [f"{'passed' if each.passed else 'FAILED'}  {each.what}" for each in made]
    return "\n".join(lines)
