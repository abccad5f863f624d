"""One engine and three kinds of transaction over SQLite or PostgreSQL.

`reading` sees one state of everything. `changing` is for the control state: its writers stand in line, so that revisions
are committed in the order of their numbers and a reader of the newest one has missed nothing. `appending` is for records,
which nobody edits.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import Any

from sqlalchemy import Connection, Engine, Insert, Table, create_engine, delete, event, insert, make_url, text
from sqlalchemy.pool import ConnectionPoolEntry

from gateway.tables import revisions

BUSY_TIMEOUT_S = 5
MAPPED_BYTES = 1 << 30
STATEMENT_TIMEOUT_S = 15
REVISIONS_KEPT = 1_000  # only the newest is read; the others tell a person what happened
NEWEST_REVISION = "SELECT coalesce(max(revision), 0) FROM revisions"
_CHANGE_LOCK = 7_365_627_001  # any constant: the name of the queue that PostgreSQL's writers of control state stand in


def connect(url: str) -> Engine:
    """An engine for `sqlite:///file` or `postgresql://…`. Nothing is opened before the first use."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(url)
    if parsed.drivername in {"postgres", "postgresql", "postgresql+psycopg"}:
        return _postgresql(parsed.set(drivername="postgresql+psycopg").render_as_string(hide_password=False))
    raise ValueError(f"database {parsed.drivername!r} is not supported: use sqlite:///FILE or postgresql://…")


def bare(engine: Engine) -> sqlite3.Connection | None:
    """The file of an SQLite database, to read, each statement for itself and from any thread that takes its turn. None for others."""
    file = engine.url.database
    if engine.dialect.name != "sqlite" or not file or file == ":memory:":
        return None
    opened = sqlite3.connect(file, 0.02, isolation_level=None, check_same_thread=False)
    opened.execute("PRAGMA query_only = ON")
    opened.execute(f"PRAGMA mmap_size = {MAPPED_BYTES}")  # a read is a copy then, and no call of the system
    return opened


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A read-only view of one moment, however many statements it takes."""
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with connection.begin():
            yield connection


@contextmanager
def changing(engine: Engine) -> Iterator[Connection]:
    """A transaction on the control state, one at a time over every process and replica."""
    with appending(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _CHANGE_LOCK})
        yield connection


@contextmanager
def appending(engine: Engine) -> Iterator[Connection]:
    """A transaction that writes. SQLite gives it the write lock at once: who has read before could not wait for it."""
    with engine.connect() as connection, connection.execution_options(penstock_write=True).begin():
        yield connection


def locked_for(tx: Connection, name: str) -> None:
    """Waits for other transactions that hold the same name; until this one ends. On SQLite a transaction that writes is alone anyway."""
    if tx.dialect.name == "postgresql":
        tx.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})


def now(tx: Connection) -> float:
    """Unix seconds by the one clock that all replicas share: the database's."""
    if tx.dialect.name == "postgresql":
        return float(tx.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())
    return time.time()


def inserting(dialect: str) -> Callable[[Table], Any]:
    """The `insert` of the database in use, which knows `ON CONFLICT`. The other one's dialect is 2.4 MB that stay on the disk."""
    made: Callable[[Table], Any] = import_module(f"sqlalchemy.dialects.{dialect}").insert
    return made


@cache
def adding(dialect: str, table: Table) -> Insert:
    """Of rows that are not there yet. Made once: to build a statement takes longer than to run it."""
    made: Insert = inserting(dialect)(table).on_conflict_do_nothing()
    return made


def record_revision(tx: Connection, subject: str) -> int:
    """Numbers a change of the control state; only inside `changing`, which keeps numbers in the order of commits."""
    revision = newest_revision(tx) + 1
    tx.execute(insert(revisions).values(revision=revision, at=time.time(), subject=subject))
    tx.execute(delete(revisions).where(revisions.c.revision <= revision - REVISIONS_KEPT))
    return revision


def newest_revision(tx: Connection) -> int:
    return int(tx.exec_driver_sql(NEWEST_REVISION).scalar_one())


def _sqlite(url: str) -> Engine:
    engine = create_engine(url, hide_parameters=True, pool_size=4, max_overflow=4, pool_timeout=BUSY_TIMEOUT_S)

    def opened(connection: Any, _entry: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # the driver must not open transactions behind our back: `began` does
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}")
        switch_to_wal(connection)
        for pragma in (
            "synchronous = FULL",  # a key that was revoked stays revoked after a power cut
            "foreign_keys = ON",
        ):
            connection.execute(f"PRAGMA {pragma}")

    def began(connection: Connection) -> None:
        write = connection.get_execution_options().get("penstock_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    event.listen(engine, "connect", opened)
    event.listen(engine, "begin", began)
    return engine


def switch_to_wal(connection: sqlite3.Connection) -> None:
    """Waits itself: of two connections that switch a fresh file at once, SQLite tells one `locked` without its busy timeout."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _postgresql(url: str) -> Engine:
    return create_engine(
        url,
        hide_parameters=True,
        pool_size=4,
        max_overflow=2,
        pool_timeout=BUSY_TIMEOUT_S,
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": 3,
            "tcp_user_timeout": STATEMENT_TIMEOUT_S * 1000,  # a network that swallows packets is a failure, not a wait
            "prepare_threshold": None,  # PgBouncer hands every transaction to another server session
            "options": f"-c statement_timeout={STATEMENT_TIMEOUT_S * 1000} -c lock_timeout={BUSY_TIMEOUT_S * 1000}"
            f" -c idle_in_transaction_session_timeout={2 * STATEMENT_TIMEOUT_S * 1000}",
        },
    )
