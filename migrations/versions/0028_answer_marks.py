"""In which blocks of records an answer may be, by the id that stands in it; feature views that a file declares.

Revision ID: 0028
Revises: 0026
"""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "answer_marks",
        sa.Column("last_id", sa.Text(), nullable=False),
        sa.Column("session", sa.Text(), nullable=False),
        sa.Column("marks", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("last_id", "session", name="pk_answer_marks"),
    )
    op.add_column("feature_views", sa.Column("origin", sa.Text()))
    op.add_column("feature_views", sa.Column("seed_hash", sa.Text()))
    op.add_column("feature_views", sa.Column("edited", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("feature_views", sa.Column("deleted_at", sa.Double()))


def downgrade() -> None:
    for name in ("deleted_at", "edited", "seed_hash", "origin"):
        op.drop_column("feature_views", name)
    op.drop_table("answer_marks")
