"""The ledger's tables: heads, blocks, charges."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select, update

from gateway import request_store
from gateway.database import inserting
from gateway.ledger_blocks import Block
from gateway.ledger_groups import Group, Head, first_head
from gateway.spend_sums import add_partials
from gateway.tables import account_charges, ledger_blocks, ledger_sessions

PAGE = 8  # blocks of up to 4 MiB

# Made once: to build a statement takes longer than to run it, and every group of records runs all of these.
_MINE = ledger_sessions.c.session == bindparam("of")
_HEAD = select(ledger_sessions).where(_MINE)
_LOCKED_HEAD = _HEAD.with_for_update()
_PUT_HEAD = update(ledger_sessions).where(_MINE)
_ADD_BLOCK = insert(ledger_blocks)


def claimed(tx: Connection, session: str) -> Head:
    """The session's head, for a writer: locked until the end of the transaction; registered if it is new."""
    found = _head(tx, session, locked=True)
    if found is not None:
        return found
    after = tx.execute(select(func.max(ledger_sessions.c.session))).scalar_one()
    made = first_head(session, after)
    tx.execute(
        inserting(tx.dialect.name)(ledger_sessions).values(msgspec.structs.asdict(made)).on_conflict_do_nothing()
    )
    return _head(tx, session, locked=True) or made


def save(tx: Connection, group: Group) -> None:
    """All that a group brings, after `claimed` in the same transaction."""
    session, block, tally = group.head.session, group.block, group.tally
    if block is not None:
        tx.execute(_ADD_BLOCK, msgspec.structs.asdict(block) | {"hash": group.head.last_hash})
        request_store.add_signs(tx, session, tally.entries)
        add_partials(tx, tally.sums.rows())
        _charge(tx, session, tally.charges, block.last_at)
    if tally.refused.payloads:
        request_store.add(tx, session, tally.refused)
    put_head(tx, group.head)


def put_head(tx: Connection, head: Head) -> None:
    tx.execute(_PUT_HEAD, msgspec.structs.asdict(head) | {"of": head.session})


def head(tx: Connection, session: str) -> Head | None:
    return _head(tx, session, locked=False)


def sessions(tx: Connection) -> Iterator[str]:
    """Every session that has a head or blocks, in order: also those that somebody made up."""
    last = ""
    while True:
        names = [
            tx.execute(select(func.min(table.c.session)).where(table.c.session > last)).scalar_one()
            for table in (ledger_sessions, ledger_blocks)
        ]
        known = [name for name in names if name is not None]
        if not known:
            return
        last = min(known)
        yield last


def blocks(
    tx: Connection, session: str, since: float | None = None, until: float | None = None
) -> Iterator[tuple[Block, bytes]]:
    """A session's blocks with their hashes, in order, a page in memory at a time; those with entries of a range in Unix seconds."""
    columns = ledger_blocks.c
    query = select(ledger_blocks).where(columns.session == session).order_by(columns.first_seq).limit(PAGE)
    if since is not None:
        query = query.where(columns.last_at >= since)
    if until is not None:
        query = query.where(columns.first_at < until)
    seq: int | None = None
    while True:
        rows = tx.execute(query if seq is None else query.where(columns.first_seq > seq)).all()
        for row in rows:
            yield _block(row)
        if len(rows) < PAGE:
            return
        seq = rows[-1].first_seq


def forget_blocks(tx: Connection, gone: Sequence[Block]) -> None:
    """Deletes the oldest blocks of a session, which the head must say."""
    for block in gone:
        request_store.forget_signs(tx, block.session, block.last_id, block.records)
        mine = (ledger_blocks.c.session == block.session) & (ledger_blocks.c.first_seq == block.first_seq)
        tx.execute(delete(ledger_blocks).where(mine))


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
    row = tx.execute(_LOCKED_HEAD if locked else _HEAD, {"of": session}).one_or_none()
    return None if row is None else Head(**{**row._mapping, "last_hash": bytes(row.last_hash)})  # noqa: SLF001 — public, for all its name


def _charge(tx: Connection, session: str, amounts: Mapping[str, int], at: float) -> None:
    charges = {account: amount for account, amount in amounts.items() if account.startswith("b:")}
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


def _block(row: Row[Any]) -> tuple[Block, bytes]:
    """As it is stored, whatever that is: what does not fit the types shows in the hash."""
    values = row._asdict()
    digest = bytes(values.pop("hash"))
    return Block(**{**values, "records": bytes(values["records"])}), digest
