"""The table that is to be scored, row by row from any place on: a CSV file, a Parquet file, or what a SELECT gives."""

import csv
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from sqlalchemy import Connection, Engine, TextClause, bindparam, create_engine, event, make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from inference.scoring.errors import Failed
from inference.scoring.job import Spec
from inference.scoring.worksheet import Position

GROUP: Final = 1000  # rows that a query or a file gives at once


class Row(NamedTuple):
    """Values in the order of the table's columns; none if the row itself is broken, for the reason in `fault`."""

    values: Sequence[Any]
    fault: str | None = None


class Source(Protocol):
    """`textual`: its values are text whatever they mean. All of it raises Failed."""

    names: tuple[str, ...]
    textual: bool

    def total(self) -> int:
        """Rows in it."""

    def fingerprint(self) -> Any:
        """Differs when the table has been changed; None where that cannot be told."""

    def rows(self, after: Position) -> Generator[Row]:
        """What is not behind `after` yet."""


def open_source(spec: Spec, databases: Mapping[str, str]) -> Source:
    """Raises Failed."""
    place = spec.input
    if place.format == "sql":
        return Query(database_url(databases, place.database), place.query or "", spec.key or "")
    try:
        path = Path(place.path or "")
        return Csv(path) if place.format == "csv" else _parquet(path)
    except OSError as error:
        raise Failed("input_unreadable", f"The input cannot be read: {error.strerror or error}") from error


class Csv:
    """In UTF-8, with the names in its first line. A line of another length is a broken row."""

    textual = True

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = stat(path)
        self.names = tuple(next(self._lines(), ()))
        if not self.names:
            raise Failed("input_invalid", "The input has no line with the names of the columns")
        unique(self.names)

    def total(self) -> int:
        return sum(1 for _ in self._lines()) - 1

    def fingerprint(self) -> Any:
        return self._seen

    def rows(self, after: Position) -> Generator[Row]:
        width = len(self.names)
        for line in islice(self._lines(), after.rows + 1, None):
            yield Row(line) if len(line) == width else Row(line, f"{len(line)} cells, not {width}")

    def _lines(self) -> Iterator[list[str]]:
        number = 0
        try:
            with self._path.open(encoding="utf-8-sig", newline="") as file:
                for line in csv.reader(file, strict=True):
                    if line:
                        number += 1
                        yield line
        except (UnicodeDecodeError, csv.Error) as error:
            raise Failed(
                "input_invalid", f"The input is not CSV in UTF-8, after row {max(0, number - 1)}: {error}"
            ) from error
        except OSError as error:
            raise Failed("input_unreadable", f"The input cannot be read: {error.strerror or error}") from error


def _parquet(path: Path) -> Source:
    try:
        from inference.scoring.parquet import Parquet  # noqa: PLC0415 — PyArrow, for those who have it
    except ImportError as error:
        raise Failed("runtime_unavailable", f"Parquet needs {error.name}: install the extra `parquet`") from error
    return Parquet(path)


class Query:
    """A SELECT by a name of the configuration, in a transaction that may only read, ordered by its key: so it can go on after any row."""

    textual = False

    def __init__(self, url: str, query: str, key: str) -> None:
        self._engine = reading_engine(url)
        self._query = query.strip().rstrip(";").replace(":", "\\:")  # `:name` is not ours to fill
        none = f"SELECT * FROM ({self._query}) AS penstock_rows WHERE 1 = 0"  # noqa: S608 — as below
        with self._run(none) as found:
            self.names = tuple(found.keys())
        unique(self.names)
        if key not in self.names:
            raise Failed("missing_key", f"The query gives no column '{key}': rows of a query need a key")
        self._key = self._engine.dialect.identifier_preparer.quote_identifier(key)
        self._index = self.names.index(key)

    def total(self) -> int:
        inner = f"FROM ({self._query}) AS penstock_rows"
        with self._run(f"SELECT count(*), count({self._key}) {inner}") as found:
            rows, keyed = found.one()
        if rows != keyed:
            raise Failed("missing_key", f"{rows - keyed} rows of the query have no key")
        return int(rows)

    def fingerprint(self) -> Any:
        return None

    def rows(self, after: Position) -> Generator[Row]:
        where = f"WHERE {self._key} >= :last " if after.rows else ""
        sql = text(f"SELECT * FROM ({self._query}) AS penstock_rows {where}ORDER BY {self._key}")  # noqa: S608 — the admin's own query, read-only
        if after.rows:
            sql = sql.bindparams(bindparam("last", after.last))
        with self._run(sql) as found:
            for row in islice(found, after.ties, None):
                yield Row(tuple(row))

    @contextmanager
    def _run(self, sql: str | TextClause) -> Iterator[Any]:
        try:
            with (
                self._engine.connect() as connection,
                _streamed(connection, text(sql) if isinstance(sql, str) else sql) as found,
            ):
                yield found
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
            raise Failed("input_unreadable", f"The query failed: {reason}") from error


def _streamed(connection: Connection, sql: TextClause) -> Any:
    return connection.execution_options(stream_results=True, yield_per=GROUP).execute(sql)


def reading_engine(url: str) -> Engine:
    """Its transactions cannot write, whatever they are told. Raises Failed."""
    engine = engine_of(url)
    if engine.dialect.name == "postgresql":
        return engine.execution_options(postgresql_readonly=True)

    def began(connection: Any, _record: object) -> None:
        with closing(connection.cursor()) as cursor:
            cursor.execute("PRAGMA query_only = ON")

    event.listen(engine, "connect", began)
    return engine


def engine_of(url: str) -> Engine:
    """SQLite or PostgreSQL. Raises Failed."""
    try:
        parsed = make_url(url)
    except SQLAlchemyError:
        raise Failed("database_invalid", "The URL of the database cannot be read") from None
    match parsed.get_backend_name():
        case "sqlite":
            if parsed.database and not os.path.exists(parsed.database):  # noqa: PTH110 — as SQLite reads it
                raise Failed("database_invalid", "There is no such file of SQLite")
            return create_engine(parsed, hide_parameters=True, poolclass=NullPool)
        case "postgresql" | "postgres":
            return create_engine(parsed.set(drivername="postgresql+psycopg"), hide_parameters=True, poolclass=NullPool)
        case other:
            raise Failed("database_invalid", f"A database of {other} is not supported: SQLite or PostgreSQL")


def database_url(databases: Mapping[str, str], name: str | None) -> str:
    url = databases.get(name or "")
    if url is None:
        raise Failed(
            "database_unknown", f"The configuration names no database '{name}' in predictions.scoring.databases"
        )
    return url


def unique(names: Sequence[str]) -> None:
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if twice is not None:
        raise Failed("input_invalid", f"The column '{twice}' comes twice")


def stat(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]
