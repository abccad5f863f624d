"""The little that SQLite and PostgreSQL do differently for this plane."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from sqlalchemy import Connection, Table


def inserting(tx: Connection) -> Callable[[Table], Any]:
    """The `insert` of the database in use, which knows `ON CONFLICT`. The other one's dialect is 2.4 MB that stay on the disk."""
    made: Callable[[Table], Any] = import_module(f"sqlalchemy.dialects.{tx.dialect.name}").insert
    return made
