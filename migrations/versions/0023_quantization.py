"""What was never chosen is the engine's to choose: `none` was what a collection had that said nothing.

Revision ID: 0023
Revises: 0022
"""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("UPDATE collections SET quantization = 'auto' WHERE quantization = 'none'")


def downgrade() -> None:
    op.execute("UPDATE collections SET quantization = 'none' WHERE quantization = 'auto'")
