"""The database as this plane is given it: two kinds of transaction, and the little that SQLite and PostgreSQL do differently."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TypeVar

import msgspec
from sqlalchemy import Connection, text

T = TypeVar("T")


def no_file() -> None:
    """Of a database that is on a server, or in memory."""


class Database(msgspec.Struct, frozen=True):
    """`reading` sees one state of everything and writes nothing; `writing` is a transaction. On SQLite only one writes at a time.

    `bare` opens the file of one that is SQLite and has a file, to read; None for any other, and where nobody needs it.
    """

    reading: Callable[[], AbstractContextManager[Connection]]
    writing: Callable[[], AbstractContextManager[Connection]]
    bare: Callable[[], sqlite3.Connection | None] = no_file

    def read(self, work: Callable[[Connection], T]) -> T:
        with self.reading() as tx:
            return work(tx)

    def write(self, work: Callable[[Connection], T]) -> T:
        with self.writing() as tx:
            return work(tx)


def locked_for(tx: Connection, name: str) -> None:
    """Waits for other transactions that hold the same name, until this one ends. On SQLite one that writes is alone anyway."""
    if tx.dialect.name == "postgresql":
        tx.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})


def now(tx: Connection) -> float:
    """Unix seconds by the one clock that all replicas share."""
    if tx.dialect.name == "postgresql":
        return float(tx.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())
    return time.time()


def pieces(rows: list[T], size: int) -> Iterator[list[T]]:
    """Statements have a limited number of parameters."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
