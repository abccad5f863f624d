"""The ledger, the heads of its chains, what sessions have charged to accounts, and spend summed up by day and month."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

OWNER = ("org_id", "team_id", "user_id", "key_id", "model", "provider")
SUMS = ("cost_nanousd", "requests", "input_tokens", "cached_tokens", "output_tokens")


def upgrade() -> None:
    op.create_table(
        "ledger",
        sa.Column("session", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("org_id", sa.Text()),
        sa.Column("team_id", sa.Text()),
        sa.Column("user_id", sa.Text()),
        sa.Column("key_id", sa.Text()),
        sa.Column("customer", sa.Text()),
        sa.Column("model", sa.Text()),
        sa.Column("provider", sa.Text()),
        sa.Column("deployment", sa.Text()),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("tags", sa.Text()),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_write_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("usage_more", sa.Text()),
        sa.Column("cost_nanousd", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("session", "seq", name="pk_ledger"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "ledger_sessions",
        sa.Column("session", sa.Text(), nullable=False),
        sa.Column("after", sa.Text()),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("entries", sa.BigInteger(), nullable=False),
        sa.Column("last_hash", sa.LargeBinary(), nullable=False),
        sa.Column("cost_nanousd", sa.BigInteger(), nullable=False),
        sa.Column("first_day", sa.Integer()),
        sa.Column("last_day", sa.Integer()),
        sa.Column("closed_at", sa.Double()),
        sa.Column("pruned_entries", sa.BigInteger(), nullable=False),
        sa.Column("pruned_hash", sa.LargeBinary()),
        sa.Column("pruned_cost_nanousd", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("session", name="pk_ledger_sessions"),
    )
    op.create_table(
        "account_charges",
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("session", sa.Text(), nullable=False),
        sa.Column("settled", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("account", "session", name="pk_account_charges"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_account_charges_session", "account_charges", ["session"])
    op.create_table(
        "spend_partials",
        sa.Column("facet", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("month", sa.Integer(), nullable=False),
        *_owner(),
        *_sums(),
    )
    op.create_table(
        "spend_owners",
        sa.Column("id", sa.Integer(), nullable=False),
        *_owner(),
        sa.PrimaryKeyConstraint("id", name="pk_spend_owners"),
        sa.UniqueConstraint(*OWNER, name=f"uq_spend_owners_{'_'.join(OWNER)}"),
    )
    op.create_table(
        "spend_rollup",
        sa.Column("grain", sa.Text(), nullable=False),
        sa.Column("facet", sa.Text(), nullable=False),
        sa.Column("day", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("owner", sa.Integer(), autoincrement=False, nullable=False),
        *_sums(),
        sa.PrimaryKeyConstraint("grain", "facet", "day", "label", "owner", name="pk_spend_rollup"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    for table in ("spend_rollup", "spend_owners", "spend_partials", "account_charges", "ledger_sessions", "ledger"):
        op.drop_table(table)


def _owner() -> list[sa.Column[object]]:
    return [sa.Column(name, sa.Text(), nullable=False) for name in OWNER]


def _sums() -> list[sa.Column[object]]:
    return [sa.Column(name, sa.BigInteger(), nullable=False) for name in SUMS]
