"""Runs the table on a real server in front of the scripted upstream, and gathers what is to be seen of each case."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from tests.faults.doors import PATHS, hear
from tests.faults.table import FLAPS, GOOD, Case
from tests.faults.verdict import BOUND_S, Answer, Result, Seen, Stage, verdict
from tests.fixtures.deployments import PRICE
from tests.fixtures.server import Json, Server, refused_port
from tests.fixtures.upstream import Upstream
from tests.upstream.behaviour import Behaviour

AT_ONCE: Final = 4  # cases
WAITING: Final = 24  # of those that do nothing but wait, beside them
RETRIES: Final = {"attempts": 1, "base_s": 0.01, "max_s": 0.05}
BREAKER: Final = {"failures": 1, "open_s": 600, "max_open_s": 600, "cool_s": 600}  # one failure is enough, and stays
# A share of eight calls or more, never so many failures in a row.
FLAPPING: Final = {"failures": 3, "share": 0.5, "calls": 8, "window_s": 600, "open_s": 600, "max_open_s": 600}


def play(upstream: Upstream, folder: Path, table: Iterable[Case]) -> list[Result]:
    """One server for all cases, several of them at a time; the records are looked at in the end, when all are there."""
    with refused_port() as closed:
        stages, models = [], []
        for number, case in enumerate(table):
            stage, specs = _stage(upstream, f"case-{number}", case, closed)
            stages.append(stage)
            models += specs
        server = Server({"models": models}, folder).start()
        try:
            answers = _answers(server, stages)
            records = _records(server, {answer.id for each in answers for answer in each})
            health = {each["id"]: each["health"] for each in _pages(server, "/deployments")}
            spend = server.admin.get("/spend", params={"group_by": "model", "limit": 10_000}).json()["data"]
        finally:
            server.stop()
    cost = {row["group"]: row["cost_nanousd"] for row in spend}
    asked = defaultdict(list)
    for entry in upstream.log():
        asked[entry.script].append(entry)
    results = []
    for stage, got in zip(stages, answers, strict=True):
        shown = health[stage.places[0]]
        settled = [records[answer.id] for answer in got]
        spent = cost.get(stage.model, 0) + cost.get(stage.other, 0)
        entries = [asked[script] for script in stage.scripts]
        results.append(verdict(Seen(stage, got, settled, None if shown is None else shown["state"], spent, entries)))
    return results


def _answers(server: Server, stages: Sequence[Stage]) -> list[list[Answer]]:
    """In their order. Those that wait out a limit have threads of their own, as they need nothing else."""
    with ThreadPoolExecutor(WAITING) as waiting, ThreadPoolExecutor(AT_ONCE) as working:
        calls = [(waiting if stage.case.fault.silent else working).submit(_calls, server, stage) for stage in stages]
        return [call.result() for call in calls]


def _stage(upstream: Upstream, name: str, case: Case, closed: int) -> tuple[Stage, list[Json]]:
    """The two models, and what `penstock.yaml` says of them."""
    fault, door = case.fault, case.fault.door
    worse = Behaviour(status=500 if fault.status == 503 else 503, error_message="a later one")
    second, third = {"elsewhere": (GOOD, GOOD), "stand-in": (worse, GOOD), "down": (worse, worse)}[case.scene]
    places, scripts, specs = [], [], []
    whats = [(fault.what, door.place), (second, door.other), (third, door.place)]
    for number, (what, speaks) in enumerate(whats, 1):
        known = what if isinstance(what, Behaviour) else GOOD
        handle = upstream.script(*([GOOD, known] * FLAPS if fault.flaps and number == 1 else [known]))
        url = handle.base_url if isinstance(what, Behaviour) else what.format(closed=closed)
        id_ = f"{name}-{number}"
        places.append(id_)
        scripts.append(handle.id)
        specs.append({"id": id_, "base_url": url, "model": "scripted", "api_key": f"sk-{id_}", "order": number})
        specs[-1] |= {"price": PRICE, **speaks}
    other: Json = {"name": f"{name}-other", "deployments": specs[2:], "retries": {"attempts": 0}, "breaker": BREAKER}
    breaker = FLAPPING if fault.flaps else BREAKER
    model: Json = {"name": name, "deployments": specs[:2], "retries": RETRIES, "breaker": breaker}
    model |= {"timeouts": fault.timeouts, "fallbacks": [other["name"]]}
    return Stage(case, name, other["name"], places, scripts), [model, other]


def _calls(server: Server, stage: Stage) -> list[Answer]:
    """A second one, where there is something to be seen of what the first one taught."""
    count = FLAPS if stage.case.fault.flaps else 2 if stage.case.scene == "elsewhere" else 1
    return [_ask(server, stage) for _ in range(count)]


def _ask(server: Server, stage: Stage) -> Answer:
    door = stage.case.fault.door
    headers = {"authorization": f"Bearer {server.key}"}
    began = time.monotonic()
    answer = server.http.post(PATHS[door.api], json=door.body(stage.model), headers=headers, timeout=2 * BOUND_S)
    seconds = time.monotonic() - began
    return Answer(
        id=answer.headers["x-request-id"],
        status=answer.status_code,
        headers=dict(answer.headers),
        heard=hear(door, answer),
        seconds=seconds,
    )


def _records(server: Server, ids: set[str]) -> Mapping[str, list[Json]]:
    """The settled attempts of each request."""
    deadline = time.monotonic() + BOUND_S
    while True:
        found: dict[str, list[Json]] = {}
        for record in _pages(server, "/requests"):
            found.setdefault(record["id"].partition("-")[0], []).append(record)
        if all(any(one["id"] == id_ for one in found.get(id_, ())) for id_ in ids):
            return {id_: _settled(id_, found[id_]) for id_ in ids}
        assert time.monotonic() < deadline, "some requests were never shipped"
        time.sleep(0.1)


def _settled(id_: str, records: Iterable[Json]) -> list[Json]:
    """The attempts that were settled, the one with the request's own id at the end."""
    return sorted(
        (one for one in records if one["usage_source"] is not None), key=lambda one: (one["id"] == id_, one["id"])
    )


def _pages(server: Server, path: str) -> Iterator[Json]:
    query = {"limit": "200"}
    while True:
        page = server.admin.get(path, params=query).json()
        yield from page["data"]
        if not page["has_more"]:
            return
        query["after"] = page["next"]
