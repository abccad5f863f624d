"""The schema's version: what the database has, what this release needs, and the way from one to the other.

Alembic costs more than half a second to import, so only an actual migration imports it. A start on an up-to-date schema
reads one row, and a fresh embedded database is made from the tables at once; a test shows that both ways end up the same.
"""

from pathlib import Path
from typing import Literal

from sqlalchemy import Column, Connection, Engine, MetaData, String, Table, insert, inspect, select, text

from admin.tables import metadata as admin_metadata
from gateway.database import appending, connect
from gateway.tables import metadata as gateway_metadata
from inference.fleet.tables import metadata as fleet_metadata
from inference.rollouts.tables import metadata as rollouts_metadata
from inference.tables import metadata as inference_metadata
from retrieval.tables import metadata as retrieval_metadata

State = Literal["empty", "behind", "head", "newer"]

_UPGRADE_LOCK = 7_365_627_002  # the queue of PostgreSQL's upgraders: replicas that start together take turns
_VERSION = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))


class SchemaError(Exception):
    """The database's schema is not the one that this release works with; the message names the way out."""


def prepare(engine: Engine) -> None:
    """Makes sure that the schema is right before serving: SQLite is brought up to date, PostgreSQL only checked.

    Raises SchemaError.
    """
    embedded = engine.dialect.name == "sqlite"
    match state(engine):
        case "head":
            return
        case "empty" if embedded:
            _create(engine)
        case "behind" if embedded:
            _upgrade(engine)
        case "empty":
            raise SchemaError("the database has no tables yet: run `penstock migrate` first")
        case "behind":
            raise SchemaError(
                f"the database is older than this release needs ({newest()}): run `penstock migrate` first"
            )
        case "newer":
            raise SchemaError(
                f"the database was migrated by a newer release than this one (which knows {newest()}): upgrade Penstock"
            )


def upgrade(url: str) -> None:
    """Brings the schema of any database to this release's. Raises SchemaError when it is newer."""
    engine = connect(url)
    try:
        if state(engine) == "newer":
            raise SchemaError(f"the database is newer than this release, which knows {newest()}: upgrade Penstock")
        _upgrade(engine)
    finally:
        engine.dispose()


def downgrade(url: str, version: str) -> None:
    """Back to an older version; `base` takes everything away."""
    engine = connect(url)
    try:
        _run(engine, "downgrade", version)
    finally:
        engine.dispose()


def state(engine: Engine) -> State:
    """What the schema is to this release. Tables without a version are half a schema: SchemaError."""
    with engine.connect() as connection:
        return _state(connection)


def current_is_head(engine: Engine) -> bool:
    return state(engine) == "head"


def newest() -> str:
    """The version that this release needs, by the names of the files: `0001_keys.py` is version 0001."""
    return max(_versions())


def folder() -> Path:
    """The migrations: inside the package when it was installed from a wheel, else at the root of the repository."""
    here = Path(__file__).parent
    found = [place for place in (here / "_migrations", here.parent / "migrations") if (place / "env.py").is_file()]
    if not found:
        raise SchemaError(f"the migrations are missing beside {here}: install Penstock again")
    return found[0]


def _state(connection: Connection) -> State:
    tables = set(inspect(connection).get_table_names())
    versions = connection.scalars(select(_VERSION.c.version_num)).all() if _VERSION.name in tables else []
    if not versions:
        ours = tables & {
            *gateway_metadata.tables,
            *admin_metadata.tables,
            *retrieval_metadata.tables,
            *inference_metadata.tables,
            *rollouts_metadata.tables,
            *fleet_metadata.tables,
        }
        if ours:
            raise SchemaError(
                f"the database has tables of ours without a version ({', '.join(sorted(ours))}): restore it"
            )
        return "empty"
    if list(versions) == [newest()]:
        return "head"
    return "behind" if set(versions) <= _versions() else "newer"


def _versions() -> set[str]:
    return {file.name.partition("_")[0] for file in (folder() / "versions").glob("[0-9]*_*.py")}


def _create(engine: Engine) -> None:
    """A fresh database: the tables as they are now, marked as of the newest version, in one transaction."""
    with appending(engine) as tx:
        if _state(tx) == "empty":  # another process may have been faster
            for metadata in (
                gateway_metadata,
                admin_metadata,
                retrieval_metadata,
                inference_metadata,
                rollouts_metadata,
                fleet_metadata,
                _VERSION.metadata,
            ):
                metadata.create_all(tx)
            tx.execute(insert(_VERSION).values(version_num=newest()))


def _upgrade(engine: Engine) -> None:
    _run(engine, "upgrade", "head")


def _run(engine: Engine, direction: Literal["upgrade", "downgrade"], version: str) -> None:
    """All steps in one transaction, one process at a time."""
    from alembic import command  # noqa: PLC0415 — half a second that only a migration pays
    from alembic.config import Config  # noqa: PLC0415 — as above

    config = Config()
    config.set_main_option("script_location", str(folder()).replace("%", "%%"))
    with appending(engine) as tx:
        if engine.dialect.name == "postgresql":
            tx.execute(text("SET LOCAL lock_timeout = 0"))
            tx.execute(text("SET LOCAL statement_timeout = 0"))
            tx.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _UPGRADE_LOCK})
        config.attributes["connection"] = tx
        (command.upgrade if direction == "upgrade" else command.downgrade)(config, version)
