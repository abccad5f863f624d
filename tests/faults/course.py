"""Runs the table on a real server in front of the scripted upstream, and says of each case what is not as it has to be."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from tests.faults.table import GOOD, TEXT, Bill, Case, Fault
from tests.fixtures.deployments import PRICE, Place, Route, price
from tests.fixtures.server import Json, Server, refused_port
from tests.fixtures.upstream import Upstream
from tests.upstream.behaviour import Behaviour

AT_ONCE: Final = 6  # cases; most of their time is waiting
MAX_TOKENS: Final = 50
BOUND_S: Final = 30.0  # the table's longest total_s
RETRIES: Final = {"attempts": 1, "base_s": 0.01, "max_s": 0.05}
BREAKER: Final = {"failures": 1, "open_s": 600, "max_open_s": 600, "cool_s": 600}  # one failure is enough, and stays


class Answer(msgspec.Struct, frozen=True):
    """What a client got. `error` is the status's own or the one inside the stream; `done`: the stream said that it is through."""

    id: str
    status: int
    headers: Mapping[str, str]
    text: str
    error: Json | None
    done: bool
    seconds: float

    def header(self, name: str) -> str | None:
        return self.headers.get(f"x-penstock-{name}")


class Stage(msgspec.Struct, frozen=True):
    """One case's two models: `route` with the fault and what stands beside it, and `other`, its fallback."""

    case: Case
    route: Route
    other: Route

    @property
    def places(self) -> list[Place]:
        return [*self.route.places, *self.other.places]


class Seen(msgspec.Struct, frozen=True):
    """A case that was played. `settled`: by call, its attempts in order; `health`: of the first deployment; `spent`: by the ledger."""

    stage: Stage
    answers: list[Answer]
    settled: list[list[Json]]
    health: str | None
    spent: int  # nano-dollars

    @property
    def case(self) -> Case:
        return self.stage.case


class Result(msgspec.Struct, frozen=True):
    """A case with its verdict. `bill`: what each attempt was settled at, as `source amount`."""

    case: Case
    outcome: str
    status: int
    attempts: str
    bill: str
    seconds: float
    complaints: list[str]


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
            with ThreadPoolExecutor(AT_ONCE) as pool:
                answers = list(pool.map(lambda stage: _calls(server, stage), stages))
            records = _records(server, {answer.id for each in answers for answer in each})
            health = {each["id"]: each["health"] for each in _pages(server, "/deployments")}
            spend = server.admin.get("/spend", params={"group_by": "model", "limit": 1000}).json()["data"]
        finally:
            server.stop()
    results = []
    for stage, got in zip(stages, answers, strict=True):
        shown = health[stage.places[0].id]
        settled = [records[answer.id] for answer in got]
        spent = sum(row["cost_nanousd"] for row in spend if row["group"] in {stage.route.name, stage.other.name})
        results.append(_result(Seen(stage, got, settled, None if shown is None else shown["state"], spent)))
    return results


def _stage(upstream: Upstream, name: str, case: Case, closed: int) -> tuple[Stage, list[Json]]:
    """The two models, and what `penstock.yaml` says of them."""
    fault = case.fault
    worse = Behaviour(status=500 if fault.status == 503 else 503, error_message="a later one")
    second, third = {"elsewhere": (GOOD, GOOD), "stand-in": (worse, GOOD), "down": (worse, worse)}[case.scene]
    places = [
        _place(upstream, f"{name}-{letter}", what, closed)
        for letter, what in zip("abc", (fault.what, second, third), strict=True)
    ]
    (first, second_spec, third_spec) = (spec | {"order": number} for number, (_, spec) in enumerate(places, 1))
    other: Json = {"name": f"{name}-other", "deployments": [third_spec], "retries": {"attempts": 0}, "breaker": BREAKER}
    model: Json = {"name": name, "deployments": [first, second_spec], "retries": RETRIES, "breaker": BREAKER}
    model |= {"timeouts": fault.timeouts, "fallbacks": [other["name"]]}
    made = [place for place, _ in places]
    return Stage(case, Route(name, made[:2]), Route(other["name"], made[2:])), [model, other]


def _place(upstream: Upstream, id_: str, what: Behaviour | str, closed: int) -> tuple[Place, Json]:
    handle = upstream.script(what if isinstance(what, Behaviour) else GOOD)
    url = handle.base_url if isinstance(what, Behaviour) else what.format(closed=closed)
    return Place(id_, handle), {"id": id_, "base_url": url, "model": "scripted", "api_key": f"sk-{id_}", "price": PRICE}


def _calls(server: Server, stage: Stage) -> list[Answer]:
    """A second one, where there is something to be seen of what the first one taught."""
    return [_ask(server, stage) for _ in range(2 if stage.case.scene == "elsewhere" else 1)]


def _ask(server: Server, stage: Stage) -> Answer:
    model, mode = stage.route.name, stage.case.fault.mode
    headers = {"authorization": f"Bearer {server.key}"}
    path, body = "/v1/chat/completions", server.ask(model, max_tokens=MAX_TOKENS, stream=mode == "stream")
    if mode == "embeddings":
        path, body = "/v1/embeddings", {"model": model, "input": TEXT}
    began = time.monotonic()
    answer = server.http.post(path, json=body, headers=headers, timeout=2 * BOUND_S)
    seconds = time.monotonic() - began
    events = _events(answer) if "event-stream" in answer.headers["content-type"] else [answer.json()]
    return Answer(
        id=answer.headers["x-request-id"],
        status=answer.status_code,
        headers=dict(answer.headers),
        text="".join(_texts(events)),
        error=next((event["error"] for event in events if "error" in event), None),
        done=answer.text.endswith("data: [DONE]\n\n"),
        seconds=seconds,
    )


def _events(answer: httpx.Response) -> list[Json]:
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def _texts(events: Sequence[Json]) -> Iterator[str]:
    for event in events:
        for choice in event.get("choices", ()):
            yield (choice.get("message") or choice.get("delta") or {}).get("content") or ""
        if event.get("object") == "list":
            yield TEXT if event["data"][0]["embedding"] else ""


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
    query: dict[str, Any] = {"limit": 200}
    while True:
        page = server.admin.get(path, params=query).json()
        yield from page["data"]
        if not page["has_more"]:
            return
        query["after"] = page["next"]


def _result(seen: Seen) -> Result:
    case, first, settled = seen.case, seen.answers[0], seen.settled[0]
    complaints = [*_judge(seen, first), *_judge_bill(seen, first, settled)]
    if case.scene == "elsewhere":
        complaints += _judge_breaker(seen)
    told = "whole" if first.error is None else first.error["code"] or first.error["type"]
    return Result(
        case=case,
        outcome=f"{told} after content" if case.fault.begun and first.error else told,
        status=first.status,
        attempts=first.header("attempts") or "-",
        bill=" + ".join(f"{one['usage_source']} {one['cost_nanousd'] / 1e9:.3f}" for one in settled) or "nothing",
        seconds=first.seconds,
        complaints=complaints,
    )


def _judge(seen: Seen, got: Answer) -> Iterator[str]:
    """The answer to the first call."""
    stage, fault, scene = seen.stage, seen.case.fault, seen.case.scene
    if got.seconds > BOUND_S:
        yield f"took {got.seconds:.1f} s"
    if fault.begun:
        yield from _judge_broken(fault, got)
    elif scene == "down":
        if not fault.tells(got.status, (got.error or {}).get("code")):
            yield f"told {got.status} {got.error} instead of {fault.status} {fault.code}"
        yield from _differs("retry-after", got.headers.get("retry-after"), fault.retry_after)
        if isinstance(fault.what, Behaviour) and fault.what.status in {429, 500, 503}:
            yield from _differs("the first error", "the first" in (got.error or {})["message"], True)
        yield from _differs("text", got.text, "")
    else:
        yield from _differs("status", got.status, 200)
        yield from _differs("error", got.error, None)
        yield from _differs("text", got.text, TEXT)
    yield from _differs("[DONE]", got.done, fault.mode == "stream" and got.error is None)
    yield from _differs("attempts", got.header("attempts"), str(_attempts(fault, scene)))
    place = {"elsewhere": 0 if fault.begun or fault.failure is None else 1, "stand-in": 2, "down": 0}[scene]
    yield from _differs("deployment", got.header("deployment"), stage.places[place].id)
    # Of the model's failures, which chooses who stands in; where a second round is free, chance says who was last.
    last = "server" if fault.status == 503 else "overloaded"
    if scene != "stand-in":
        yield from _differs("fallback", got.header("fallback"), None)
    elif got.header("fallback") not in {last, fault.failure if fault.failure == "connect" else last}:
        yield f"fallback: {got.header('fallback')!r} instead of {last!r}"
    yield from _differs("model", got.header("model"), (stage.other if scene == "stand-in" else stage.route).name)


def _judge_broken(fault: Fault, got: Answer) -> Iterator[str]:
    """Content had come: a 200, the text as far as it came, the error inside, the end without `[DONE]`."""
    yield from _differs("status", got.status, 200)
    yield from _differs("code", (got.error or {}).get("code"), fault.code)
    if not got.text or not TEXT.startswith(got.text):
        yield f"text {got.text!r} is no beginning of what was said"


def _attempts(fault: Fault, scene: str) -> int:
    """One retry: the second deployment; where coming to that one was free, one more round of those that may be asked again."""
    if fault.failure is None or fault.begun:
        return 1
    if scene == "elsewhere":
        return 2
    return 4 if fault.free else 3


def _judge_bill(seen: Seen, got: Answer, settled: Sequence[Json]) -> Iterator[str]:
    """Each attempt that an upstream may have seen has one entry, at what the rule says."""
    fault, scene = seen.case.fault, seen.case.scene
    due: list[tuple[Place, Bill]] = [(seen.stage.places[0], fault.bill)] * (fault.bill != "unsent")
    if fault.failure is not None and not fault.begun:
        if scene == "elsewhere":
            due.append((seen.stage.places[1], "served"))
        else:  # once, and in a second round perhaps once more
            due += [(seen.stage.places[1], "free")] * seen.stage.places[1].asked
            due.append((seen.stage.places[2], "served" if scene == "stand-in" else "free"))
    yield from _differs("deployments that were settled", [one["deployment"] for one in settled], [p.id for p, _ in due])
    for record, (place, bill) in zip(settled, due, strict=False):
        yield from _judge_entry(record, place, bill, fault)
    every = sum(one["cost_nanousd"] for call in seen.settled for one in call)
    yield from _differs("the ledger's sum", seen.spent, every)
    told = got.header("cost-usd")
    if told is not None:
        yield from _differs("x-penstock-cost-usd", told, f"{sum(one['cost_nanousd'] for one in settled) / 1e9:.9f}")


def _judge_entry(record: Json, place: Place, bill: Bill, fault: Fault) -> Iterator[str]:
    cost, source = record["cost_nanousd"], record["usage_source"]
    entries = place.handle.entries()
    match bill:
        case "free":
            yield from _differs("a refusal", (source, cost), ("provider", 0))
        case "served":
            yield from _differs("the bill", (source, cost), ("provider", price(entries[0])))
        case "worst":
            yield from _differs("source", source, "estimated")
            yield from _differs("tokens", record["completion_tokens"], 0 if fault.mode == "embeddings" else MAX_TOKENS)
            if cost < price(entries[0]):
                yield f"the worst case, {cost}, is less than what the upstream did"
        case "came":
            yield from _differs("source", source, "estimated")
            if not 0 < cost < 1_000_000_000:
                yield f"what came costs {cost}"
            if fault.begun:
                came = record["completion_tokens"] - entries[0].completion_tokens
                yield from _differs("tokens that came, beside the role's event", came, 1)
        case "unsent":
            yield "an entry for what was never sent"


def _judge_breaker(seen: Seen) -> Iterator[str]:
    """What failed is left alone: the second call goes straight to the other deployment, and is whole."""
    fault = seen.case.fault
    yield from _differs("health", seen.health, fault.health)
    again = seen.answers[1]
    yield from _differs("the second call", (again.status, again.error, again.text), (200, None, TEXT))
    yield from _differs("attempts of the second call", again.header("attempts"), "1")
    first, second = (place.asked for place in seen.stage.route.places)
    asked = (2, 0) if fault.failure is None else (0 if isinstance(fault.what, str) else 1, 1 if fault.begun else 2)
    yield from _differs("requests to the two deployments", (first, second), asked)
    bills = [one["cost_nanousd"] for one in seen.settled[1]]
    place = seen.stage.route.places[0 if fault.failure is None else 1]
    yield from _differs("bills of the second call", bills, [price(entry) for entry in place.handle.entries()[-1:]])


def _differs(what: str, found: object, wanted: object) -> Iterator[str]:
    if found != wanted:
        yield f"{what}: {found!r} instead of {wanted!r}"
