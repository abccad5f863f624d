"""Collections that declare tenancy, and whose each of their documents is.

Revision ID: 0034
Revises: 0033
"""

import sqlalchemy as sa
from alembic import op

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("collections", sa.Column("tenancy", sa.JSON(none_as_null=True)))
    op.add_column("documents", sa.Column("tenant", sa.Text()))
    op.create_index("ix_documents_collection_id_tenant", "documents", ["collection_id", "tenant"])


def downgrade() -> None:
    op.drop_index("ix_documents_collection_id_tenant", "documents")
    op.drop_column("documents", "tenant")
    op.drop_column("collections", "tenancy")
