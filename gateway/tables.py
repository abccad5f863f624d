"""The gateway's tables: who may call, what models there are, budgets and limits, the order of changes, records of requests, files, batches.

SQLAlchemy Core without the ORM: importing that adds a quarter of a second to every start (measured: 0.59 s and 0.84 s).
Times are Unix seconds. The schema is changed by `migrations/` alone; a test compares the two on both databases.
"""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    false,
)

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
metadata = MetaData(naming_convention=NAMES)

# One row per change of what the data plane reads. `gateway.database.changing` keeps numbers in the order of commits.
revisions = Table(
    "revisions",
    metadata,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Column("subject", Text, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("hint", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("team_id", Text),
    Column("org_id", Text),
    Column("user_id", Text),
    Column("models", JSON(none_as_null=True)),
    Column("routes", JSON(none_as_null=True)),
    Column("blocked", Boolean, nullable=False, server_default=false()),
    Column("expires_at", Double),
    Column("revoked_at", Double),
    Column("metadata", JSON(none_as_null=True)),
    Column("mcp", JSON(none_as_null=True)),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column(
        "revision", BigInteger, nullable=False, index=True
    ),  # of the last change, also in what stands above it: a refresh reads only what is newer
)

# Secrets that keys had before they were rotated; each works until its `expires_at`.
retired_secrets = Table(
    "retired_secrets",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("key_id", Text, ForeignKey("keys.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("expires_at", Double, nullable=False),
)

orgs = Table(
    "orgs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("models", JSON(none_as_null=True)),
    Column("blocked", Boolean, nullable=False, server_default=false()),
    Column("metadata", JSON(none_as_null=True)),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
)

teams = Table(
    "teams",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org_id", Text, ForeignKey("orgs.id"), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("models", JSON(none_as_null=True)),
    Column("blocked", Boolean, nullable=False, server_default=false()),
    Column("metadata", JSON(none_as_null=True)),
    Column("mcp", JSON(none_as_null=True)),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
)

# `role` is what a person may do on the admin plane: one of admin.rbac.Role, or `member` for nothing.
users = Table(
    "users",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org_id", Text, ForeignKey("orgs.id"), nullable=False, index=True),
    Column("team_id", Text, ForeignKey("teams.id"), index=True),
    Column("email", Text, nullable=False, unique=True),
    Column("name", Text),
    Column("role", Text, nullable=False),
    Column("models", JSON(none_as_null=True)),
    Column("blocked", Boolean, nullable=False, server_default=false()),
    Column("metadata", JSON(none_as_null=True)),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
)


def _rule_columns() -> tuple[Column[Any], ...]:
    """What budgets and limits share. `org_id` and `team_id` say whose the scope is; `set_by`, who alone or above may change it."""
    return (
        Column("id", Text, primary_key=True),
        Column("scope_kind", Text, nullable=False),
        Column("scope_id", Text, nullable=False),
        Column("within", Text, nullable=False),
        Column("org_id", Text, index=True),
        Column("team_id", Text, index=True),
        Column("set_by", Text, nullable=False),
        Column("created_at", Double, nullable=False),
        Column("updated_at", Double, nullable=False),
        Column("deleted_at", Double),  # a mark, so that snapshots elsewhere learn of it
        Column("revision", BigInteger, nullable=False, index=True),
    )


budgets = Table(
    "budgets",
    metadata,
    *_rule_columns(),
    Column("limit_nanousd", BigInteger, nullable=False),
    Column("period", Text, nullable=False),
    Column("rolling", Boolean, nullable=False),
    Column("timezone", Text, nullable=False),
    Column("thresholds", JSON, nullable=False),
    Column("on_exceeded", Text, nullable=False),
    Column("fallback_model", Text),
    Column("raise_nanousd", BigInteger),
    Column("raise_until", Double),
    Column("blocked", Boolean, nullable=False),
    Column("generation", Integer, nullable=False),
    Index(None, "scope_kind", "scope_id"),
)

# Routes and prompts (`kind`), what their callers are told apart by, and the weights that their versions had before, newest first.
# `shadow` is a version that gets copies, and of how many of the requests (gateway.version_store.Copied).
families = Table(
    "families",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("sticky", Text, nullable=False),
    Column("history", JSON, nullable=False),
    Column("shadow", JSON(none_as_null=True)),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
)

# A version never changes but for its weight.
versions = Table(
    "versions",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("weight", Double, nullable=False),
    Column("spec", JSON, nullable=False),
    Column("created_at", Double, nullable=False),
    ForeignKeyConstraint(
        ["kind", "name"], ["families.kind", "families.name"], ondelete="CASCADE", name="fk_versions_kind"
    ),
)

limits = Table(
    "limits",
    metadata,
    *_rule_columns(),
    Column("rpm", BigInteger),
    Column("tpm", BigInteger),
    Column("input_tpm", BigInteger),
    Column("output_tpm", BigInteger),
    Column("rpd", BigInteger),
    Column("parallel", BigInteger),
    Column("request_burst", Double, nullable=False),
    Column("token_burst", Double, nullable=False),
    Column("timezone", Text, nullable=False),
    Column("fair_share", Boolean),
    Index(None, "scope_kind", "scope_id"),
)

# `spec` is what differs from the defaults of gateway.settings.ModelSpec, without deployments. `seed_hash` is that of the
# text it was seeded from. `deleted_at` marks a seeded object that was deleted over REST: no start may bring it back.
models = Table(
    "models",
    metadata,
    Column("name", Text, primary_key=True),
    Column("spec", JSON, nullable=False),
    Column("origin", Text, nullable=False),
    Column("seed_hash", Text),
    Column("edited", Boolean, nullable=False, server_default=false()),
    Column("deleted_at", Double),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
)

# `spec` is gateway.settings.DeploymentSpec with its secrets sealed, or as the `${VAR}` references that they came as.
deployments = Table(
    "deployments",
    metadata,
    Column("id", Text, primary_key=True),
    Column("model", Text, ForeignKey("models.name", ondelete="CASCADE"), nullable=False, index=True),
    Column("spec", JSON, nullable=False),
    Column("origin", Text, nullable=False),
    Column("seed_hash", Text),
    Column("edited", Boolean, nullable=False, server_default=false()),
    Column("deleted_at", Double),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
)

# `spec` is gateway.mcp.settings.ServerSpec with its secrets sealed, or as references.
mcp_servers = Table(
    "mcp_servers",
    metadata,
    Column("name", Text, primary_key=True),
    Column("spec", JSON, nullable=False),
    Column("origin", Text, nullable=False),
    Column("seed_hash", Text),
    Column("edited", Boolean, nullable=False, server_default=false()),
    Column("deleted_at", Double),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
)

# `spec` is gateway.guards.settings.GuardSpec with its secrets sealed, or as references.
guards = Table(
    "guards",
    metadata,
    Column("name", Text, primary_key=True),
    Column("spec", JSON, nullable=False),
    Column("origin", Text, nullable=False),
    Column("seed_hash", Text),
    Column("edited", Boolean, nullable=False, server_default=false()),
    Column("deleted_at", Double),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
)

# Requests that owe nothing, in blocks; the others are in `ledger_blocks` (gateway.request_store). Ids sort by time, so pages, ranges
# of time and retention need no other index. `request_keys` says which keys occur in a block of either. No foreign keys: a record
# outlives what it names.
request_blocks = Table(
    "request_blocks",
    metadata,
    Column("last_id", Text, primary_key=True),
    Column("session", Text, primary_key=True),
    Column("first_id", Text, nullable=False),
    Column("records", LargeBinary, nullable=False),
)

# Only where recording content is switched on, redacted, and for a while.
request_contents = Table(
    "request_contents",
    metadata,
    Column("id", Text, primary_key=True),
    Column("at", Double, nullable=False, index=True),
    Column("key_id", Text),
    Column("team_id", Text),
    Column("org_id", Text),
    Column("session", Text, index=True),
    Column("request", Text, nullable=False),
    Column("answer", Text),
)
request_keys = Table(
    "request_keys",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("last_id", Text, primary_key=True),
    Column("session", Text, primary_key=True),
    sqlite_with_rowid=False,
)

# Four bytes for each answer of a block (gateway.answer_store).
answer_marks = Table(
    "answer_marks",
    metadata,
    Column("last_id", Text, primary_key=True),
    Column("session", Text, primary_key=True),
    Column("marks", LargeBinary, nullable=False),
)

# What was answered on `/v1/responses`, by whose it is: `owner` is part of every question (gateway.responses.store). `request` is the items
# that came with it, `response` its object. One in the background is run by whoever renews `seen_at`; `cancelled` asks that one to stop.
responses = Table(
    "responses",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("created_at", Double, nullable=False, index=True),
    Column("status", Text, nullable=False),
    Column("background", Boolean, nullable=False),
    Column("previous_id", Text),
    Column("conversation_id", Text),
    Column("before", Integer),
    Column("seen_at", Double, index=True),
    Column("cancelled", Boolean, nullable=False, server_default=false()),
    Column("request", LargeBinary, nullable=False),
    Column("response", LargeBinary, nullable=False),
)

# The events of responses in the background, some at a time; `last` is the highest sequence number among them.
response_events = Table(
    "response_events",
    metadata,
    Column("response_id", Text, ForeignKey("responses.id", ondelete="CASCADE"), primary_key=True),
    Column("last", Integer, primary_key=True, autoincrement=False),
    Column("events", LargeBinary, nullable=False),
)

conversations = Table(
    "conversations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("metadata", LargeBinary, nullable=False),
)
conversation_items = Table(
    "conversation_items",
    metadata,
    Column("conversation_id", Text, ForeignKey("conversations.id", ondelete="CASCADE"), primary_key=True),
    Column("place", Integer, primary_key=True, autoincrement=False),
    Column("id", Text, nullable=False),
    Column("item", LargeBinary, nullable=False),
)

# The thresholds of a budget that were told in the window that ends at `until`, null for a total. `account` without its window.
budget_alerts = Table(
    "budget_alerts",
    metadata,
    Column("account", Text, primary_key=True),
    Column("threshold", Double, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Column("until", Double),
)

# Leases, as gateway.leases keeps them; `settled` and `lent` of an account are sums over its shares and what was folded in.
# An account's kind is the first letter of its id. `level` and `filled_at` are those of buckets.
lease_accounts = Table(
    "lease_accounts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("settled", BigInteger, nullable=False),
    Column("lent", BigInteger, nullable=False),
    Column("level", Double),
    Column("filled_at", Double),
    Column("sharers", Integer, nullable=False),
    Column("ends_at", Double),
)

lease_shares = Table(
    "lease_shares",
    metadata,
    Column("session", Text, primary_key=True),
    Column("account", Text, primary_key=True, index=True),
    Column("settled", BigInteger, nullable=False),
    Column("lent", BigInteger, nullable=False),
)

# `seq` numbers a session's messages, so that one that was overtaken has no effect. `state` is open, silent or closed.
lease_sessions = Table(
    "lease_sessions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("seen_at", Double, nullable=False),
    Column("state", Text, nullable=False, index=True),
)

# What every call cost, in blocks (gateway.ledger_blocks). Rows are only ever appended, by the one shipper of their session, and pruned
# by the month from the oldest on; `hash` ties a row to the one before. They are also the records of these calls, found by their last id.
ledger_blocks = Table(
    "ledger_blocks",
    metadata,
    Column("session", Text, primary_key=True),
    Column("first_seq", BigInteger, primary_key=True, autoincrement=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("first_id", Text, nullable=False),
    Column("last_id", Text, nullable=False),
    Column("first_at", Double, nullable=False),
    Column("last_at", Double, nullable=False),
    Column("cost_nanousd", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("records", LargeBinary, nullable=False),
    Index(None, "last_id", "session"),
)

# The head of each session's chain: how far its journal is shipped (`position`, in records), its entries, their last hash and
# their sum; what was pruned of them; and the session that was registered before it, which its first hash names.
ledger_sessions = Table(
    "ledger_sessions",
    metadata,
    Column("session", Text, primary_key=True),
    Column("after", Text),
    Column("position", BigInteger, nullable=False),
    Column("entries", BigInteger, nullable=False),
    Column("last_hash", LargeBinary, nullable=False),
    Column("cost_nanousd", BigInteger, nullable=False),
    Column("first_day", Integer),
    Column("last_day", Integer),
    Column("closed_at", Double),
    Column("pruned_entries", BigInteger, nullable=False),
    Column("pruned_hash", LargeBinary),
    Column("pruned_cost_nanousd", BigInteger, nullable=False),
)

# What each session's calls have cost each account of money; a row has one writer. A lease store that lost its memory gets it back
# from here, and so does who ends a dead session.
account_charges = Table(
    "account_charges",
    metadata,
    Column("account", Text, primary_key=True),
    Column("session", Text, primary_key=True, index=True),
    Column("settled", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
    sqlite_with_rowid=False,
)


def _owner() -> list[Column[str]]:
    """Whose spend it is. What is unknown is an empty text: NULLs are never equal, so they cannot be summed up by key."""
    return [
        Column(name, Text, nullable=False) for name in ("org_id", "team_id", "user_id", "key_id", "model", "provider")
    ]


def _sums() -> list[Column[int]]:
    names = ("cost_nanousd", "requests", "input_tokens", "cached_tokens", "output_tokens")
    return [Column(name, BigInteger, nullable=False) for name in names]


# Sums of spend over the entries of one shipped group, until they are added to the rollup. Only ever appended and deleted.
spend_partials = Table(
    "spend_partials",
    metadata,
    Column("facet", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("day", Integer, nullable=False),
    Column("month", Integer, nullable=False),
    *_owner(),
    *_sums(),
)

# Every owner that the rollup knows, by a number: a row of the rollup is a quarter as long with it.
spend_owners = Table(
    "spend_owners",
    metadata,
    Column("id", Integer, primary_key=True),
    *_owner(),
    UniqueConstraint("org_id", "team_id", "user_id", "key_id", "model", "provider"),
)

# The sums by day (grain d) and by month (m, `day` is its first) over all owners, with 0 for one, and the same for each (od, om).
# Facet '' has every entry once; facet tag has an entry once for each of its tags, facet customer those with a customer.
spend_rollup = Table(
    "spend_rollup",
    metadata,
    Column("grain", Text, primary_key=True),
    Column("facet", Text, primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("label", Text, primary_key=True),
    Column("owner", Integer, primary_key=True, autoincrement=False),
    *_sums(),
    sqlite_with_rowid=False,
)


def _whose() -> list[Column[Any]]:
    """The key that made it; keys of the same team see it as well."""
    return [
        Column("key_id", Text, nullable=False, index=True),
        Column("team_id", Text, index=True),
        Column("org_id", Text),
    ]


# What clients keep here; the bytes lie in a folder (gateway.files.shelf) under the id.
files = Table(
    "files",
    metadata,
    Column("id", Text, primary_key=True),
    *_whose(),
    Column("purpose", Text, nullable=False),
    Column("filename", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, index=True),
)

# Files that come in parts, until `expires_at`. `keep_s` is how long the file is to be kept.
uploads = Table(
    "uploads",
    metadata,
    Column("id", Text, primary_key=True),
    *_whose(),
    Column("purpose", Text, nullable=False),
    Column("filename", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("mime_type", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("file_id", Text),
    Column("keep_s", Integer),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False, index=True),
)
upload_parts = Table(
    "upload_parts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("upload_id", Text, ForeignKey("uploads.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
)

# `moments` is when each state began. `outcome` is set once every line has its result and only files are left to be handed over.
# Who works on it has the lease: `owner` on the machine `host`, last heard of at `seen_at`; each owner has its own `epoch`.
batches = Table(
    "batches",
    metadata,
    Column("id", Text, primary_key=True),
    *_whose(),
    Column("endpoint", Text, nullable=False),
    Column("input_file_id", Text, nullable=False),
    Column("completion_window", Text, nullable=False),
    Column("status", Text, nullable=False, index=True),
    Column("outcome", Text),
    Column("moments", JSON, nullable=False),
    Column("metadata", JSON(none_as_null=True)),
    Column("errors", JSON(none_as_null=True)),
    Column("model", Text),
    Column("keep_s", Integer),
    Column("total", Integer, nullable=False),
    Column("completed", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("usage", JSON(none_as_null=True)),
    Column("output_file_id", Text),
    Column("error_file_id", Text),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("owner", Text),
    Column("host", Text),
    Column("seen_at", Double),
    Column("epoch", Integer, nullable=False),
)
