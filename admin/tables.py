"""The control plane's own tables: answers kept for Idempotency-Key, who changed what, and tokens."""

from sqlalchemy import JSON, Column, Double, Index, Integer, LargeBinary, MetaData, Table, Text

from gateway.tables import NAMES

metadata = MetaData(naming_convention=NAMES)

# `answer` is sealed: that to a new key holds the only copy of its secret, which a client that lost it may ask for again.
idempotency = Table(
    "idempotency",
    metadata,
    Column("key", Text, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("status", Integer, nullable=False),
    Column("answer", Text, nullable=False),
    Column("created_at", Double, nullable=False, index=True),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Text, primary_key=True),
    Column("at", Double, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("org_id", Text),
    Column("before", JSON(none_as_null=True)),
    Column("after", JSON(none_as_null=True)),
    Index(None, "org_id", "id"),
)

# For machines that administer with less than the admin key. Only the SHA-256 of a token is kept.
tokens = Table(
    "tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("hint", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("org_id", Text, index=True),
    Column("team_id", Text),
    Column("expires_at", Double),
    Column("revoked_at", Double),
    Column("created_at", Double, nullable=False),
)
