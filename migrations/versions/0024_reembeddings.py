"""Vectors of collections in more than one version, and the work of embedding collections anew.

Revision ID: 0024
Revises: 0022
"""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("collections", sa.Column("version", sa.Integer(), server_default="1", nullable=False))
    op.add_column("collections", sa.Column("cut", sa.Integer(), nullable=True))
    op.add_column("collections", sa.Column("canary", sa.JSON(), nullable=True))
    op.create_table(
        "passage_embeddings",
        sa.Column("collection_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("passage_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["passage_id"], ["passages.id"], name="fk_passage_embeddings_passage_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("collection_id", "version", "passage_id", name="pk_passage_embeddings"),
    )
    op.create_index("ix_passage_embeddings_passage_id", "passage_embeddings", ["passage_id"])
    _reembeddings()


def downgrade() -> None:
    """What was embedded anew and is read by now is lost with it: such collections have to be ingested again."""
    op.drop_table("reembeddings")
    op.drop_table("passage_embeddings")
    for column in ("canary", "cut", "version"):
        op.drop_column("collections", column)


def _reembeddings() -> None:
    op.create_table(
        "reembeddings",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("collection_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("behind", sa.Boolean(), nullable=False),
        sa.Column("before", sa.JSON(), nullable=False),
        sa.Column("after", sa.JSON(), nullable=False),
        sa.Column("payer", sa.Text(), nullable=False),
        sa.Column("terms", sa.JSON(), nullable=False),
        sa.Column("verdict", sa.JSON(), nullable=True),
        sa.Column("canary_share", sa.Double(), nullable=False),
        sa.Column("canary_keys", sa.JSON(), nullable=False),
        sa.Column("cursor", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.Double(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("host", sa.Text(), nullable=True),
        sa.Column("seen_at", sa.Double(), nullable=True),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("collected", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("swapped_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["collection_id"], ["collections.id"], name="fk_reembeddings_collection_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_reembeddings"),
    )
    op.create_index("ix_reembeddings_collection_id", "reembeddings", ["collection_id"])
    op.create_index("ix_reembeddings_state", "reembeddings", ["state"])
