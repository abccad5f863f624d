"""The ledger in blocks: a row for each group that was shipped. Rows of the old table become blocks of a new chain.

Nothing of the application is imported: what stands here is the format of this version, whatever becomes of it. The old chain is checked
on the way: a block of a row that was changed gets a hash that is as wrong, so that `penstock ledger verify` finds it afterwards as before.
The seal is another one. These calls stay listed by `request_blocks`, so the blocks have no ids to be found by.
"""

from collections.abc import Sequence
from hashlib import sha256
from itertools import pairwise
from typing import Any

import msgspec
import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TOGETHER = 2_000

encode = msgspec.msgpack.Encoder().encode


def upgrade() -> None:
    op.create_table(
        "ledger_blocks",
        sa.Column("session", sa.Text(), nullable=False),
        sa.Column("first_seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("first_id", sa.Text(), nullable=False),
        sa.Column("last_id", sa.Text(), nullable=False),
        sa.Column("first_at", sa.Double(), nullable=False),
        sa.Column("last_at", sa.Double(), nullable=False),
        sa.Column("cost_nanousd", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("records", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("session", "first_seq", name="pk_ledger_blocks"),
    )
    op.create_index("ix_ledger_blocks_last_id_session", "ledger_blocks", ["last_id", "session"])
    connection = op.get_bind()
    heads = connection.execute(sa.text("SELECT session, after, pruned_hash FROM ledger_sessions")).all()
    for session, after, pruned_hash in heads:
        _convert(session, *(pruned_hash or _genesis(version, session, after) for version in (1, 2)))
    registered = {session for session, *_ in heads}
    for session in set(connection.scalars(sa.text("SELECT DISTINCT session FROM ledger"))) - registered:
        _convert(session, _genesis(1, session, None), _genesis(2, session, None))
    op.drop_table("ledger")


def downgrade() -> None:
    if op.get_bind().execute(sa.text("SELECT count(*) FROM ledger_blocks")).scalar_one():
        raise RuntimeError(
            "an older release cannot read this ledger, and undoing the migration would lose it: export it (`penstock ledger export`), "
            "make the older release's database new, or forget it (`penstock ledger prune`)"
        )
    op.drop_table("ledger_blocks")
    op.create_table(
        "ledger",
        sa.Column("session", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        *(
            sa.Column(name, sa.Text())
            for name in ("org_id", "team_id", "user_id", "key_id", "customer", "model", "provider", "deployment")
        ),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("tags", sa.Text()),
        *(
            sa.Column(name, sa.BigInteger(), nullable=False)
            for name in (
                "input_tokens",
                "cached_tokens",
                "cache_write_tokens",
                "output_tokens",
                "reasoning_tokens",
                "requests",
            )
        ),
        sa.Column("usage_more", sa.Text()),
        sa.Column("cost_nanousd", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("session", "seq", name="pk_ledger"),
        sqlite_with_rowid=False,
    )


def _genesis(version: int, session: str, after: str | None) -> bytes:
    return sha256(encode((f"penstock ledger {version}", session, after))).digest()


def _convert(session: str, old: bytes, new: bytes) -> None:
    """A session's rows, in order, from where either chain begins. Where a row is missing, the chain has a hole again."""
    connection = op.get_bind()
    query = sa.text("SELECT * FROM ledger WHERE session = :session AND seq > :seq ORDER BY seq LIMIT :limit")
    seq, some = 0, True
    while some:
        rows = connection.execute(query, {"session": session, "seq": seq, "limit": TOGETHER}).all()
        for run in _runs(rows):
            block, records = _block(session, run), encode([_settled(row) for row in run])
            whole = True
            for row in run:
                whole = whole and sha256(old + encode(tuple(row[:-1]))).digest() == row.hash
                old = row.hash
            new = sha256(new + encode(list(block.values())) + records).digest() if whole else old
            columns = {**block, "records": records, "hash": new}
            marks = ", ".join(f":{name}" for name in columns)
            connection.execute(sa.text(f"INSERT INTO ledger_blocks ({', '.join(columns)}) VALUES ({marks})"), columns)  # noqa: S608 — our names
        some = len(rows) == TOGETHER
        seq = rows[-1].seq if rows else seq
    head = sa.text("UPDATE ledger_sessions SET last_hash = :new WHERE session = :session AND last_hash = :old")
    connection.execute(head, {"new": new, "old": old, "session": session})


def _runs(rows: Sequence[sa.Row[Any]]) -> list[Sequence[sa.Row[Any]]]:
    """Cut where a number is missing."""
    cuts = [index for index, (one, two) in enumerate(pairwise(rows), 1) if two.seq != one.seq + 1]
    return [rows[start:end] for start, end in pairwise([0, *cuts, len(rows)])] if rows else []


def _block(session: str, rows: Sequence[sa.Row[Any]]) -> dict[str, object]:
    """What is hashed before the records, in this order."""
    times = [row.at for row in rows]
    return {
        "session": session,
        "first_seq": rows[0].seq,
        "last_seq": rows[-1].seq,
        "first_id": "",
        "last_id": "",
        "first_at": min(times),
        "last_at": max(times),
        "cost_nanousd": sum(row.cost_nanousd for row in rows),
    }


def _settled(row: sa.Row[Any]) -> Sequence[object]:
    """A settlement in the journal's format of version 1, as far as a row had kept it."""
    usage = {
        "input": row.input_tokens,
        "output": row.output_tokens,
        "cached_read": row.cached_tokens,
        "cache_write": row.cache_write_tokens,
        "reasoning": row.reasoning_tokens,
        "requests": row.requests,
        **(msgspec.json.decode(row.usage_more) if row.usage_more else {}),
    }
    tags = msgspec.json.decode(row.tags) if row.tags else None
    owner = (row.key_id, row.team_id, row.org_id, row.user_id, row.customer, row.model, row.provider, row.deployment)
    ending = (False, 0, 0.0, None, None, None, row.reason)
    return [
        "s",
        row.id,
        row.at,
        row.endpoint,
        row.status,
        row.source,
        row.cost_nanousd,
        usage,
        [],
        *owner,
        tags,
        *ending,
    ]
