"""Collections, documents, passages, and the jobs that read them."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _collections()
    _documents()
    _passages()
    _work()


def downgrade() -> None:
    for table in (
        "ingestion_jobs",
        "file_batches",
        "removals",
        "passage_bodies",
        "passages",
        "document_texts",
        "document_labels",
        "documents",
        "collections",
    ):
        op.drop_table(table)


def _collections() -> None:
    op.create_table(
        "collections",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("team_id", sa.Text(), nullable=True),
        sa.Column("org_id", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("dimensions", sa.Integer(), nullable=True),
        sa.Column("labelled", sa.Boolean(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("last_active_at", sa.Double(), nullable=False),
        sa.Column("expires_days", sa.Integer(), nullable=True),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_collections"),
    )
    for column in ("key_id", "team_id", "expires_at"):
        op.create_index(f"ix_collections_{column}", "collections", [column])


def _documents() -> None:
    op.create_table(
        "documents",
        sa.Column("id", _big_id(), nullable=False),
        sa.Column("collection_id", sa.Text(), nullable=False),
        sa.Column("source_id", sa.Text(), nullable=False),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("empty", sa.Boolean(), nullable=False),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("chunking", sa.JSON(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=True),
        sa.Column("usage_bytes", sa.BigInteger(), nullable=False),
        sa.Column("passages", sa.Integer(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("batch_id", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_documents"),
        sa.UniqueConstraint("collection_id", "source_id", name="uq_documents_collection_id_source_id"),
        _below("documents", "collection_id", "collections.id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_documents_source_id", "documents", ["source_id"])
    op.create_index("ix_documents_batch_id", "documents", ["batch_id"])
    op.create_index("ix_documents_collection_id_generation", "documents", ["collection_id", "generation"])
    op.create_table(
        "document_labels",
        sa.Column("document_id", sa.BigInteger(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("document_id", "label", name="pk_document_labels"),
        _below("document_labels", "document_id", "documents.id"),
    )
    op.create_table(
        "document_texts",
        sa.Column("document_id", sa.BigInteger(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("document_id", name="pk_document_texts"),
        _below("document_texts", "document_id", "documents.id"),
    )


def _passages() -> None:
    op.create_table(
        "passages",
        sa.Column("id", _big_id(), nullable=False),
        sa.Column("collection_id", sa.Text(), nullable=False),
        sa.Column("document_id", sa.BigInteger(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=True),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("start", sa.Integer(), nullable=False),
        sa.Column("end", sa.Integer(), nullable=False),
        sa.Column("page", sa.Integer(), nullable=True),
        sa.Column("line", sa.Integer(), nullable=True),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_passages"),
        _below("passages", "document_id", "documents.id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_passages_document_id", "passages", ["document_id"])
    op.create_index("ix_passages_collection_id_generation", "passages", ["collection_id", "generation"])
    op.create_table(
        "passage_bodies",
        sa.Column("passage_id", sa.BigInteger(), nullable=False),
        sa.Column("heading", sa.JSON(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("passage_id", name="pk_passage_bodies"),
        _below("passage_bodies", "passage_id", "passages.id"),
    )
    op.create_table(
        "removals",
        sa.Column("collection_id", sa.Text(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("passage_ids", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("collection_id", "generation", name="pk_removals"),
        _below("removals", "collection_id", "collections.id"),
    )


def _work() -> None:
    op.create_table(
        "file_batches",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("collection_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("cancelled", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_file_batches"),
        _below("file_batches", "collection_id", "collections.id"),
    )
    op.create_index("ix_file_batches_collection_id", "file_batches", ["collection_id"])
    op.create_table(
        "ingestion_jobs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("collection_id", sa.Text(), nullable=False),
        sa.Column("document_id", sa.BigInteger(), nullable=False),
        sa.Column("payer", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.Double(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("host", sa.Text(), nullable=True),
        sa.Column("seen_at", sa.Double(), nullable=True),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ingestion_jobs"),
        sa.UniqueConstraint("document_id", name="uq_ingestion_jobs_document_id"),
        _below("ingestion_jobs", "collection_id", "collections.id"),
        _below("ingestion_jobs", "document_id", "documents.id"),
    )
    op.create_index("ix_ingestion_jobs_collection_id", "ingestion_jobs", ["collection_id"])
    op.create_index("ix_ingestion_jobs_payer", "ingestion_jobs", ["payer"])


def _big_id() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _below(table: str, column: str, target: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [target], ondelete="CASCADE", name=f"fk_{table}_{column}")
