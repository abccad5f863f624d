"""Limits whose tokens the active keys share."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("limits", sa.Column("fair_share", sa.Boolean()))


def downgrade() -> None:
    op.drop_column("limits", "fair_share")
