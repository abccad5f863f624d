"""Verify finds every way to tamper with a block; export is exact; what was pruned leaves the rest verifiable."""

import csv
import io
import json
import sys
from collections.abc import Callable, Sequence
from decimal import Decimal

import pytest
from msgspec.msgpack import decode, encode
from msgspec.structs import asdict, replace
from sqlalchemy import Connection, Engine, insert, select, text, update

from admin.cli import main
from gateway import ledger, ledger_export, ledger_store
from gateway.database import appending, reading
from gateway.journal_records import Settled
from gateway.ledger import Broken
from gateway.ledger_blocks import Block, Part, chained, genesis
from gateway.ledger_entries import COLUMNS
from gateway.ledger_export import FOCUS_COLUMNS, usd
from gateway.shipping import deliver
from gateway.spend import spend
from gateway.spend_sums import compact, day_of, month_start, next_month
from gateway.tables import ledger_blocks
from tests.fixtures.ledger import BEGAN, DAY_S, numbered, settled


@pytest.fixture
def shipped(engine: Engine) -> Engine:
    """Three sessions of three blocks with ten entries each."""
    for seed, session in enumerate(("ses_a", "ses_b", "ses_c")):
        for first in (0, 10, 20):
            deliver(engine, session, numbered(*(settled(first + n, seed=seed) for n in range(10)), first=first))
    return engine


def tamper(engine: Engine, statement: str) -> tuple[Broken, ...]:
    """What a check says after a statement of somebody who may write to the database."""
    with appending(engine) as tx:
        assert tx.execute(text(statement)).rowcount > 0
    return ledger.verify(engine).broken


def rewrite(engine: Engine, session: str, first_seq: int, change: Callable[[bytes], bytes]) -> tuple[Broken, ...]:
    """The same of somebody who edits the records of a block."""
    mine = (ledger_blocks.c.session == session) & (ledger_blocks.c.first_seq == first_seq)
    with appending(engine) as tx:
        records = bytes(tx.execute(select(ledger_blocks.c.records).where(mine)).scalar_one())
        assert change(records) != records
        tx.execute(update(ledger_blocks).where(mine).values(records=change(records)))
    return ledger.verify(engine).broken


def test_an_untouched_ledger_is_whole(shipped: Engine) -> None:
    """And says how much is in it."""
    verdict = ledger.verify(shipped)
    assert (verdict.sessions, verdict.entries, verdict.broken) == (3, 90, ())
    assert verdict.cost_nanousd == sum(settled(n, seed=s).cost_nanousd or 0 for s in range(3) for n in range(30))


@pytest.mark.parametrize("column", ["first_id", "last_id", "first_at", "last_at", "cost_nanousd", "hash"])
def test_an_edited_column_is_found(shipped: Engine, column: str) -> None:
    """Every column counts, to the last digit."""
    other = f"(SELECT {column} FROM ledger_blocks WHERE session = 'ses_a' AND first_seq = 1)"
    value = {"first_at": "first_at + 0.001", "last_at": "last_at + 0.001", "cost_nanousd": "cost_nanousd + 1"}
    edited = (
        f"UPDATE ledger_blocks SET {column} = {value.get(column, other)} WHERE session = 'ses_b' AND first_seq = 11"
    )
    assert tamper(shipped, edited) == (Broken("changed", "ses_b", 11, 20),)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda records: records[:-1], id="cut"),
        pytest.param(lambda records: records[:0], id="emptied"),
        pytest.param(lambda records: records + b"\x00", id="longer"),
        pytest.param(lambda records: records.replace(b"req_", b"reg_", 1), id="a-byte"),
        pytest.param(lambda records: records.replace(b"key_1", b"key_2"), id="an-owner"),
        pytest.param(lambda records: encode(decode(records)[::-1]), id="another-order"),
        pytest.param(lambda records: encode(decode(records)[:-1]), id="an-entry-less"),
        pytest.param(lambda records: encode([*decode(records)[:-1], settled(5)]), id="an-entry-from-elsewhere"),
    ],
)
def test_edited_records_are_found(shipped: Engine, change: Callable[[bytes], bytes]) -> None:
    """Whatever is done to the entries of a block: that block is named."""
    assert rewrite(shipped, "ses_b", 11, change) == (Broken("changed", "ses_b", 11, 20),)


def test_every_byte_of_the_records_counts(shipped: Engine) -> None:
    """A bit in any place of a small block."""
    deliver(shipped, "ses_d", numbered(settled(1)))
    with reading(shipped) as tx:
        ((block, digest),) = ledger_store.blocks(tx, "ses_d")
        head = ledger_store.head(tx, "ses_d")
    assert head is not None
    start = genesis("ses_d", "ses_c")
    assert chained(start, block) == digest == head.last_hash
    for place in range(len(block.records)):
        records = bytearray(block.records)
        records[place] ^= 1
        assert chained(start, replace(block, records=bytes(records))) != digest


def swapped(column: str) -> str:
    """Two blocks of a session, one with what belongs to the other."""
    other = f"SELECT other.{column} FROM ledger_blocks AS other WHERE other.session = 'ses_a' AND other.first_seq = 32 - mine.first_seq"
    return f"UPDATE ledger_blocks AS mine SET {column} = ({other}) WHERE session = 'ses_a' AND first_seq IN (11, 21)"


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("DELETE FROM ledger_blocks WHERE session = 'ses_a' AND first_seq = 1", Broken("missing", "ses_a", 1)),
        ("DELETE FROM ledger_blocks WHERE session = 'ses_a' AND first_seq = 11", Broken("missing", "ses_a", 11)),
        ("DELETE FROM ledger_blocks WHERE session = 'ses_a' AND first_seq = 21", Broken("missing", "ses_a", 21)),
        ("DELETE FROM ledger_blocks WHERE session = 'ses_c'", Broken("missing", "ses_c", 1)),
        (swapped("records"), Broken("changed", "ses_a", 11, 20)),
        (swapped("hash"), Broken("changed", "ses_a", 11, 20)),
        ("UPDATE ledger_blocks SET last_seq = 31 WHERE first_seq = 21", Broken("inserted", "ses_a", 21, 31)),
        ("UPDATE ledger_blocks SET last_seq = 19 WHERE first_seq = 11", Broken("changed", "ses_a", 11, 19)),
        ("UPDATE ledger_blocks SET first_seq = 0 WHERE first_seq = 1", Broken("inserted", "ses_a", 0, 10)),
        ("UPDATE ledger_blocks SET first_seq = 12 WHERE first_seq = 11", Broken("missing", "ses_a", 11)),
        (
            "UPDATE ledger_blocks SET session = 'ses_z' WHERE session = 'ses_a' AND first_seq = 21",
            Broken("missing", "ses_a", 21),
        ),
        (
            "UPDATE ledger_sessions SET entries = 29 WHERE session = 'ses_a'",
            Broken("inserted", "ses_a", 21, 30),
        ),
        ("UPDATE ledger_sessions SET entries = 31 WHERE session = 'ses_a'", Broken("missing", "ses_a", 31)),
        ("UPDATE ledger_sessions SET cost_nanousd = 1 WHERE session = 'ses_a'", Broken("head", "ses_a")),
        (
            "UPDATE ledger_sessions SET last_hash = other.last_hash FROM ledger_sessions AS other WHERE other.session = 'ses_b'",
            Broken("head", "ses_a"),
        ),
        ("UPDATE ledger_sessions SET pruned_entries = 3 WHERE session = 'ses_a'", Broken("head", "ses_a")),
        ("UPDATE ledger_sessions SET after = NULL WHERE session = 'ses_b'", Broken("changed", "ses_b", 1, 10)),
        ("DELETE FROM ledger_sessions WHERE session = 'ses_c'", Broken("session_unknown", "ses_c")),
    ],
)
def test_what_is_not_as_it_was_written_is_found(shipped: Engine, statement: str, expected: Broken) -> None:
    """Deleted, moved, swapped, put in another session, heads bent to match: the first place is named."""
    assert tamper(shipped, statement)[0] == expected


def test_a_session_that_vanished_as_a_whole_is_missed(shipped: Engine) -> None:
    """The one that was registered after it knows its name."""
    tamper(shipped, "DELETE FROM ledger_blocks WHERE session = 'ses_b'")
    assert tamper(shipped, "DELETE FROM ledger_sessions WHERE session = 'ses_b'") == (
        Broken("session_missing", "ses_b"),
    )


def test_a_row_that_was_made_up_is_found(shipped: Engine) -> None:
    """Wherever it is put: behind the last, or under a session that nobody knows."""

    def copied(tx: Connection, session: str, first_seq: int) -> None:
        row = (
            tx.execute(text("SELECT * FROM ledger_blocks WHERE session = 'ses_a' AND first_seq = 11")).mappings().one()
        )
        values = {**row, "session": session, "first_seq": first_seq, "last_seq": first_seq + 9}
        tx.execute(insert(ledger_blocks).values(values))

    with appending(shipped) as tx:
        copied(tx, "ses_a", 31)
        copied(tx, "ses_b", 12)
        copied(tx, "ses_unheard_of", 1)
    assert ledger.verify(shipped).broken == (
        Broken("inserted", "ses_a", 31, 40),
        Broken("inserted", "ses_b", 12, 21),
        Broken("session_unknown", "ses_unheard_of"),
    )


def test_a_block_that_does_not_say_what_its_records_do_is_found(engine: Engine) -> None:
    """Well chained, but by somebody who does not add up: its sum, its count, or a call in it that owes nothing."""
    good = (settled(1), settled(2))
    costly = replace(ledger_blocks_of(good), cost_nanousd=1)
    short = replace(ledger_blocks_of(good), last_seq=1)
    free = ledger_blocks_of((settled(1), replace(settled(2), source=None)))
    for number, made in enumerate((costly, short, free)):
        session = f"ses_{number}"
        deliver(engine, session, numbered())
        with appending(engine) as tx:
            head = ledger_store.claimed(tx, session)
            mine = replace(made, session=session)
            digest = chained(head.last_hash, mine)
            tx.execute(insert(ledger_blocks).values({**asdict(mine), "hash": digest}))
            cost = mine.cost_nanousd
            ledger_store.put_head(tx, replace(head, entries=mine.last_seq, last_hash=digest, cost_nanousd=cost))
    assert [broken.fault for broken in ledger.verify(engine).broken] == ["changed"] * 3


def ledger_blocks_of(calls: Sequence[Settled]) -> Block:
    part = Part()
    part.take(calls, [encode(call) for call in calls])
    return part.block("ses_a", 0, sum(call.cost_nanousd or 0 for call in calls))


def test_a_call_that_was_settled_twice_is_found(engine: Engine) -> None:
    """Two entries for one call in a session, both well chained, are still one too many."""
    deliver(engine, "ses_a", numbered(settled(1), settled(2), settled(1)))
    deliver(engine, "ses_b", numbered(settled(1), settled(2)))
    deliver(engine, "ses_b", numbered(settled(3), settled(2), first=2))
    assert ledger.verify(engine).broken == (Broken("duplicate", "ses_a", 3), Broken("duplicate", "ses_b", 4))


def test_a_new_history_has_another_seal(new_history: Callable[[], str]) -> None:
    """Who rewrites everything, hashes and all, gets a ledger that is whole, but not the seal that was kept elsewhere."""
    first, second = new_history(), new_history()
    assert first != second


@pytest.fixture
def new_history(engine: Engine) -> Callable[[], str]:
    def write() -> str:
        with appending(engine) as tx:
            kept = tx.execute(text("SELECT count(*) FROM ledger_blocks")).scalar_one()
            for table in ("ledger_blocks", "ledger_sessions"):
                tx.execute(text(f"DELETE FROM {table}"))
        deliver(engine, "ses_a", numbered(*(settled(n, seed=kept) for n in range(10))))
        verdict = ledger.verify(engine)
        assert verdict.broken == ()
        return verdict.seal

    return write


def test_pruned_months_leave_the_rest_verifiable_and_spend_as_it_was(engine: Engine) -> None:
    """Half a year of entries, the older ones forgotten: what is left is whole, tampering with it is found, sums stay.

    The block that the month begins in waits.
    """
    calls = sorted((settled(n, days=180) for n in range(400)), key=lambda call: call.at)
    for first in range(0, 400, 8):
        deliver(engine, "ses_a", numbered(*calls[first : first + 8], first=first))
    cut = next_month(next_month(day_of(BEGAN)))
    due = [call for call in calls if call.at < cut * DAY_S]
    assert len(due) % 8, "the cut goes through a block"
    old = due[: len(due) // 8 * 8]
    with reading(engine) as tx:
        before = spend(tx, "month"), spend(tx, "key")
    assert ledger.prune(engine, cut) == len(old)
    assert ledger.prune(engine, cut) == 0
    verdict = ledger.verify(engine)
    assert (verdict.entries, verdict.pruned_entries, verdict.broken) == (400, len(old), ())
    assert verdict.cost_nanousd == sum(call.cost_nanousd or 0 for call in calls)
    with reading(engine) as tx:
        assert (spend(tx, "month"), spend(tx, "key")) == before
        left = [entry for entry, _ in ledger_export.selected(tx, None, None)]
    assert [entry.id for entry in left] == [call.id for call in calls[len(old) :]]
    deliver(engine, "ses_a", numbered(settled(1000), first=400))
    assert ledger.verify(engine).broken == ()
    assert tamper(engine, "DELETE FROM ledger_blocks WHERE first_seq = (SELECT min(first_seq) FROM ledger_blocks)") == (
        Broken("missing", "ses_a", len(old) + 1),
    )


def test_a_session_that_was_pruned_as_a_whole_stays_known(shipped: Engine) -> None:
    """Its head, with its last hash and its sum, is what the chain of sessions needs."""
    sealed = ledger.verify(shipped)
    assert ledger.prune(shipped, day_of(BEGAN) + 40) == 90
    verdict = ledger.verify(shipped)
    assert (verdict.seal, verdict.cost_nanousd, verdict.broken) == (sealed.seal, sealed.cost_nanousd, ())
    assert verdict.pruned_entries == 90
    other = "SELECT pruned_hash FROM ledger_sessions WHERE session = 'ses_b'"
    bent = f"UPDATE ledger_sessions SET pruned_hash = ({other}) WHERE session = 'ses_a'"
    assert tamper(shipped, bent) == (Broken("head", "ses_a"),)


@pytest.mark.parametrize("table", ["ledger_blocks", "ledger_sessions"])
def test_what_is_not_even_a_value_is_found(shipped: Engine, table: str) -> None:
    """SQLite stores anything in any column; a check says so and does not break off."""
    if shipped.dialect.name != "sqlite":
        pytest.skip("PostgreSQL does not take it")
    column = "hash" if table == "ledger_blocks" else "last_hash"
    broken = tamper(shipped, f"UPDATE {table} SET {column} = CAST(x'ff00fe' AS TEXT) WHERE session = 'ses_b'")
    assert broken == (Broken("unreadable", "ses_b"),)


def test_csv_is_exact_and_complete(shipped: Engine) -> None:
    """Each entry once, with every column; amounts are decimals that add up to the nano-dollar."""
    with reading(shipped) as tx:
        rows = list(csv.DictReader(io.StringIO("".join(ledger_export.as_csv(tx)))))
    assert len(rows) == 90
    assert sum(Decimal(row["cost_usd"]) for row in rows) * 10**9 == ledger.verify(shipped).cost_nanousd
    assert all(Decimal(row["cost_usd"]) * 10**9 == int(row["cost_nanousd"]) for row in rows)
    assert set(rows[0]) == {*COLUMNS, "cost_usd", "hash"}


def test_export_takes_a_range_of_time(engine: Engine) -> None:
    """`since` counts, `until` does not, in whatever session an entry is."""
    calls = [settled(n, days=40) for n in range(200)]
    deliver(engine, "ses_a", numbered(*calls[:100]))
    deliver(engine, "ses_b", numbered(*calls[100:]))
    since, until = calls[7].at, calls[11].at
    since, until = min(since, until), max(since, until)
    with reading(engine) as tx:
        found = {entry.id for entry, _ in ledger_export.selected(tx, since, until)}
    assert found == {call.id for call in calls if since <= call.at < until}


def test_focus_has_its_columns_and_its_formats(shipped: Engine) -> None:
    """Column names, RFC 3339 times, an hour per charge, tags as a JSON object (FOCUS 1.2)."""
    with reading(shipped) as tx:
        rows = list(csv.DictReader(io.StringIO("".join(ledger_export.as_focus(tx)))))
    assert tuple(rows[0]) == FOCUS_COLUMNS
    assert sum(Decimal(row["BilledCost"]) for row in rows) * 10**9 == ledger.verify(shipped).cost_nanousd
    for row in rows:
        assert (row["BillingCurrency"], row["ChargeCategory"]) == ("USD", "Usage")
        assert row["BillingPeriodStart"] == "2026-11-01T00:00:00Z"
        assert row["BillingPeriodEnd"] == "2026-12-01T00:00:00Z"
        assert row["ChargePeriodStart"].endswith(":00:00Z")
        assert row["Tags"] == "" or isinstance(json.loads(row["Tags"]), dict)


def test_a_spreadsheet_does_not_run_what_a_client_called_itself(engine: Engine) -> None:
    """CSV injection: a text that begins like a formula is shown as a text."""
    deliver(engine, "ses_a", numbered(replace(settled(1), customer="=HYPERLINK(1)")))
    with reading(engine) as tx:
        (row,) = csv.DictReader(io.StringIO("".join(ledger_export.as_csv(tx))))
    assert row["customer"] == "'=HYPERLINK(1)"


@pytest.mark.parametrize(
    ("nanousd", "shown"),
    [(0, "0"), (1, "0.000000001"), (1_500_000_000, "1.5"), (10**18, "1000000000"), (-20, "-0.00000002")],
)
def test_an_amount_is_an_exact_decimal(nanousd: int, shown: str) -> None:
    """No float, no exponent, no digit that says nothing."""
    assert usd(nanousd) == shown


@pytest.mark.parametrize(("day", "first", "following"), [(0, 0, 31), (31, 31, 59), (20_775, 20_758, 20_788)])
def test_months_begin_on_their_first_day(day: int, first: int, following: int) -> None:
    """In days since 1970: 20,775 is 18 November 2026."""
    assert (month_start(day), next_month(day)) == (first, following)


def test_the_commands_verify_export_and_prune(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str], database_url: str
) -> None:
    """As an auditor calls them: exit status 0 for whole and 1 for broken, a table in a file, months forgotten."""
    from gateway.database import connect  # noqa: PLC0415 — beside the command, as another process would

    folder = tmp_path_factory.mktemp("cli")
    config = folder / "penstock.yaml"
    config.write_text(f"database_url: {json.dumps(database_url)}\n")
    where = ["--config", str(config), "--data-dir", str(folder / "data")]
    engine = connect(database_url)
    deliver(engine, "ses_a", numbered(*(settled(n) for n in range(5))))
    assert main(["ledger", "verify", *where]) == 0
    assert "5 entries of 1 sessions" in capsys.readouterr().out
    assert main(["ledger", "export", *where, "--format", "focus", "--output", str(folder / "bill.csv")]) == 0
    assert len((folder / "bill.csv").read_text().splitlines()) == 6
    assert main(["ledger", "export", *where, "--since", "2027-01-01"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert main(["ledger", "export", *where, "--since", "yesterday"]) == 1
    assert "is not a date" in capsys.readouterr().err
    tamper(engine, "UPDATE ledger_blocks SET cost_nanousd = 0 WHERE first_seq = 1")
    assert main(["ledger", "verify", *where]) == 1
    assert "ses_a, entries 1 to 5: not what was written" in capsys.readouterr().out
    assert main(["ledger", "verify", *where, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["broken"][0]["seq"] == 1
    assert main(["ledger", "prune", *where, "--before", "2027-01"]) == 0
    assert "5 entries" in capsys.readouterr().out
    engine.dispose()
    sys.stdout.flush()


def test_compaction_does_not_touch_the_chain(shipped: Engine) -> None:
    """Sums are another matter than entries."""
    sealed = ledger.verify(shipped).seal
    with appending(shipped) as tx:
        compact(tx)
    assert ledger.verify(shipped).seal == sealed
