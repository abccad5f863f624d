"""Editions of collections: passages as they are cut in one way, beside those that are cut in another.

Revision ID: 0035
Revises: 0034
"""

import sqlalchemy as sa
from alembic import op

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("collections", sa.Column("edition", sa.Integer(), server_default="1", nullable=False))
    op.add_column("collections", sa.Column("chunking", sa.JSON()))
    op.add_column("passages", sa.Column("edition", sa.Integer(), server_default="1", nullable=False))
    op.drop_index("ix_passages_collection_id_generation", "passages")
    op.create_index(
        "ix_passages_collection_id_edition_generation", "passages", ["collection_id", "edition", "generation"]
    )
    op.create_table(
        "document_cuts",
        sa.Column("document_id", sa.BigInteger(), nullable=False),
        sa.Column("edition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("chunking", sa.JSON(), nullable=False),
        sa.Column("fingerprint", sa.Text()),
        sa.Column("passages", sa.Integer(), nullable=False),
        sa.Column("note", sa.Text()),
        sa.ForeignKeyConstraint(
            ["document_id"],
            ["documents.id"],
            name=op.f("fk_document_cuts_document_id_documents"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("document_id", "edition", name=op.f("pk_document_cuts")),
    )


def downgrade() -> None:
    """What was read before knows one edition: the one that is read is left, and a re-embedding into another one is over."""
    unread = "SELECT p.id FROM passages p JOIN collections c ON c.id = p.collection_id WHERE p.edition <> c.edition"
    for table, column in (("passage_bodies", "passage_id"), ("passage_embeddings", "passage_id"), ("passages", "id")):
        op.execute(f"DELETE FROM {table} WHERE {column} IN ({unread})")  # noqa: S608 — names of ours
    cut = "SELECT d.collection_id FROM documents d JOIN document_cuts k ON k.document_id = d.id"
    op.execute(
        "UPDATE reembeddings SET state = CASE state WHEN 'swapped' THEN 'finished' ELSE 'cancelled' END, owner = NULL "  # noqa: S608
        f"WHERE state IN ('backfilling', 'ready', 'canary', 'swapped', 'failed') AND collection_id IN ({cut})"
    )
    op.execute(f"UPDATE collections SET canary = NULL WHERE id IN ({cut})")  # noqa: S608 — a constant
    op.drop_table("document_cuts")
    op.drop_index("ix_passages_collection_id_edition_generation", "passages")
    op.create_index("ix_passages_collection_id_generation", "passages", ["collection_id", "generation"])
    op.drop_column("passages", "edition")
    op.drop_column("collections", "chunking")
    op.drop_column("collections", "edition")
