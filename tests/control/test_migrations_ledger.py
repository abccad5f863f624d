"""A ledger of rows becomes one of blocks: the same entries, still whole, or still broken where it was."""

from collections.abc import Iterator, Sequence
from hashlib import sha256

import pytest
from msgspec.msgpack import encode
from msgspec.structs import astuple, replace
from sqlalchemy import Engine, text

from admin import migrate
from gateway import ledger, request_store
from gateway.database import appending, connect, reading
from gateway.ledger import Broken
from gateway.ledger_entries import COLUMNS, Entry, entry
from gateway.ledger_export import selected
from gateway.shipping import deliver
from gateway.used import Usage
from tests.fixtures.ledger import numbered, settled

SESSIONS = {"ses_a": None, "ses_b": "ses_a", "ses_empty": "ses_b"}


@pytest.fixture
def old(empty_database_url: str) -> Iterator[Engine]:
    """A database as version 0005 had left it: two sessions with entries, one of them pruned, and one that has none yet."""
    migrate.upgrade(empty_database_url)
    migrate.downgrade(empty_database_url, "0005")
    engine = connect(empty_database_url)
    with appending(engine) as tx:
        for session, after in SESSIONS.items():
            rows = [] if session == "ses_empty" else written(session)
            hashes = chain(session, after, rows)
            gone = 5 if session == "ses_b" else 0
            marks = ", ".join(f":{name}" for name in (*COLUMNS, "hash"))
            for row, digest in list(zip(rows, hashes[1:], strict=True))[gone:]:
                values = dict(zip((*COLUMNS, "hash"), (*astuple(row), digest), strict=True))
                tx.execute(text(f"INSERT INTO ledger ({', '.join(COLUMNS)}, hash) VALUES ({marks})"), values)
            tx.execute(
                text(
                    "INSERT INTO ledger_sessions (session, after, position, entries, last_hash, cost_nanousd, first_day, last_day,"
                    " pruned_entries, pruned_hash, pruned_cost_nanousd)"
                    " VALUES (:session, :after, 100, :entries, :hash, :cost, 0, 99999, :gone, :gone_hash, :gone_cost)"
                ),
                {
                    "session": session,
                    "after": after,
                    "entries": len(rows),
                    "hash": hashes[-1],
                    "cost": sum(row.cost_nanousd for row in rows),
                    "gone": gone,
                    "gone_hash": hashes[gone] if gone else None,
                    "gone_cost": sum(row.cost_nanousd for row in rows[:gone]),
                },
            )
    yield engine
    engine.dispose()


def written(session: str) -> Sequence[Entry]:
    calls = [settled(n, seed=len(session)) for n in range(40)]
    calls[7] = replace(calls[7], usage=Usage(input=5, output=1, images=2, seconds=1.5), tags=("a", "b"), customer="ada")
    return [entry(call, session, seq) for seq, call in enumerate(calls, 1)]


def chain(session: str, after: str | None, rows: Sequence[Entry]) -> list[bytes]:
    """The hashes of version 0005, from the genesis on."""
    hashes = [sha256(encode(("penstock ledger 1", session, after))).digest()]
    for row in rows:
        hashes.append(sha256(hashes[-1] + encode(astuple(row))).digest())
    return hashes


def test_every_entry_is_there_and_the_ledger_is_whole(old: Engine, empty_database_url: str) -> None:
    """In the same words, and it goes on from there."""
    migrate.upgrade(empty_database_url)
    expected = [*written("ses_a"), *written("ses_b")[5:]]
    with reading(old) as tx:
        assert [one for one, _ in selected(tx, None, None)] == expected
        assert request_store.listed(tx, 100).data == (), "their records are where they were"
    for session in SESSIONS:
        deliver(old, session, numbered(settled(1_000), first=100))
    verdict = ledger.verify(old)
    assert (verdict.entries, verdict.pruned_entries, verdict.broken) == (83, 5, ())


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("UPDATE ledger SET cost_nanousd = cost_nanousd + 1 WHERE session = 'ses_a' AND seq = 9", Broken("changed", "ses_a", 1, 40)),
        ("DELETE FROM ledger WHERE session = 'ses_b' AND seq = 9", Broken("missing", "ses_b", 9)),
        ("DELETE FROM ledger WHERE session = 'ses_b' AND seq = 40", Broken("missing", "ses_b", 40)),
        ("UPDATE ledger_sessions SET last_hash = pruned_hash WHERE session = 'ses_b'", Broken("head", "ses_b")),
        ("DELETE FROM ledger_sessions WHERE session = 'ses_a'", Broken("session_unknown", "ses_a")),
    ],
)  # fmt: skip
def test_what_was_broken_stays_broken(old: Engine, empty_database_url: str, statement: str, expected: Broken) -> None:
    """An upgrade is no way to make a ledger whole that was tampered with."""
    with appending(old) as tx:
        assert tx.execute(text(statement)).rowcount == 1
    migrate.upgrade(empty_database_url)
    assert ledger.verify(old).broken[0] == expected


def test_a_ledger_of_blocks_is_not_thrown_away_by_a_downgrade(old: Engine, empty_database_url: str) -> None:
    """An older release could not read it."""
    migrate.upgrade(empty_database_url)
    with pytest.raises(RuntimeError, match="ledger prune"):
        migrate.downgrade(empty_database_url, "0005")
    assert len(ledger.verify(old).broken) == 0
