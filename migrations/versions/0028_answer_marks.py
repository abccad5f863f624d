"""In which blocks of records an answer may be, by the id that stands in it.

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


def downgrade() -> None:
    op.drop_table("answer_marks")
