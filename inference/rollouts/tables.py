"""Tables of rollouts and of feedback. Nothing refers to anything by a foreign key: what is said of a request outlives its record.

`rollouts.active` names the target while a rollout runs or pauses: unique, so that there is one at a time. `owner` and `seen_at` are the
lease of the process that looks after it. `restore` is what stood before it began.
"""

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Double,
    Index,
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

# `plan`, `position` and `evidence` are inference.rollouts.rollout's and gates'; `tally` is everything that was counted, as JSON.
rollouts = Table(
    "rollouts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("active", Text),
    Column("plan", JSON, nullable=False),
    Column("position", JSON, nullable=False),
    Column("evidence", JSON, nullable=False),
    Column("tally", LargeBinary, nullable=False),
    Column("restore", JSON, nullable=False),
    Column("owner", Text),
    Column("seen_at", Double),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("ended_at", Double),
    UniqueConstraint("active"),
)

# What one call of one arm came to. `seen` and `judged` are inference.rollouts.tally.Seen: of the call itself, and of what was said of it.
rollout_outcomes = Table(
    "rollout_outcomes",
    metadata,
    Column("rollout", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("arm", Text, primary_key=True),
    Column("at", Double, nullable=False),
    Column("seen", JSON, nullable=False),
    Column("judged", JSON(none_as_null=True)),
    Column("counted", Boolean, nullable=False, server_default=false()),
    Index(None, "rollout", "counted"),
    Index(None, "at"),
)

# What somebody said of an answer, a prediction or a search: `id` is that one's. One word per `source`; the last one counts. `number` sorts
# by when the first was said.
feedback = Table(
    "feedback",
    metadata,
    Column("id", Text, primary_key=True),
    Column("source", Text, primary_key=True),
    Column("number", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("label", JSON(none_as_null=True)),
    Column("score", Double),
    Column("comment", Text),
    Column("key_id", Text),
    Column("team_id", Text),
    Column("org_id", Text),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    UniqueConstraint("number"),
    Index(None, "updated_at"),
)
