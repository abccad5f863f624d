"""How a collection's model is told questions from passages: as it was when its vectors were begun.

Revision ID: 0033
Revises: 0032
"""

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("collections", sa.Column("prompts", sa.Text()))


def downgrade() -> None:
    op.drop_column("collections", "prompts")
