"""The little that SQLite and PostgreSQL do differently for this plane."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from sqlalchemy import Table


def inserting(dialect: str) -> Callable[[Table], Any]:
    """The `insert` of the database in use, which knows `ON CONFLICT`. The other one's dialect is 2.4 MB that stay on the disk."""
    made: Callable[[Table], Any] = import_module(f"sqlalchemy.dialects.{dialect}").insert
    return made
