"""Tables of this plane: the truth about collections, documents and passages. Every index is made from it and can be made again.

A change of a collection that a search could notice gets the collection's next `generation`, in the transaction that makes it: whoever
keeps an index asks for what is newer than what it has. Ids of passages grow and are never used again, for the same reason.
"""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _id() -> Column[int]:
    """Only an INTEGER key numbers its rows on SQLite."""
    return Column("id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True)


def _whose() -> list[Column[Any]]:
    """The key that made it; keys of the same team see it as well."""
    return [
        Column("key_id", Text, nullable=False, index=True),
        Column("team_id", Text, index=True),
        Column("org_id", Text),
    ]


# `model` embeds it, for good; `dimensions` is known with the first vector. `labelled`: a document without labels is for nobody.
# `engine` makes its graph, if it is not the usual one; `quantization`: of what that keeps. The quotas bound what is published in it.
# `expires_days` counts from `last_active_at`. `deleted`: it is for nobody any more, and what is left of it goes piece by piece.
# `version` of its vectors is read, by the keys of a `canary` another one; `cut`: the dimensions that the model is asked for;
# `prompts`: how it is told questions from passages. That version's passages are those of the `edition`, and `chunking` is how files are cut
# in it that do not say. `tenancy`: which attribute names the tenant of each document.
collections = Table(
    "collections",
    metadata,
    Column("id", Text, primary_key=True),
    *_whose(),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("metadata", JSON, nullable=False),
    Column("model", Text, nullable=False),
    Column("dimensions", Integer),
    Column("labelled", Boolean, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("last_active_at", Double, nullable=False),
    Column("expires_days", Integer),
    Column("expires_at", Double, index=True),
    Column("deleted", Boolean, nullable=False),
    Column("engine", Text),
    Column("quantization", Text, nullable=False, server_default="none"),
    Column("quota_passages", BigInteger),
    Column("quota_bytes", BigInteger),
    Column("version", Integer, nullable=False, server_default="1"),
    Column("cut", Integer),
    Column("canary", JSON(none_as_null=True)),
    Column("prompts", Text),
    Column("edition", Integer, nullable=False, server_default="1"),
    Column("chunking", JSON(none_as_null=True)),
    Column("tenancy", JSON(none_as_null=True)),
)

# A file in a collection; `source_id` is who it is, `fingerprint` what it was when it was read. `generation` is that of its last change.
# `tenant`: whose it is, in a collection that declares tenancy, and in no other.
documents = Table(
    "documents",
    metadata,
    _id(),
    Column("collection_id", Text, ForeignKey("collections.id", ondelete="CASCADE"), nullable=False),
    Column("source_id", Text, nullable=False, index=True),
    Column("filename", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("empty", Boolean, nullable=False),
    Column("attributes", JSON, nullable=False),
    Column("chunking", JSON, nullable=False),
    Column("fingerprint", Text),
    Column("usage_bytes", BigInteger, nullable=False),
    Column("passages", Integer, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("batch_id", Text, index=True),
    Column("tenant", Text),
    UniqueConstraint("collection_id", "source_id"),
    Index("ix_documents_collection_id_generation", "collection_id", "generation"),
    Index("ix_documents_collection_id_tenant", "collection_id", "tenant"),
    sqlite_autoincrement=True,
)

# Who may read a document, if it has any of these; see retrieval.access.
document_labels = Table(
    "document_labels",
    metadata,
    Column("document_id", BigInteger, ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True),
    Column("label", Text, primary_key=True),
)

# The text of a document as it was read: what passages and citations point into.
document_texts = Table(
    "document_texts",
    metadata,
    Column("document_id", BigInteger, ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True),
    Column("text", Text, nullable=False),
)

# A document in an edition of its collection that is not the one that is read: how it is, or is to be, cut there, and `note`: why it is not
# cut as was asked for. `fingerprint` is that of the file whose passages are there, None where they are still to be cut.
document_cuts = Table(
    "document_cuts",
    metadata,
    Column("document_id", BigInteger, ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True),
    Column("edition", Integer, primary_key=True, autoincrement=False),
    Column("chunking", JSON, nullable=False),
    Column("fingerprint", Text),
    Column("passages", Integer, nullable=False),
    Column("note", Text),
)

# Without a generation it is being prepared, and no search sees it; it is of one edition of its collection. `start` and `end` are characters
# of the document's text, and so are those of its parent, which is shown for it.
passages = Table(
    "passages",
    metadata,
    _id(),
    Column("collection_id", Text, nullable=False),
    Column("document_id", BigInteger, ForeignKey("documents.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("generation", BigInteger),
    Column("ordinal", Integer, nullable=False),
    Column("start", Integer, nullable=False),
    Column("end", Integer, nullable=False),
    Column("page", Integer),
    Column("line", Integer),
    Column("tokens", Integer, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("parent_start", Integer),
    Column("parent_end", Integer),
    Column("edition", Integer, nullable=False, server_default="1"),
    Index("ix_passages_collection_id_edition_generation", "collection_id", "edition", "generation"),
    sqlite_autoincrement=True,
)

# Apart, so that a passage can be published or moved without its body being written again. `vector` is float32, little-endian, of length 1:
# that of the collection's first version, and empty where there is none of it. `context`: what a model said before it, to be found by.
passage_bodies = Table(
    "passage_bodies",
    metadata,
    Column("passage_id", BigInteger, ForeignKey("passages.id", ondelete="CASCADE"), primary_key=True),
    Column("heading", JSON, nullable=False),
    Column("text", Text, nullable=False),
    Column("vector", LargeBinary, nullable=False),
    Column("context", Text, nullable=False, server_default=text("''")),
)

# Vectors of later versions, as above.
passage_embeddings = Table(
    "passage_embeddings",
    metadata,
    Column("collection_id", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column(
        "passage_id",
        BigInteger,
        ForeignKey("passages.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
        index=True,
    ),
    Column("vector", LargeBinary, nullable=False),
)

# Collections that are embedded anew, `before` to `after`, on the account of a key, with a lease as for ingestion. `behind`: passages may
# lack a vector of the version that is not read; `cursor`: there are none up to that passage. `collected`: what it left is taken away.
reembeddings = Table(
    "reembeddings",
    metadata,
    Column("id", Text, primary_key=True),
    Column("collection_id", Text, ForeignKey("collections.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("version", Integer, nullable=False),
    Column("state", Text, nullable=False, index=True),
    Column("reason", Text),
    Column("behind", Boolean, nullable=False),
    Column("before", JSON, nullable=False),
    Column("after", JSON, nullable=False),
    Column("payer", Text, nullable=False),
    Column("terms", JSON, nullable=False),
    Column("verdict", JSON(none_as_null=True)),
    Column("canary_share", Double, nullable=False),
    Column("canary_keys", JSON, nullable=False),
    Column("cursor", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("not_before", Double, nullable=False),
    Column("owner", Text),
    Column("host", Text),
    Column("seen_at", Double),
    Column("epoch", Integer, nullable=False),
    Column("collected", Boolean, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("swapped_at", Double),
    Column("ended_at", Double),
)

# What was taken away, for those who keep an index: ids of passages, int64, little-endian.
removals = Table(
    "removals",
    metadata,
    Column("collection_id", Text, ForeignKey("collections.id", ondelete="CASCADE"), primary_key=True),
    Column("generation", BigInteger, primary_key=True, autoincrement=False),
    Column("passage_ids", LargeBinary, nullable=False),
)

# Files that were added together.
file_batches = Table(
    "file_batches",
    metadata,
    Column("id", Text, primary_key=True),
    Column("collection_id", Text, ForeignKey("collections.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("created_at", Double, nullable=False),
    Column("cancelled", Boolean, nullable=False),
)

# One document to be read and embedded, on the account of a key. Who works on it has the lease: `owner` on the machine `host`, last heard
# of at `seen_at`; each owner has its own `epoch`.
ingestion_jobs = Table(
    "ingestion_jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("collection_id", Text, ForeignKey("collections.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("document_id", BigInteger, ForeignKey("documents.id", ondelete="CASCADE"), nullable=False, unique=True),
    Column("payer", Text, nullable=False, index=True),
    Column("attempts", Integer, nullable=False),
    Column("not_before", Double, nullable=False),
    Column("note", Text),
    Column("owner", Text),
    Column("host", Text),
    Column("seen_at", Double),
    Column("epoch", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
)
