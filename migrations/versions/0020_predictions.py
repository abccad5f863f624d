"""Captured predictions: what went into a classic model, what came out, and the facts of the call.

Revision ID: 0020
Revises: 0013
"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "predictions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("arm", sa.Text(), nullable=False),
        sa.Column("rollout", sa.Text()),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("team_id", sa.Text()),
        sa.Column("org_id", sa.Text()),
        sa.Column("error", sa.Text()),
        sa.Column("valid", sa.Boolean(), nullable=False),
        sa.Column("latency_s", sa.Double(), nullable=False),
        sa.Column("cost_nanousd", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("inputs", sa.Text()),
        sa.Column("outputs", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_predictions"),
    )
    op.create_index("ix_predictions_at", "predictions", ["at"])
    op.create_index("ix_predictions_model_at", "predictions", ["model", "at"])


def downgrade() -> None:
    op.drop_index("ix_predictions_model_at", "predictions")
    op.drop_index("ix_predictions_at", "predictions")
    op.drop_table("predictions")
