"""Which engine a collection has, what that keeps of its vectors, and how much may be in it."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("collections") as table:
        table.add_column(sa.Column("engine", sa.Text(), nullable=True))
        table.add_column(sa.Column("quantization", sa.Text(), nullable=False, server_default="none"))
        table.add_column(sa.Column("quota_passages", sa.BigInteger(), nullable=True))
        table.add_column(sa.Column("quota_bytes", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("collections") as table:
        for name in ("quota_bytes", "quota_passages", "quantization", "engine"):
            table.drop_column(name)
