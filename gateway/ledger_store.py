"""The ledger's tables: heads, entries, charges. Rows go straight to the driver, as SQLAlchemy's own way costs ten times as much."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from gateway import bulk, request_store
from gateway.ledger_entries import COLUMNS, Entry
from gateway.ledger_groups import Group, Head, first_head
from gateway.spend_sums import add_partials, partials
from gateway.tables import account_charges, ledger, ledger_sessions

PAGE = 5_000


def claimed(tx: Connection, session: str) -> Head:
    """The session's head, for a writer: locked until the end of the transaction; registered if it is new."""
    found = _head(tx, session, locked=True)
    if found is not None:
        return found
    after = tx.execute(select(func.max(ledger_sessions.c.session))).scalar_one()
    made = first_head(session, after)
    made_here = {"sqlite": sqlite, "postgresql": postgresql}[tx.dialect.name]
    tx.execute(made_here.insert(ledger_sessions).values(msgspec.structs.asdict(made)).on_conflict_do_nothing())
    return _head(tx, session, locked=True) or made


def save(tx: Connection, group: Group) -> None:
    """All that a group brings, after `claimed` in the same transaction."""
    rows = ((*msgspec.structs.astuple(one), digest) for one, digest in zip(group.entries, group.hashes, strict=True))
    bulk.append(tx, "ledger", (*COLUMNS, "hash"), rows)
    request_store.add(tx, group.head.session, group.requests)
    add_partials(tx, partials(group.entries))
    _charge(tx, group.head.session, group.charges, max((one.at for one in group.entries), default=0.0))
    put_head(tx, group.head)


def put_head(tx: Connection, head: Head) -> None:
    values = msgspec.structs.asdict(head)
    tx.execute(update(ledger_sessions).where(ledger_sessions.c.session == head.session).values(values))


def head(tx: Connection, session: str) -> Head | None:
    return _head(tx, session, locked=False)


def sessions(tx: Connection) -> Iterator[str]:
    """Every session that has a head or entries, in order: also those that somebody made up."""
    last = ""
    while True:
        names = [
            tx.execute(select(func.min(table.c.session)).where(table.c.session > last)).scalar_one()
            for table in (ledger_sessions, ledger)
        ]
        known = [name for name in names if name is not None]
        if not known:
            return
        last = min(known)
        yield last


def entries(tx: Connection, session: str) -> Iterator[tuple[Entry, bytes]]:
    """A session's entries with their hashes, in order, a page in memory at a time."""
    columns = [ledger.c[name] for name in (*COLUMNS, "hash")]
    seq: int | None = None
    while True:
        query = select(*columns).where(ledger.c.session == session).order_by(ledger.c.seq).limit(PAGE)
        rows = tx.execute(query if seq is None else query.where(ledger.c.seq > seq)).all()
        for row in rows:
            yield _entry(row)
        if len(rows) < PAGE:
            return
        seq = rows[-1].seq


def forget_entries(tx: Connection, session: str, through: int) -> None:
    """Deletes the entries up to `through`, which the head must say."""
    tx.execute(delete(ledger).where(ledger.c.session == session, ledger.c.seq <= through))


def charges_of(tx: Connection, session: str) -> Mapping[str, int]:
    """Account → what the session's calls have cost it."""
    query = select(account_charges.c.account, account_charges.c.settled).where(account_charges.c.session == session)
    return {row.account: row.settled for row in tx.execute(query)}


def charges_on(tx: Connection, accounts: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
    """Account → session → what its calls have cost, over every session that was shipped: what a lease store needs that lost its memory."""
    table = account_charges
    query = select(table.c.account, table.c.session, table.c.settled).where(table.c.account.in_(accounts))
    found: dict[str, dict[str, int]] = {account: {} for account in accounts}
    for row in tx.execute(query):
        found[row.account][row.session] = row.settled
    return found


def forget_charges(tx: Connection, before: float) -> None:
    """Of accounts whose last charge is older, in Unix seconds. Those of total budgets, which never end, are kept."""
    old = account_charges.c.at < before
    tx.execute(delete(account_charges).where(old, account_charges.c.account.not_like("b:%:0")))


def _head(tx: Connection, session: str, *, locked: bool) -> Head | None:
    query = select(ledger_sessions).where(ledger_sessions.c.session == session)
    row = tx.execute(query.with_for_update() if locked else query).mappings().one_or_none()
    return None if row is None else Head(**{**row, "last_hash": bytes(row["last_hash"])})


def _charge(tx: Connection, session: str, charges: Mapping[str, int], at: float) -> None:
    if not charges:
        return
    added = "ON CONFLICT (account, session) DO UPDATE SET settled = account_charges.settled + excluded.settled, at = excluded.at"
    names = "INSERT INTO account_charges (account, session, settled, at)"
    if tx.dialect.name == "sqlite":
        rows = [(account, session, settled, at) for account, settled in charges.items()]
        tx.exec_driver_sql(f"{names} VALUES (?, ?, ?, ?) {added}", rows)
    else:
        given = msgspec.json.encode(list(charges.items())).decode()
        each = "SELECT pair->>0, %s, (pair->>1)::bigint, %s FROM json_array_elements(%s::json) AS pairs(pair)"
        tx.exec_driver_sql(f"{names} {each} {added}", (session, at, given))


def _entry(row: Row[Any]) -> tuple[Entry, bytes]:
    """As it is stored, whatever that is: what does not fit the types shows in the hash."""
    values: tuple[Any, ...] = tuple(row)
    return Entry(*values[:-1]), bytes(values[-1])
