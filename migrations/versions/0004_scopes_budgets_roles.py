"""Organisations, teams, users, budgets and limits; retired secrets of keys; who changed what from what, and admin tokens."""

import time

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

DEFAULT_ORG = "org_default"


def upgrade() -> None:
    _create_owners()
    with op.batch_alter_table("keys") as keys:
        keys.drop_column("budget")
        keys.drop_column("limits")
        keys.add_column(sa.Column("org_id", sa.Text()))
        keys.add_column(sa.Column("user_id", sa.Text()))
        keys.add_column(sa.Column("routes", sa.JSON()))
        keys.add_column(sa.Column("blocked", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.create_table(
        "retired_secrets",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_retired_secrets"),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name="fk_retired_secrets_key_id", ondelete="CASCADE"),
    )
    op.create_index("ix_retired_secrets_key_id", "retired_secrets", ["key_id"])
    _create_rules()
    with op.batch_alter_table("audit") as audit:
        audit.add_column(sa.Column("org_id", sa.Text()))
        audit.add_column(sa.Column("before", sa.JSON()))
        audit.add_column(sa.Column("after", sa.JSON()))
    op.create_index("ix_audit_org_id_id", "audit", ["org_id", "id"])
    op.create_table(
        "tokens",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("hint", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("org_id", sa.Text()),
        sa.Column("team_id", sa.Text()),
        sa.Column("expires_at", sa.Double()),
        sa.Column("revoked_at", sa.Double()),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        sa.UniqueConstraint("digest", name="uq_tokens_digest"),
    )
    op.create_index("ix_tokens_org_id", "tokens", ["org_id"])
    _adopt_teams()


def downgrade() -> None:
    for table in ("tokens", "limits", "budgets", "retired_secrets"):
        op.drop_table(table)
    op.drop_index("ix_audit_org_id_id", "audit")
    with op.batch_alter_table("audit") as audit:
        for column in ("org_id", "before", "after"):
            audit.drop_column(column)
    with op.batch_alter_table("keys") as keys:
        for column in ("org_id", "user_id", "routes", "blocked"):
            keys.drop_column(column)
        keys.add_column(sa.Column("budget", sa.JSON()))
        keys.add_column(sa.Column("limits", sa.JSON()))
    for table in ("users", "teams", "orgs"):
        op.drop_table(table)


def _create_owners() -> None:
    op.create_table(
        "orgs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        *_owner_columns(),
        sa.PrimaryKeyConstraint("id", name="pk_orgs"),
    )
    op.create_table(
        "teams",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        *_owner_columns(),
        sa.PrimaryKeyConstraint("id", name="pk_teams"),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name="fk_teams_org_id"),
    )
    op.create_index("ix_teams_org_id", "teams", ["org_id"])
    op.create_table(
        "users",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("team_id", sa.Text()),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("name", sa.Text()),
        sa.Column("role", sa.Text(), nullable=False),
        *_owner_columns(),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("email", name="uq_users_email"),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name="fk_users_org_id"),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name="fk_users_team_id"),
    )
    op.create_index("ix_users_org_id", "users", ["org_id"])
    op.create_index("ix_users_team_id", "users", ["team_id"])


def _create_rules() -> None:
    op.create_table(
        "budgets",
        *_rule_columns(),
        sa.Column("limit_nanousd", sa.BigInteger(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("rolling", sa.Boolean(), nullable=False),
        sa.Column("timezone", sa.Text(), nullable=False),
        sa.Column("thresholds", sa.JSON(), nullable=False),
        sa.Column("on_exceeded", sa.Text(), nullable=False),
        sa.Column("fallback_model", sa.Text()),
        sa.Column("raise_nanousd", sa.BigInteger()),
        sa.Column("raise_until", sa.Double()),
        sa.Column("blocked", sa.Boolean(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_budgets"),
    )
    op.create_table(
        "limits",
        *_rule_columns(),
        sa.Column("rpm", sa.BigInteger()),
        sa.Column("tpm", sa.BigInteger()),
        sa.Column("input_tpm", sa.BigInteger()),
        sa.Column("output_tpm", sa.BigInteger()),
        sa.Column("rpd", sa.BigInteger()),
        sa.Column("parallel", sa.BigInteger()),
        sa.Column("request_burst", sa.Double(), nullable=False),
        sa.Column("token_burst", sa.Double(), nullable=False),
        sa.Column("timezone", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_limits"),
    )
    for table in ("budgets", "limits"):
        for column in ("org_id", "team_id", "revision"):
            op.create_index(f"ix_{table}_{column}", table, [column])
        op.create_index(f"ix_{table}_scope_kind_scope_id", table, ["scope_kind", "scope_id"])


def _adopt_teams() -> None:
    """Keys could name any team before there were teams: what they named is one now, in an organisation made for them."""
    connection = op.get_bind()
    named = connection.scalars(sa.text("SELECT DISTINCT team_id FROM keys WHERE team_id IS NOT NULL")).all()
    if not named:
        return
    now = time.time()
    connection.execute(
        sa.text("INSERT INTO orgs (id, name, created_at, updated_at) VALUES (:id, 'default', :now, :now)"),
        {"id": DEFAULT_ORG, "now": now},
    )
    for team in named:
        connection.execute(
            sa.text("INSERT INTO teams (id, org_id, name, created_at, updated_at) VALUES (:id, :org, :id, :now, :now)"),
            {"id": team, "org": DEFAULT_ORG, "now": now},
        )
    connection.execute(sa.text("UPDATE keys SET org_id = :org WHERE team_id IS NOT NULL"), {"org": DEFAULT_ORG})


def _owner_columns() -> list[sa.Column[object]]:
    return [
        sa.Column("models", sa.JSON()),
        sa.Column("blocked", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("metadata", sa.JSON()),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
    ]


def _rule_columns() -> list[sa.Column[object]]:
    return [
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("scope_kind", sa.Text(), nullable=False),
        sa.Column("scope_id", sa.Text(), nullable=False),
        sa.Column("within", sa.Text(), nullable=False),
        sa.Column("org_id", sa.Text()),
        sa.Column("team_id", sa.Text()),
        sa.Column("set_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("deleted_at", sa.Double()),
        sa.Column("revision", sa.BigInteger(), nullable=False),
    ]
