"""Tables of this plane: models with their versions, the names that lead to a version, who approved what, what was predicted, and monitors.

A version never changes but for its words (description, tags) and whether it is archived. Every change of what can be served gives its
model the number of the revision that it was made in, so that a reader loads what is newer than what it has.
"""

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

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# `newest` is the last number given away: that of a deleted version is not given again. `gates`: approvals that an alias needs.
classic_models = Table(
    "classic_models",
    metadata,
    Column("name", Text, primary_key=True),
    Column("description", Text),
    Column("tags", JSON, nullable=False),
    Column("gates", JSON, nullable=False),
    Column("newest", Integer, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
)

# `digest` and `runtime` are of what is served, `source` of what was given; they differ where a model was converted.
classic_versions = Table(
    "classic_versions",
    metadata,
    Column("model", Text, ForeignKey("classic_models.name", ondelete="CASCADE"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("runtime", Text, nullable=False),
    Column("digest", Text, nullable=False, index=True),
    Column("bytes", BigInteger, nullable=False),
    Column("source", JSON, nullable=False),
    Column("source_digest", Text, nullable=False, index=True),
    Column("signature", JSON, nullable=False),
    Column("facts", JSON, nullable=False),
    Column("lineage", JSON, nullable=False),
    Column("profile", JSON(none_as_null=True)),
    Column("bundle", Text, nullable=False, index=True),
    Column("description", Text),
    Column("tags", JSON, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("archived_at", Double),
)

classic_aliases = Table(
    "classic_aliases",
    metadata,
    Column("model", Text, primary_key=True),
    Column("alias", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("set_by", Text, nullable=False),
    Column("set_at", Double, nullable=False),
    ForeignKeyConstraint(["model", "version"], ["classic_versions.model", "classic_versions.version"]),
)

classic_approvals = Table(
    "classic_approvals",
    metadata,
    Column("id", Text, primary_key=True),
    Column("model", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("alias", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("comment", Text),
    Column("at", Double, nullable=False),
    UniqueConstraint("model", "version", "alias", "actor"),
    ForeignKeyConstraint(
        ["model", "version"], ["classic_versions.model", "classic_versions.version"], ondelete="CASCADE"
    ),
)

# `inputs` and `outputs` are JSON, lists of values by column; null where they were too large. `rollout` as in the table of rollouts.
predictions = Table(
    "predictions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("at", Double, nullable=False),
    Column("model", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("arm", Text, nullable=False),
    Column("rollout", Text),
    Column("key_id", Text, nullable=False),
    Column("team_id", Text),
    Column("org_id", Text),
    Column("error", Text),
    Column("valid", Boolean, nullable=False),
    Column("latency_s", Double, nullable=False),
    Column("cost_nanousd", BigInteger, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("inputs", Text),
    Column("outputs", Text),
    Index(None, "model", "at"),
    Index(None, "at"),
)

# `home`: the data folder that holds the job's worksheet. `spec` as `inference.scoring.job.Spec`; `seen_at` by the database's clock.
scoring_jobs = Table(
    "scoring_jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("home", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("spec", JSON, nullable=False),
    Column("state", Text, nullable=False),
    Column("rows_total", BigInteger),
    Column("rows_done", BigInteger, nullable=False),
    Column("rows_refused", BigInteger, nullable=False),
    Column("code", Text),
    Column("message", Text),
    Column("attempts", Integer, nullable=False),
    Column("owner", Text),
    Column("host", Text),
    Column("seen_at", Double),
    Column("epoch", Integer, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("ended_at", Double),
    Index("ix_scoring_jobs_home_state", "home", "state"),
)

# `number` is that of the revision in which a view was made. `entities` and `features` are columns as `inference.signature.Column`.
# `origin` to `deleted_at` are of views that a file declares, as in `gateway.tables.models`.
feature_views = Table(
    "feature_views",
    metadata,
    Column("name", Text, primary_key=True),
    Column("number", BigInteger, nullable=False, unique=True),
    Column("entities", JSON, nullable=False),
    Column("features", JSON, nullable=False),
    Column("source", JSON, nullable=False),
    Column("ttl_s", Double),
    Column("missing", Text, nullable=False),
    Column("defaults", JSON, nullable=False),
    Column("version", Integer, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("description", Text),
    Column("tags", JSON, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("origin", Text),
    Column("seed_hash", Text),
    Column("edited", Boolean, nullable=False, server_default=false()),
    Column("deleted_at", Double),
)

# The newest row of each entity: what a prediction reads, by one look into one tree. `features` is JSON by name, `entity` a JSON array;
# times are microseconds since 1970, of the event and of the write.
feature_latest = Table(
    "feature_latest",
    metadata,
    Column("view", BigInteger, primary_key=True, autoincrement=False),
    Column("entity", Text, primary_key=True),
    Column("event_us", BigInteger, nullable=False),
    Column("written_us", BigInteger, nullable=False),
    Column("features", Text, nullable=False),
    sqlite_with_rowid=False,
)

# Every row that there ever was, for training sets.
feature_history = Table(
    "feature_history",
    metadata,
    Column("view", BigInteger, primary_key=True, autoincrement=False),
    Column("entity", Text, primary_key=True),
    Column("event_us", BigInteger, primary_key=True, autoincrement=False),
    Column("written_us", BigInteger, nullable=False),
    Column("features", Text, nullable=False),
    sqlite_with_rowid=False,
)

# `subject`: the id of what is watched. The rest is the baseline: `corpus` and `queries` are vectors of 16-bit numbers in rows of
# `dimensions`, of that `version` of the subject's vectors; `after`: the newest passage that has been looked at. No text is kept.
monitors = Table(
    "monitors",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("terms", JSON, nullable=False),
    Column("version", Integer),
    Column("dimensions", Integer),
    Column("corpus", LargeBinary),
    Column("after", BigInteger, nullable=False, server_default="0"),
    Column("queries", LargeBinary),
    Column("created_at", Double, nullable=False),
)

# `findings`: inference.monitors.monitor.Finding of each column. `number` counts the windows of a monitor.
monitor_windows = Table(
    "monitor_windows",
    metadata,
    Column("monitor", Text, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("stream", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("since", Double, nullable=False),
    Column("until", Double, nullable=False),
    Column("findings", JSON, nullable=False),
)
