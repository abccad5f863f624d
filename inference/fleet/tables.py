"""The tables of engines: what is declared and wished, what the process that runs them says of them, and who uses them."""

from sqlalchemy import JSON, BigInteger, Boolean, Column, Double, Integer, MetaData, Table, Text, false

NAMES = {"pk": "pk_%(table_name)s", "ix": "ix_%(table_name)s_%(column_0_N_name)s"}
metadata = MetaData(naming_convention=NAMES)

# `wish`: run, stop or sleep; `turn` counts restarts that somebody asked for; `called_at`: a request wanted it while it was not there.
engines = Table(
    "engines",
    metadata,
    Column("name", Text, primary_key=True),
    Column("spec", JSON, nullable=False),
    Column("origin", Text, nullable=False),
    Column("seed_hash", Text),
    Column("edited", Boolean, nullable=False, server_default=false()),
    Column("wish", Text, nullable=False, server_default="run"),
    Column("turn", Integer, nullable=False, server_default="0"),
    Column("called_at", Double),
    Column("state", JSON(none_as_null=True)),
    Column("state_at", Double),
    Column("deleted_at", Double),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
)

# What each serving process says of its calls: how many run at which deployment, when an engine was last asked, up to which revision.
engine_users = Table(
    "engine_users",
    metadata,
    Column("worker", Text, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("running", JSON, nullable=False),
    Column("used", JSON, nullable=False),
    Column("at", Double, nullable=False),
)
