"""Features: views, the newest row of each entity, and all that there ever were.

Revision ID: 0026
Revises: 0024
"""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "feature_views",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("entities", sa.JSON(), nullable=False),
        sa.Column("features", sa.JSON(), nullable=False),
        sa.Column("source", sa.JSON(), nullable=False),
        sa.Column("ttl_s", sa.Double()),
        sa.Column("missing", sa.Text(), nullable=False),
        sa.Column("defaults", sa.JSON(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("description", sa.Text()),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_feature_views"),
        sa.UniqueConstraint("number", name="uq_feature_views_number"),
    )
    for name, keys in (("feature_latest", ("view", "entity")), ("feature_history", ("view", "entity", "event_us"))):
        op.create_table(
            name,
            sa.Column("view", sa.BigInteger(), nullable=False),
            sa.Column("entity", sa.Text(), nullable=False),
            sa.Column("event_us", sa.BigInteger(), nullable=False),
            sa.Column("written_us", sa.BigInteger(), nullable=False),
            sa.Column("features", sa.Text(), nullable=False),
            sa.PrimaryKeyConstraint(*keys, name=f"pk_{name}"),
            sqlite_with_rowid=False,
        )


def downgrade() -> None:
    op.drop_table("feature_history")
    op.drop_table("feature_latest")
    op.drop_table("feature_views")
