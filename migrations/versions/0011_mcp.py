"""MCP servers, and which of their tools keys and teams may use."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "mcp_servers",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("seed_hash", sa.Text(), nullable=True),
        sa.Column("edited", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("deleted_at", sa.Double(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_mcp_servers"),
    )
    for table in ("keys", "teams"):
        op.add_column(table, sa.Column("mcp", sa.JSON(), nullable=True))


def downgrade() -> None:
    for table in ("teams", "keys"):
        op.drop_column(table, "mcp")  # as it is: a table that others refer to cannot be made anew
    op.drop_table("mcp_servers")
