"""What is worked out once for many calls says what working it out for each would: whatever is edited, ends or moves meanwhile."""

import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import allowance, errors
from gateway.journal import Journal
from gateway.journal_files import Reader
from gateway.journal_records import Began, Ended, Intent, Party, Settled, settled_at_worst
from gateway.keys import Key
from gateway.leases.memory import MemoryLeases
from gateway.ledger_groups import tally
from gateway.metering import Meter
from gateway.need import Need, Offer
from gateway.price_map import PriceMap
from gateway.record import Record
from gateway.scopes import Budget, Limits, Raise, Rules, Scope, binding, compile_rules, static_binding
from gateway.shares import Hold, Share, Shares, amounts_of, charges
from gateway.tabs import MOST, Tab, Tabs
from gateway.till import Till
from gateway.usage import of_tokens

USD = 1_000_000_000
START = 1_795_000_015.0  # in the middle of a minute
MODELS = (("chat", "chat", "openai", "a"), ("any/1", "any/*", "vllm", "b"), ("any/2", "any/*", "vllm", "b"))

BUDGETS = [
    Budget("b1", Scope("key", "*"), 50 * USD, "minute"),
    Budget("b2", Scope("team", "t1"), 60 * USD, "hour", rolling=True),
    Budget("b3", Scope("customer", "*"), 70 * USD, "minute", rolling=True),
    Budget("b4", Scope("tag", "x"), 80 * USD, "total"),
    Budget("b5", Scope("model", "any/*"), 90 * USD, "day", raised=Raise(USD, START + 100)),
    Budget("b6", Scope("team", "*"), 10 * USD, "total", generation=1),
]
LIMITS = [
    Limits("l1", Scope("key", "k1"), rpm=1000, tpm=900, parallel=50),
    Limits("l2", Scope("provider", "vllm"), input_tpm=70_000, output_tpm=500, rpd=10_000),
    Limits("l3", Scope("customer", "ann", within="t2"), rpm=500),
]


def record(number: int, key: Key, model: int, user: str | None, tags: Sequence[str] | None, at: float) -> Record:
    made = Record(f"req_{number:024x}", "chat", at, 0.0)
    made.key = key
    made.model, made.metric_model, made.provider, made.deployment = MODELS[model]
    made.user, made.tags = user, None if tags is None else list(tags)
    return made


class House:
    """One process's books, with a clock that goes where it is told."""

    def __init__(self, folder: Path) -> None:
        self.unix = START
        self.shares = Shares()
        self.steady = 0.0
        store = MemoryLeases(lambda: self.steady, lambda: self.unix)
        self.till = Till(
            store, "ses_a", self.shares, unix=lambda: self.unix, now=lambda: self.steady, spent=lambda *_: None
        )
        self.journal = Journal.create(folder, "ses_a", at=START)
        self.meter = Meter(self.shares, self.till, self.journal, PriceMap(), lambda: self.unix)
        self.rules = compile_rules(BUDGETS, LIMITS)
        self.keys = {"k1": Key("k1", "k1", team_id="t1"), "k2": Key("k2", "k2", team_id="t2", org_id="o1")}
        self.open: list[tuple[Record, Hold, Party]] = []
        self.begun: list[Intent] = []
        self.ended: list[Settled] = []
        self.calls = 0
        self.set_back = False
        self.seen: dict[str, Share] = {}

    async def begin(self, key: str, model: int, user: str | None, tags: Sequence[str] | None, need: Need) -> None:
        """Opens a call and compares what it holds, what is journalled and what its client is told with the long way."""
        self.calls += 1
        made = record(self.calls, self.keys[key], model, user, tags, self.unix)
        with suppress(errors.GatewayError):
            await self.meter.open(self.rules, made, Offer(None, need))
        if made.ticket is None:
            return
        shares = self.expected(made)
        hold = tuple((share, amount) for share in shares if (amount := self.amount(share, need)))
        if not self.set_back:
            assert made.ticket.hold == hold
            assert made.ticket.tab.shares == shares
        assert all(self.shares.every[share.account.id] is share for share in made.ticket.tab.shares)
        self.seen |= {share.account.id: share for share in made.ticket.tab.shares}
        party = self.party(made, made.ticket.tab.shares)
        assert msgspec.msgpack.decode(made.ticket.tab.party, type=Party) == party
        self.begun.append(self.intent(made, party, made.ticket.hold, need))
        self.open.append((made, made.ticket.hold, party))
        told = allowance.headers(made.ticket.tab.notices)
        assert told == allowance.headers(allowance.notices(made.ticket.tab.shares))
        assert b": -" not in told

    def end(self, which: int, *, sent: bool, cost: int, prompt: int, output: int, model: int | None = None) -> None:
        """Settles one of the calls that are open. `model`: what its record names by then, after a fallback that did not come to a hold."""
        if not self.open:
            return
        made, hold, party = self.open.pop(which % len(self.open))
        made.sent = sent
        if sent:
            made.usage, made.usage_source, made.cost_nanousd = of_tokens(prompt, output), "provider", cost
        if model is not None:
            made.model, made.metric_model, made.provider, made.deployment = MODELS[model]
        self.meter.close(made, b"{}")
        due = charges(hold, Need(cost, prompt, output)) if sent else ()
        self.ended.append(
            Settled(
                id=made.id,
                at=made.at,
                endpoint="chat",
                status=0,
                source="provider" if sent else None,
                cost_nanousd=made.cost_nanousd,
                usage=made.usage,
                charges=due,
                key_id=party.key_id,
                team_id=party.team_id,
                org_id=party.org_id,
                customer=made.user,
                model=made.model,
                provider=made.provider,
                deployment=made.deployment,
                tags=None if made.tags is None else tuple(made.tags),
                overhead_ms=0.0,
            )
        )

    def expected(self, made: Record) -> tuple[Share, ...]:
        assert made.key is not None
        static = static_binding(self.rules, made.key, made.metric_model, made.provider or "")
        return tuple(self.shares.of(bound, self.unix) for bound in binding(static, made.user, made.tags))

    def amount(self, share: Share, need: Need) -> int:
        amount = amounts_of(need)[share.counts]
        return min(amount, share.account.limit) if share.account.kind == "bucket" else amount

    def party(self, made: Record, shares: Sequence[Share]) -> Party:
        key = made.key
        assert key is not None
        ids = (key.id, key.team_id, key.org_id, key.user_id)
        accounts = tuple((share.account.id, share.counts) for share in shares)
        return Party("chat", *ids, made.model, made.provider, made.deployment, made.stream, accounts)

    def intent(self, made: Record, party: Party, hold: Hold, need: Need) -> Intent:
        return Intent(
            made.id,
            made.at,
            "chat",
            tuple((share.account.id, amount) for share, amount in hold),
            need.nanousd,
            party.key_id,
            party.team_id,
            party.org_id,
            None,
            made.user,
            made.model,
            made.provider,
            made.deployment,
            None if made.tags is None else tuple(made.tags),
            stream=False,
            worst=of_tokens(need.prompt_tokens, need.output_tokens),
        )

    def edit(self, limit: int, *, blocked: bool, generation: int, raised_for: float | None) -> None:
        raised = None if raised_for is None else Raise(USD, self.unix + raised_for)
        first = msgspec.structs.replace(
            BUDGETS[0], limit_nanousd=limit * USD, blocked=blocked, generation=generation, raised=raised
        )
        self.rules = compile_rules([first, *BUDGETS[1:]], LIMITS)

    def check(self) -> None:
        """The journal says what was opened, what was settled, and of each account what its share was charged."""
        self.journal.close(self.unix)
        reader = Reader(self.journal.directory)
        run = reader.read(100_000)
        reader.close()
        self.journal.release(remove=True)
        read = [msgspec.msgpack.decode(payload, type=_ANY) for payload in run.payloads[1:-1]]
        assert [one.intent() for one in read if isinstance(one, Began)] == self.begun
        found = [one for one in read if isinstance(one, Settled | Ended)]
        flat = [
            one if isinstance(one, Settled) else one.settled(msgspec.msgpack.decode(one.party, type=Party))
            for one in found
        ]
        assert flat == self.ended
        assert [settled_at_worst(one).charges for one in self.begun] == [
            tuple(held for held in one.holds if not held[0].startswith("p:")) for one in self.begun
        ]
        charged = {id_: amount for id_, amount in tally(run).charges.items() if amount}
        assert charged == {id_: share.settled for id_, share in self.seen.items() if share.settled}
        held = sum(share.held for share in self.shares.every.values())
        assert held == sum(amount for _, hold, _ in self.open for _, amount in hold)


_ANY = Began | Ended | Settled

KEYS = st.sampled_from(["k1", "k2"])
MODEL = st.integers(0, 2)
USERS = st.sampled_from([None, "ann", "bob"])
TAGS = st.sampled_from([None, (), ("x",), ("y", "x", "x")])
NEEDS = st.builds(Need, st.sampled_from([0, 1, USD // 100, USD]), st.integers(0, 2000), st.sampled_from([0, 10, 1500]))
STEPS = st.one_of(
    st.tuples(st.just("begin"), KEYS, MODEL, USERS, TAGS, NEEDS),
    st.tuples(st.just("again"), st.integers(0, 9)),
    st.tuples(st.just("again"), st.integers(0, 9)),
    st.tuples(
        st.just("end"),
        st.integers(0, 9),
        st.booleans(),
        st.sampled_from([0, 5, USD // 50, 3 * USD]),
        st.one_of(st.none(), st.none(), MODEL),
    ),
    st.tuples(st.just("clock"), st.sampled_from([0.5, 9.0, 44.0, 61.0, 3600.0, -30.0])),
    st.tuples(
        st.just("edit"), st.integers(1, 60), st.booleans(), st.integers(0, 2), st.sampled_from([None, 5.0, 60.0])
    ),
    st.tuples(st.just("move"), KEYS, st.sampled_from([None, "t1", "t2"])),
    st.tuples(st.just("sync")),
)


@settings(max_examples=150)
@given(st.lists(STEPS, min_size=30, max_size=60))
def test_a_history_of_calls_is_booked_as_if_each_were_looked_up_anew(steps: list[tuple[object, ...]]) -> None:
    """Holds, journal, charges and headers, while rules, keys and windows change between and under the calls."""

    async def live(folder: Path) -> None:
        house = House(folder)
        begun: list[tuple[str, int, str | None, Sequence[str] | None, Need]] = []
        for step in steps:
            match step:
                case ("begin", str(key), int(model), user, tags, Need() as need):
                    begun.append((key, model, user, tags, need))  # type: ignore[arg-type]  # as drawn
                    await house.begin(*begun[-1])
                case ("again", int(which)):
                    if begun:
                        await house.begin(*begun[which % len(begun)])
                case ("end", int(which), bool(sent), int(cost), model):
                    house.end(which, sent=sent, cost=cost, prompt=cost % 7, output=3, model=model)  # type: ignore[arg-type]
                case ("clock", float(by)):
                    house.unix += by
                    house.steady += max(by, 0.0)
                    house.set_back = house.set_back or by < 0
                case ("edit", int(limit), bool(blocked), int(generation), raised):
                    house.edit(limit, blocked=blocked, generation=generation, raised_for=raised)  # type: ignore[arg-type]
                case ("move", str(key), team):
                    house.keys[key] = msgspec.structs.replace(house.keys[key], team_id=team)
                case _:
                    await house.till.sync()
        house.check()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(live(Path(folder)))


async def test_a_call_is_settled_on_the_window_that_held_it(tmp_path: Path) -> None:
    """Others of the same key have gone on to the next minute: what it cost belongs to the one before, also in the ledger."""
    house = House(tmp_path)
    need = Need(USD, 10, 10)
    await house.begin("k1", 0, None, None, need)
    house.unix += 61
    await house.begin("k1", 0, None, None, need)
    house.end(0, sent=True, cost=5, prompt=1, output=1)
    house.end(0, sent=True, cost=7, prompt=1, output=1)
    minutes = [{id_ for id_, _ in one.charges if id_.startswith("b:b1/k1:")} for one in house.ended]
    assert minutes[0] != minutes[1]
    house.check()


async def test_a_call_whose_window_ends_while_it_borrows_is_journalled_with_what_it_holds(tmp_path: Path) -> None:
    """It waits for the store, another one finds the new minute: a crash would charge the holds that its intent names."""
    house = House(tmp_path)
    house.rules = compile_rules(BUDGETS[:1], [])
    first, second = (record(n, house.keys["k1"], 0, None, None, house.unix) for n in (1, 2))
    offer = Offer(None, Need(USD, 0, 0))
    assert not house.meter.open_at_once(house.rules, first, offer)
    waiting = asyncio.ensure_future(house.meter.open_borrowing(house.rules, first, offer))
    await asyncio.sleep(0)
    house.unix += 61
    await house.meter.open(house.rules, second, offer)
    await waiting
    house.journal.close(house.unix)
    run = (reader := Reader(house.journal.directory)).read(100)
    reader.close()
    found = [msgspec.msgpack.decode(one, type=Began).intent() for one in run.payloads[1:-1]]
    house.journal.release(remove=True)
    for made in (first, second):
        assert made.ticket is not None
        (intent,) = (one for one in found if one.id == made.id)
        assert intent.holds == tuple((share.account.id, amount) for share, amount in made.ticket.hold)


async def test_a_debt_is_shown_as_nothing_left(tmp_path: Path) -> None:
    """A call that costs nothing goes through beside a budget that was overdrawn; no client can read minus one dollar and 999999999."""
    house = House(tmp_path)
    house.rules = compile_rules([Budget("b", Scope("key", "k1"), USD, "total")], [])
    await house.begin("k1", 0, None, None, Need(USD, 0, 0))
    house.end(0, sent=True, cost=USD + 1, prompt=1, output=1)
    await house.begin("k1", 0, None, None, Need(0, 1, 1))
    made, _, _ = house.open[0]
    assert made.ticket is not None
    assert allowance.headers(made.ticket.tab.notices) == b"x-penstock-budget-remaining-usd: 0.000000000\r\n"
    house.check()


@pytest.mark.parametrize("named", [False, True])
def test_more_places_than_are_kept_begin_again(named: bool) -> None:
    """Whoever invents customers or models costs no more memory than so many, and is booked as before."""
    rules = compile_rules([Budget("b", Scope("customer" if named else "model", "*"), USD, "total")], [])
    shares = Shares()
    tabs = Tabs(shares)
    key = Key("k1", "k1")

    def tab(number: int, in_force: Rules = rules) -> Tab:
        made = record(number, key, 0, f"c{number}" if named else None, None, START)
        made.model = made.metric_model = "chat" if named else f"m{number}"
        return tabs.of(in_force, key, made, START)

    first = tab(0)
    assert tab(0) is first
    for number in range(1, MOST + 2):
        assert tab(number).shares[0].account.id == f"b:b/{'c' if named else 'm'}{number}:0"
    again = tab(0)
    assert again is not first
    assert again.shares == first.shares
    assert len(tabs._statics) + len(tabs._plain) + len(tabs._named) < 2 * MOST
