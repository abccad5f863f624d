"""What the journal says of calls that are billed by the unit: their worst case after a crash, and what each account was charged."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from gateway.catalog import Deployment
from gateway.journal import Journal
from gateway.journal_batch import array as together
from gateway.journal_batch import settlements
from gateway.journal_files import Reader
from gateway.journal_records import Began, Ended, Settled, settled_at_worst
from gateway.keys import Key
from gateway.leases.memory import MemoryLeases
from gateway.metering import Meter
from gateway.price_map import PriceMap
from gateway.pricing import compile_price
from gateway.record import Record
from gateway.scopes import Budget, Limits, Scope, compile_rules, static_binding
from gateway.shares import Share, Shares
from gateway.tariffs import Schedule, Tariff
from gateway.till import Till
from gateway.units.ask import Ask
from gateway.usage import usage
from gateway.used import Usage

KEY = Key("k", "draws")
OF_KEY = Scope("key", "k")
RULES = compile_rules(
    [Budget("b", OF_KEY, 10**18, "total")],
    [Limits("l", OF_KEY, rpm=10**6, tpm=10**9, output_tpm=10**9, parallel=10**6)],
)
PRICE = compile_price(
    Schedule(
        Tariff(
            input=5_000_000, output=10_000_000, image=40_000_000_000, second=100_000_000, character=15_000_000,
            search_unit=2_000_000_000,
        )
    )
)  # fmt: skip
ASKS = (
    Ask(model="m", most=usage(images=3)),
    Ask(model="m", most=usage(120, 50, images=2)),
    Ask(model="m", most=usage(40, 320, audio_output=320, characters=40)),
    Ask(model="m", most=usage(64, 0, audio_input=64, seconds=2.0)),
    Ask(model="m", most=usage(9_000, search_units=2)),
)


@dataclass(frozen=True)
class Desk:
    """A meter over a journal of its own, with enough borrowed for every call."""

    meter: Meter
    journal: Journal
    shares: Sequence[Share]

    def opened(self, ask: Ask) -> Record:
        record = Record("req_1", "image_generations", time.time(), 0.0)
        record.key, record.model, record.metric_model = KEY, "m", "m"
        record.provider, record.deployment = "openai", "a"
        place = Deployment("a", "openai", "http://127.0.0.1:1/v1", "m", "sk", price=PRICE)
        assert self.meter.open_at_once(RULES, record, self.meter.offer(place, "", ask, b""))
        return record

    def last(self) -> bytes:
        reader = Reader(self.journal.directory)
        try:
            return reader.read(100).payloads[-1]
        finally:
            reader.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    shares = Shares()
    journal = Journal.create(tmp_path, "ses_1", at=time.time())
    till = Till(
        MemoryLeases(), "ses_1", shares, unix=time.time, now=time.monotonic, spent=lambda _share, _nanousd: None
    )
    of_key = [shares.of(bound, time.time()) for bound in static_binding(RULES, KEY, "m", "openai").bound]
    for share in of_key:
        share.free = 10**15
    yield Desk(Meter(shares, till, journal, PriceMap(), time.time), journal, of_key)
    journal.close(time.time())
    journal.release(remove=True)


@pytest.mark.parametrize("ask", ASKS)
def test_a_crash_records_all_that_was_held(desk: Desk, ask: Ask) -> None:
    """Every unit of it, and each account is charged what was set aside there; calls at the same time are only lent."""
    record = desk.opened(ask)
    assert record.ticket is not None
    end = settled_at_worst(msgspec.msgpack.decode(desk.last(), type=Began).intent())
    assert end.usage == ask.most
    assert end.cost_nanousd == record.ticket.offer.need.nanousd > 0
    held = {share.account.id: amount for share, amount in record.ticket.hold if not share.slots}
    assert dict(end.charges) == held
    assert held


@pytest.mark.parametrize("used", [None, usage(), usage(7, 4, images=1, seconds=1.5, characters=3, search_units=1)])
@pytest.mark.parametrize("ask", ASKS)
def test_the_journal_says_what_the_shares_were_charged(desk: Desk, ask: Ask, used: Usage | None) -> None:
    """Also accounts that held nothing, as there was no token to hold, and a call of which nobody says what it used."""
    record = desk.opened(ask)
    record.sent = True
    record.usage, record.usage_source = used, None if used is None else "provider"
    desk.meter.close(record, b"")
    end = said(desk.last())
    assert end.usage == (ask.most if used is None else used)
    assert end.cost_nanousd == record.cost_nanousd
    charged = dict(end.charges)
    assert {share.account.id: share.settled for share in desk.shares if not share.slots} == {
        share.account.id: charged.get(share.account.id, 0) for share in desk.shares if not share.slots
    }
    assert not any(share.held for share in desk.shares)


def said(payload: bytes) -> Settled:
    assert isinstance(msgspec.msgpack.decode(payload, type=Ended | Settled), Ended)
    (end,) = settlements(together([payload]))
    return end
