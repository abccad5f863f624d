"""Passages with a parent that is shown for them, and with what a model said of their place in the document.

Revision ID: 0032
Revises: 0031
"""

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("passages", sa.Column("parent_start", sa.Integer()))
    op.add_column("passages", sa.Column("parent_end", sa.Integer()))
    op.add_column("passage_bodies", sa.Column("context", sa.Text(), server_default=sa.text("''"), nullable=False))


def downgrade() -> None:
    """What was read before knows two types, and nothing beside their sizes."""
    documents = sa.table("documents", sa.column("id", sa.BigInteger()), sa.column("chunking", sa.JSON()))
    known, bind = ("max_tokens", "overlap_tokens"), op.get_bind()
    for id_, chunking in bind.execute(sa.select(documents.c.id, documents.c.chunking)).all():
        kind = "auto" if chunking["type"] == "auto" else "static"
        old = {"type": kind, **{name: chunking[name] for name in known}}
        if old != chunking:
            bind.execute(sa.update(documents).where(documents.c.id == id_).values(chunking=old))
    op.drop_column("passage_bodies", "context")
    op.drop_column("passages", "parent_end")
    op.drop_column("passages", "parent_start")
