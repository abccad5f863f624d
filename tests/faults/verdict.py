"""What is not as it has to be in a case that was played: the answer, the bill, the breaker."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from tests.faults.doors import MAX_TOKENS, TEXT, Heard, Told
from tests.faults.table import FLAPS, OPENS_AT, Bill, Case, Fault
from tests.fixtures.deployments import price
from tests.fixtures.server import Json
from tests.upstream.behaviour import Behaviour
from tests.upstream.journal import Entry

BOUND_S: Final = 30.0  # the table's longest total_s


class Answer(msgspec.Struct, frozen=True):
    """What a client got."""

    id: str
    status: int
    headers: Mapping[str, str]
    heard: Heard
    seconds: float

    @property
    def text(self) -> str:
        return self.heard.text

    @property
    def error(self) -> Told | None:
        return self.heard.error

    def header(self, name: str) -> str | None:
        return self.headers.get(f"x-penstock-{name}")


class Stage(msgspec.Struct, frozen=True):
    """One case's two models, the first with the fault and what stands beside it, the second one its fallback; and their deployments."""

    case: Case
    model: str
    other: str
    places: list[str]
    scripts: list[str]


class Seen(msgspec.Struct, frozen=True):
    """A case that was played. `settled`: by call, its attempts in order; `health`: of the first deployment; `spent`: by the ledger;
    `entries`: what each deployment was asked."""

    stage: Stage
    answers: list[Answer]
    settled: list[list[Json]]
    health: str | None
    spent: int  # nano-dollars
    entries: list[list[Entry]]

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


def verdict(seen: Seen) -> Result:
    if seen.case.fault.flaps:
        return _flapping(seen)
    case, first, settled = seen.case, seen.answers[0], seen.settled[0]
    complaints = [*_judge(seen, first), *_judge_bill(seen, first, settled)]
    if case.scene == "elsewhere":
        complaints += _judge_breaker(seen)
    told = "whole" if first.error is None else first.error.code
    return Result(
        case=case,
        outcome=f"{told} after content" if case.fault.begun and first.error else told,
        status=first.status,
        attempts=first.header("attempts") or "-",
        bill=" + ".join(f"{one['usage_source']} {one['cost_nanousd'] / 1e9:.3f}" for one in settled) or "nothing",
        seconds=first.seconds,
        complaints=complaints,
    )


def _flapping(seen: Seen) -> Result:
    attempts = [answer.header("attempts") or "-" for answer in seen.answers]
    costs = [one["cost_nanousd"] for call in seen.settled for one in call]
    return Result(
        case=seen.case,
        outcome=f"whole, {len(seen.answers)} times" if all(one.error is None for one in seen.answers) else "an error",
        status=max(answer.status for answer in seen.answers),
        attempts=f"{min(attempts)}-{max(attempts)}",
        bill=f"{sum(costs) / 1e9:.3f} in {len(costs)} entries",
        seconds=max(answer.seconds for answer in seen.answers),
        complaints=list(_judge_flapping(seen)),
    )


def _judge_flapping(seen: Seen) -> Iterator[str]:
    """Nobody notices, nothing is said twice, each call is billed once, and what flaps is left alone before long."""
    for number, (got, settled) in enumerate(zip(seen.answers, seen.settled, strict=True)):
        ill = number < OPENS_AT and number % 2 == 1
        yield from _differs(f"call {number + 1}", (got.status, got.error, got.text), (200, None, TEXT))
        yield from got.heard.odd
        yield from _differs(f"attempts of call {number + 1}", got.header("attempts"), "2" if ill else "1")
        entries = seen.entries[0 if number < OPENS_AT and not ill else 1]
        due = [("provider", 0)] * ill + [("provider", price(entries[0]))]
        found = [(one["usage_source"], one["cost_nanousd"]) for one in settled]
        yield from _differs(f"bill of call {number + 1}", found, due)
    yield from _differs("health", seen.health, "open")
    asked = [len(entries) for entries in seen.entries[:2]]
    yield from _differs("requests to the two deployments", asked, [OPENS_AT, FLAPS - OPENS_AT // 2])
    every = sum(one["cost_nanousd"] for call in seen.settled for one in call)
    yield from _differs("the ledger's sum", seen.spent, every)


def _judge(seen: Seen, got: Answer) -> Iterator[str]:
    """The answer to the first call."""
    stage, fault, scene = seen.stage, seen.case.fault, seen.case.scene
    if got.seconds > BOUND_S:
        yield f"took {got.seconds:.1f} s"
    if fault.begun:
        yield from _judge_broken(fault, got)
    elif scene == "down":
        if not fault.tells(got.status, None if got.error is None else got.error.code):
            yield f"told {got.status} {got.error} instead of {fault.status} {fault.code}"
        yield from _differs("retry-after", got.headers.get("retry-after"), fault.retry_after)
        if isinstance(fault.what, Behaviour) and fault.what.status in {429, 500, 503}:
            yield from _differs("the first error", got.error is not None and "the first" in got.error.message, True)
        yield from _differs("text", got.text, "")
    else:
        yield from _differs("status", got.status, 200)
        yield from _differs("error", got.error, None)
        yield from _differs("text", got.text, TEXT)
    yield from got.heard.odd
    yield from _differs("the end", got.heard.done, fault.door.stream and got.error is None)
    yield from _differs("attempts", got.header("attempts"), str(_attempts(fault, scene)))
    place = {"elsewhere": 0 if fault.begun or fault.failure is None else 1, "stand-in": 2, "down": 0}[scene]
    yield from _differs("deployment", got.header("deployment"), stage.places[place])
    # Of the model's failures, which chooses who stands in; where a second round is free, chance says who was last.
    last = "server" if fault.status == 503 else "overloaded"
    if scene != "stand-in":
        yield from _differs("fallback", got.header("fallback"), None)
    elif got.header("fallback") not in {last, fault.failure if fault.failure == "connect" else last}:
        yield f"fallback: {got.header('fallback')!r} instead of {last!r}"
    yield from _differs("model", got.header("model"), stage.other if scene == "stand-in" else stage.model)


def _judge_broken(fault: Fault, got: Answer) -> Iterator[str]:
    """Content had come: a 200, the text as far as it came, the error inside, the end without `[DONE]`."""
    yield from _differs("status", got.status, 200)
    yield from _differs(
        "code", None if got.error is None else got.error.code, fault.door.code(fault.status, fault.code)
    )
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
    due: list[tuple[int, Bill]] = [(0, fault.bill)] * (fault.bill != "unsent")
    if fault.failure is not None and not fault.begun:
        if scene == "elsewhere":
            due.append((1, "served"))
        else:  # once, and in a second round perhaps once more
            due += [(1, "free")] * len(seen.entries[1])
            due.append((2, "served" if scene == "stand-in" else "free"))
    places = [seen.stage.places[number] for number, _ in due]
    yield from _differs("deployments that were settled", [one["deployment"] for one in settled], places)
    for record, (number, bill) in zip(settled, due, strict=False):
        yield from _judge_entry(record, seen.entries[number], bill, fault)
    every = sum(one["cost_nanousd"] for call in seen.settled for one in call)
    yield from _differs("the ledger's sum", seen.spent, every)
    told = got.header("cost-usd")
    if told is not None:
        yield from _differs("x-penstock-cost-usd", told, f"{sum(one['cost_nanousd'] for one in settled) / 1e9:.9f}")


def _judge_entry(record: Json, entries: Sequence[Entry], bill: Bill, fault: Fault) -> Iterator[str]:
    cost, source = record["cost_nanousd"], record["usage_source"]
    match bill:
        case "free":
            yield from _differs("a refusal", (source, cost), ("provider", 0))
        case "served" | "told":
            yield from _differs("the bill", (source, cost), ("provider", price(entries[0])))
        case "worst":
            yield from _differs("source", source, "estimated")
            yield from _differs(
                "tokens", record["completion_tokens"], 0 if fault.door.api == "embeddings" else MAX_TOKENS
            )
            if cost < price(entries[0]):
                yield f"the worst case, {cost}, is less than what the upstream did"
        case "came" | "opened":
            yield from _differs("source", source, "estimated" if bill == "came" else "provider")
            if bill == "opened":
                said = entries[0].prompt_tokens or 1
                yield from _differs("tokens of the prompt", record["prompt_tokens"], said)
            if not 0 < cost < 1_000_000_000:
                yield f"what came costs {cost}"
            if fault.begun:
                came = record["completion_tokens"] - entries[0].completion_tokens
                more = fault.door.counted
                if (
                    isinstance(fault.what, Behaviour) and fault.what.body
                ):  # two words, which the upstream does not count
                    more = 2 if bill == "opened" else 1  # by their length, or by their event
                yield from _differs("tokens beside those that the upstream counts", came, more)
        case "unsent":
            yield "an entry for what was never sent"


def _judge_breaker(seen: Seen) -> Iterator[str]:
    """What failed is left alone: the second call goes straight to the other deployment, and is whole."""
    fault = seen.case.fault
    yield from _differs("health", seen.health, fault.health)
    again = seen.answers[1]
    yield from _differs("the second call", (again.status, again.error, again.text), (200, None, TEXT))
    yield from _differs("attempts of the second call", again.header("attempts"), "1")
    first, second = (len(entries) for entries in seen.entries[:2])
    asked = (2, 0) if fault.failure is None else (0 if isinstance(fault.what, str) else 1, 1 if fault.begun else 2)
    yield from _differs("requests to the two deployments", (first, second), asked)
    bills = [one["cost_nanousd"] for one in seen.settled[1]]
    last = seen.entries[0 if fault.failure is None else 1][-1:]
    yield from _differs("bills of the second call", bills, [price(entry) for entry in last])


def _differs(what: str, found: object, wanted: object) -> Iterator[str]:
    if found != wanted:
        yield f"{what}: {found!r} instead of {wanted!r}"
