"""A call's short records, which name a party that many share, say what its long ones say: in sums, in the ledger and after a crash."""

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.msgpack import encode
from msgspec.structs import replace
from sqlalchemy import Engine

from admin.migrate import prepare
from gateway import ledger, ledger_export, ledger_store, request_store
from gateway.database import connect, reading
from gateway.journal_batch import OpenCalls, batches, settlements
from gateway.journal_files import Run
from gateway.journal_records import (
    Amounts,
    Began,
    Ended,
    Intent,
    Party,
    Reason,
    Record,
    Routed,
    Settled,
    Try,
    settled_at_worst,
)
from gateway.ledger_groups import Tally, first_head, group, tally
from gateway.shipping import deliver
from gateway.spend import EVER, spend
from gateway.usage import of_tokens
from gateway.used import Source, Usage
from tests.fixtures.ledger import BEGAN, DAY_S

ACCOUNTS = (("b:key_1:0", 0), ("b:team.rpd:1795", 1), ("l:l1:tpm", 2), ("l:l1:input_tpm", 3), ("l:l2:output_tpm", 4))
PARTIES = [
    Party("chat", "key_1", "team_1", "org_1", "user_1", "chat", "openai", "a", False, (*ACCOUNTS, ("p:l1", 1))),
    Party("chat", "key_1", "team_1", "org_1", "user_1", "chat", "openai", "a", True, ACCOUNTS[:1]),
    Party("chat", "key_2", None, None, None, "chat-" + "x" * 300, "vllm", "b", False, ACCOUNTS[1:3]),
    Party("embeddings", "key_1", "team_1", "org_1", None, "chat", "openai", "a"),
]
NAMES = st.one_of(st.none(), st.sampled_from(["ada", "", "g\x00", "x" * 300, "x" * 301]))
COSTS = st.one_of(st.none(), st.integers(0, 10**7), st.sampled_from([2**53, 2**53 + 1, 2**61, -1]))
USAGES = st.builds(
    Usage, input=st.integers(0, 2**40), output=st.integers(0, 2**40), cached_read=st.integers(0, 3), images=st.just(0)
)


SOURCES: st.SearchStrategy[Source | None] = st.sampled_from(["provider", "estimated", "counted", None])


class Call(msgspec.Struct, frozen=True):
    """One call in both of its forms."""

    short: Ended
    long: Settled
    began: Began
    intent: Intent

    def end(self, *, shortly: bool) -> Settled | Ended:
        return self.short if shortly else self.long

    def start(self, *, shortly: bool) -> Intent | Began:
        return self.began if shortly else self.intent


def due(party: Party, cost: int, prompt: int, output: int) -> list[tuple[str, int]]:
    amounts = (cost, 1, prompt + output, prompt, output)
    return [(account, amounts[counts]) for account, counts in party.accounts]


@st.composite
def calls(draw: st.DrawFn, number: int = 0) -> Call:
    party, at = draw(st.sampled_from(PARTIES)), BEGAN + draw(st.sampled_from([0.0, 0.5, DAY_S, 40 * DAY_S]))
    source = draw(SOURCES)
    cost, usage = draw(COSTS), draw(st.one_of(st.none(), USAGES))
    explicit: Amounts | None = draw(st.one_of(st.none(), st.just((("b:key_1:0", 7),)), st.just(())))
    customer, tags = draw(NAMES), draw(st.one_of(st.none(), st.just(()), st.just(("a", "b", "a", "x" * 300))))
    id_ = f"req_{number:024x}"
    raw = msgspec.Raw(encode(party))
    trail = (Try("chat", "a", "busy", 1.5),) if draw(st.booleans()) else None
    routed = Routed("cheapest", shadow_of="req_1") if draw(st.booleans()) else None
    attempts = draw(st.integers(0, 1))
    code = draw(st.sampled_from([None, "client_disconnected"]))
    reason: Reason = "disconnect" if code else "done"
    charged: Amounts = explicit if explicit is not None else ()
    if explicit is None and source is not None and usage is not None:
        every = due(party, cost or 0, usage.input, usage.output)
        charged = tuple(one for one in every if not one[0].startswith("p:"))
    ids = (party.key_id, party.team_id, party.org_id, party.user_id)
    place = (party.model, party.provider, party.deployment)
    short = Ended(
        id_,
        at,
        raw,
        200,
        source,
        cost,
        usage,
        attempts,
        12.5,
        3.25,
        0.5,
        code,
        reason,
        customer,
        tags,
        trail,
        routed,
        explicit,
    )
    long = Settled(
        id_,
        at,
        party.endpoint,
        200,
        source,
        cost,
        usage,
        charged,
        *ids,
        customer,
        *place,
        tags,
        party.stream,
        attempts,
        12.5,
        3.25,
        0.5,
        code,
        reason,
        trail,
        routed,
    )
    worst, prompt, output = draw(st.integers(0, 10**7)), draw(st.integers(0, 9)), draw(st.integers(0, 9))
    capped = draw(st.booleans())
    holds = tuple(
        (account, min(amount, 5 if capped else amount))
        for account, amount in due(party, worst, prompt, output)
        if amount
    )
    began = Began(id_, at, raw, worst, prompt, output, customer, tags, holds if capped else None)
    intent = Intent(
        id_, at, party.endpoint, holds, worst, *ids, customer, *place, tags, party.stream, of_tokens(prompt, output)
    )
    return Call(short, long, began, intent)


HISTORIES = st.lists(calls(), max_size=25).map(
    lambda found: [
        Call(
            replace(one.short, id=f"req_{number:024x}"),
            replace(one.long, id=f"req_{number:024x}"),
            replace(one.began, id=f"req_{number:024x}"),
            replace(one.intent, id=f"req_{number:024x}"),
        )
        for number, one in enumerate(found)
    ]
)


def read(records: Sequence[Record], first: int = 0) -> Tally:
    return tally(Run(first, [encode(one) for one in records]))


def said(one: Tally) -> object:
    """Everything that the database gets of a tally, but for the order of its rows and the bytes of its records."""
    parts = [
        (part.first_id, part.last_id, part.first_at, part.last_at, part.keys, len(part.payloads))
        for part in (one.entries, one.refused)
    ]
    return sorted(one.sums.rows(), key=str), dict(one.charges), one.sums.cost_nanousd(), parts


@given(calls())
def test_an_ended_is_the_settled_of_the_same_call(one: Call) -> None:
    """Field by field, and as a block's reader finds it."""
    assert one.short.settled(msgspec.msgpack.decode(one.short.party, type=Party)) == one.long
    assert settlements(encode([one.short, one.long, one.short])) == [one.long] * 3


@given(calls())
def test_a_began_is_the_intent_of_the_same_call(one: Call) -> None:
    """Also where a bucket holds less than the call needs, and where some account needs nothing: and so is its worst case."""
    open_ = OpenCalls()
    for batch in batches(Run(0, [encode(one.began)])):
        open_.take(batch)
    assert open_.intents() == (one.intent,)
    assert settled_at_worst(open_.intents()[0]) == settled_at_worst(one.intent)


@settings(max_examples=200)
@given(HISTORIES, st.data())
def test_both_forms_come_to_the_same_sums(history: list[Call], data: st.DataObject) -> None:
    """All short, all long, or each as it comes."""
    shortly = data.draw(st.lists(st.booleans(), min_size=len(history), max_size=len(history)))
    long = said(read([one.long for one in history]))
    assert said(read([one.short for one in history])) == long
    assert said(read([one.end(shortly=form) for one, form in zip(history, shortly, strict=True)])) == long


@given(HISTORIES, st.data())
def test_a_head_that_is_ahead_counts_nothing_twice(history: list[Call], data: st.DataObject) -> None:
    """A commit whose answer was lost: what is left is what the rest alone comes to."""
    ends: list[Record] = [one.short for one in history]
    known = data.draw(st.integers(0, len(ends)))
    head = replace(first_head("ses_a", None), position=known)
    made = group(head, read(ends))
    alone = group(head, read(ends[known:], known))
    assert said(made.tally) == said(alone.tally)
    assert (made.head, made.block) == (alone.head, alone.block)


ATTEMPTS = st.lists(st.sampled_from(["open", "hedge", "end 1", "end 2", "done 1", "done 2"]), max_size=8)


@given(calls(), ATTEMPTS, st.lists(st.booleans(), min_size=16, max_size=16))
def test_what_is_open_after_a_crash_does_not_depend_on_the_form(one: Call, steps: list[str], forms: list[bool]) -> None:
    """Several attempts of a request, announced by themselves or not, settled in any order."""

    def records(shortly: Iterator[bool]) -> Iterator[Record]:
        for step in steps:
            form = next(shortly)
            name, _, number = step.partition(" ")
            if name in ("open", "hedge"):
                start = one.start(shortly=form)
                yield replace(start, id=f"{start.id}-2") if name == "hedge" else start
            else:
                end = one.end(shortly=form)
                yield replace(end, id=f"{end.id}-{number}" if name == "end" else end.id, attempts=int(number))

    def left(shortly: Sequence[bool]) -> Sequence[Settled]:
        open_ = OpenCalls()
        tally(Run(0, [encode(record) for record in records(iter(shortly))]), open_)
        return [settled_at_worst(intent) for intent in open_.intents()]

    assert left(forms) == left([False] * 16)


@contextmanager
def database(path: Path) -> Iterator[Engine]:
    engine = connect(f"sqlite:///{path}")
    prepare(engine)
    yield engine
    engine.dispose()


def test_blocks_of_either_form_verify_export_and_list_alike(tmp_path: Path) -> None:
    """What the last release wrote, what this one writes, and both in one block."""

    def shown(name: str, forms: Sequence[bool]) -> object:
        with database(tmp_path / name) as engine:
            for first in range(0, 60, 20):
                some = [
                    one.end(shortly=form)
                    for one, form in zip(EXAMPLES[first : first + 20], forms[first:], strict=False)
                ]
                deliver(engine, "ses_a", read(some, first))
            verdict = ledger.verify(engine)
            assert verdict.broken == ()
            with reading(engine) as tx:
                rows = list(csv.DictReader(io.StringIO("".join(ledger_export.as_csv(tx)))))
                focus = "".join(ledger_export.as_focus(tx))
                listed = request_store.listed(tx, 1000)
                of_key = request_store.listed(tx, 1000, only=request_store.RequestFilter(key_id="key_2"))
                charges = ledger_store.charges_of(tx, "ses_a")
                sums = [spend(tx, by, EVER) for by in ("key", "customer", "tag", "model", "day")]
            for row in rows:
                del row["hash"]
            return verdict.entries, verdict.cost_nanousd, rows, focus, listed, of_key, charges, sums

    old = shown("old.db", [False] * 60)
    assert shown("new.db", [True] * 60) == old
    assert shown("mixed.db", [number % 3 == 0 for number in range(60)]) == old


def _examples() -> list[Call]:
    """Sixty calls, the same every time."""
    found = []
    for number in range(60):
        party = PARTIES[number % 4]
        source: Source | None = None if number % 7 == 0 else "provider"
        cost, usage, id_ = number * 1000, of_tokens(number, 2 * number), f"req_{number:024x}"
        customer, tags = ("ada" if number % 3 == 0 else None), (("a", "b") if number % 5 == 0 else None)
        at, raw = BEGAN + number * 3600, msgspec.Raw(encode(party))
        short = Ended(id_, at, raw, 200, source, cost, usage, 1, customer=customer, tags=tags)
        began = Began(id_, at, raw, cost, number, 2 * number, customer, tags)
        found.append(Call(short, short.settled(party), began, began.intent()))
    return found


EXAMPLES = _examples()
