"""pgvector: a copy of an artefact's vectors as a table of PostgreSQL, with an HNSW index, that every replica can search.

A copy never changes. It is known by its collection and generation, and its rows by passage, so that a process whose own artefact is
older or newer can use it as far as they agree. Iterative scans, as a plain one answers filters short; plans made for the values at
hand, as a generic one takes the graph where a filter leaves ten rows; searches that hang are cut off. The version must be 0.8 or newer.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, final

import msgspec
import numpy as np
import psycopg
from psycopg import sql

from retrieval.index.guard import Guard, Watchdog
from retrieval.index.ports import EngineAway, Hits, Ids, NotMade, Rows, Vector
from retrieval.index.settings import EngineSettings, Quantization
from retrieval.index.slots import SlotsOf

SCHEMA: Final = "penstock_vectors"
LINKS: Final = 16
BUILD_EFFORT: Final = 128
TOGETHER: Final = 4096
LEAST_EFFORT: Final = (
    100  # a sample of questions does not show what a small one misses: its graph has fewer links between topics
)
MOST_EFFORT: Final = 1000  # what hnsw.ef_search may be
MOST_DIMENSIONS: Final = {"vector": 2000, "halfvec": 4000, "bit": 64_000}
NEEDED: Final = (0, 8)
IDLE: Final = 4  # connections that are kept
CONNECT_S: Final = 2
KEPT: Final = 1  # copies before the newest, for replicas that still search them

_HEAD: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END: Final = b"\xff\xff"


class Copy(msgspec.Struct, frozen=True):
    """What the artefact's file says: where its graph is."""

    table: str
    generation: int
    rows: int
    half: bool


@final
class Pgvector:
    """A `GraphEngine`. `url` as PostgreSQL has it."""

    name = "pgvector"

    def __init__(self, settings: EngineSettings, quantization: Quantization = "none") -> None:
        self._settings = settings
        self._binary = quantization == "binary"
        self._connections = Connections(_url(settings), settings.timeout_s)

    def build(self, rows: Rows, path: Path, collection_id: str, generation: int) -> None:
        try:
            with psycopg.connect(_url(self._settings), autocommit=True, connect_timeout=CONNECT_S) as connection:
                copy = self._made(connection, rows, collection_id, generation)
        except psycopg.Error as error:
            raise NotMade(f"PostgreSQL: {str(error).partition(chr(10))[0]}") from error
        path.write_bytes(msgspec.json.encode(copy))

    def load(self, path: Path, rows: Rows) -> "PgvectorGraph":
        copy = msgspec.json.decode(path.read_bytes(), type=Copy)
        return PgvectorGraph(self._connections, copy, rows, binary=self._binary)

    def drop(self, collection_id: str) -> None:
        with self._connections.guard.call(), self._connections.one() as connection:
            if not _there(connection):
                return
            _drop(connection, collection_id, None)

    def close(self) -> None:
        self._connections.close()

    def _made(self, connection: psycopg.Connection[Any], rows: Rows, collection_id: str, generation: int) -> Copy:
        """One builder at a time; a copy that another replica made of the same or a later generation is as good."""
        kind = "halfvec" if self._settings.half else "vector"
        dimensions = rows.vectors.shape[1]
        indexed = "bit" if self._binary else kind
        if dimensions > MOST_DIMENSIONS[indexed]:
            raise NotMade(
                f"pgvector indexes {MOST_DIMENSIONS[indexed]} dimensions of {indexed} at most, not {dimensions}"
            )
        _prepare(connection)
        connection.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (f"{SCHEMA}.{collection_id}",))
        found = connection.execute(
            sql.SQL(
                "SELECT name, generation, rows, half FROM {} WHERE collection_id = %s AND generation >= %s "
                "AND bits = %s AND to_regclass(format('%%I.%%I', %s::text, name)) IS NOT NULL ORDER BY generation DESC LIMIT 1"
            ).format(_copies()),
            (collection_id, generation, self._binary, SCHEMA),
        ).fetchone()
        if found is not None:
            return Copy(*found)
        copy = Copy(f"{collection_id}_{generation}", generation, len(rows.ids), self._settings.half)
        table = sql.Identifier(SCHEMA, copy.table)
        connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table))
        connection.execute(
            sql.SQL("CREATE TABLE {} (id bigint PRIMARY KEY, document bigint NOT NULL, v {} NOT NULL)").format(
                table, sql.SQL(f"{kind}({dimensions})")
            )
        )
        with (
            connection.cursor() as cursor,
            cursor.copy(sql.SQL("COPY {} FROM STDIN (FORMAT binary)").format(table)) as out,
        ):
            for part in _binary(rows, half=self._settings.half):
                out.write(part)
        connection.execute("SET maintenance_work_mem = '1GB'")
        # One core of the database: others, the ledger among them, live in it as well.
        connection.execute("SET max_parallel_maintenance_workers = 0")
        for statement in self._indexes(dimensions):
            connection.execute(statement.format(table))
        connection.execute(sql.SQL("ANALYZE {}").format(table))
        connection.execute(
            sql.SQL(
                "INSERT INTO {} VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (collection_id, generation) DO UPDATE "
                "SET name = excluded.name, rows = excluded.rows, half = excluded.half, bits = excluded.bits"
            ).format(_copies()),
            (collection_id, generation, copy.table, copy.rows, copy.half, self._binary),
        )
        _drop(connection, collection_id, generation)
        return copy

    def _indexes(self, dimensions: int) -> tuple[sql.SQL, ...]:
        if self._binary:
            by = f"(binary_quantize(v)::bit({dimensions})) bit_hamming_ops"
        else:
            by = "v halfvec_ip_ops" if self._settings.half else "v vector_ip_ops"
        options = f"m = {LINKS}, ef_construction = {BUILD_EFFORT}"
        return (
            sql.SQL("CREATE INDEX ON {} (document)"),
            sql.SQL("CREATE INDEX ON {} USING hnsw (" + by + ") WITH (" + options + ")"),
        )


@final
class PgvectorGraph:
    """Every score is made again from the vectors here, as what is kept there may have fewer bits."""

    engine = Pgvector.name
    filters = True
    inside = False
    coarse = True

    def __init__(self, connections: "Connections", copy: Copy, rows: Rows, *, binary: bool) -> None:
        self.rows, dimensions = rows.vectors.shape
        self._slots = SlotsOf(rows.ids)
        self.nbytes = self._slots.nbytes
        self.lost = False
        self._connections = connections
        self._query = {
            filtered: _searching(copy, dimensions, binary=binary, filtered=filtered) for filtered in (False, True)
        }

    def search(self, query: Vector, k: int, effort: int, documents: Ids | None = None) -> Hits:
        text = "[" + ",".join(map(str, query.tolist())) + "]"
        values: dict[str, object] = {"query": text, "k": k, "effort": str(max(LEAST_EFFORT, min(MOST_EFFORT, effort)))}
        if documents is not None:
            values["documents"] = documents.tolist()
        rows: list[tuple[int]] = []
        with self._connections.guard.call():
            try:
                rows = self._asked(values)
            except psycopg.errors.UndefinedTable:
                self.lost = True
        if self.lost:
            raise EngineAway("the copy is gone")
        slots = self._slots(np.fromiter((id_ for (id_,) in rows), np.int64, len(rows)))
        return Hits(slots, np.zeros(len(slots), np.float32))

    def _asked(self, values: Mapping[str, object]) -> list[tuple[int]]:
        with self._connections.one() as connection:
            with connection.pipeline():
                connection.execute("SELECT set_config('hnsw.ef_search', %(effort)s, false)", values)
                found = connection.execute(self._query["documents" in values], values)
            return found.fetchall()

    def ready(self, timeout_s: float) -> bool:
        """At once."""
        del timeout_s
        return True

    def close(self) -> None:
        """Its connections are the engine's."""


@final
class Connections:
    """To one database, for any thread. A search that takes longer than the deadline loses its connection."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._idle: list[psycopg.Connection[Any]] = []
        self._turn = threading.Lock()
        self._watchdog = Watchdog()
        self.guard = Guard("pgvector", (psycopg.Error, OSError))

    @contextmanager
    def one(self) -> Iterator[psycopg.Connection[Any]]:
        """Raises psycopg.Error."""
        with self._turn:
            connection = self._idle.pop() if self._idle else None
        connection = connection or self._opened()
        try:
            with self._watchdog.within(self._timeout_s, _cutter(connection)):
                yield connection
        except BaseException:
            connection.close()
            raise
        with self._turn:
            kept = len(self._idle) < IDLE
            if kept:
                self._idle.append(connection)
        if not kept:
            connection.close()

    def close(self) -> None:
        with self._turn:
            for connection in self._idle:
                connection.close()
            self._idle.clear()

    def _opened(self) -> psycopg.Connection[Any]:
        limit_ms = int(self._timeout_s * 1000)
        options = (
            f"-c statement_timeout={limit_ms} -c jit=off -c plan_cache_mode=force_custom_plan "
            "-c hnsw.iterative_scan=relaxed_order -c hnsw.max_scan_tuples=40000 -c hnsw.scan_mem_multiplier=4"
        )
        began = time.monotonic()
        connection = psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=max(1, min(CONNECT_S, round(self._timeout_s))),
            prepare_threshold=None,  # PgBouncer hands every transaction to another server session
            options=options,
        )
        if time.monotonic() - began > 2 * self._timeout_s + CONNECT_S:
            connection.close()
            raise EngineAway("it took too long to connect")
        return connection


def _cutter(connection: psycopg.Connection[Any]) -> Callable[[], None]:
    def cut() -> None:
        with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as same:
            same.shutdown(socket.SHUT_RDWR)

    return cut


def _searching(copy: Copy, dimensions: int, *, binary: bool, filtered: bool) -> sql.Composed:
    where = "WHERE document = ANY(%(documents)s) " if filtered else ""
    if binary:
        by = f"binary_quantize(v)::bit({dimensions}) <~> binary_quantize(%(query)s::{'halfvec' if copy.half else 'vector'})"
    else:
        by = f"v <#> %(query)s::{'halfvec' if copy.half else 'vector'}({dimensions})"
    return sql.SQL("SELECT id FROM {} " + where + "ORDER BY " + by + " LIMIT %(k)s").format(  # noqa: S608 — constants
        sql.Identifier(SCHEMA, copy.table)
    )


def _binary(rows: Rows, *, half: bool) -> Iterator[bytes]:
    """The rows as `COPY … (FORMAT binary)` takes them, thousands at a time."""
    dimensions = rows.vectors.shape[1]
    number = ">f2" if half else ">f4"
    fields = [("fields", ">i2"), ("l1", ">i4"), ("id", ">i8"), ("l2", ">i4"), ("document", ">i8"), ("l3", ">i4")]
    row = np.dtype([*fields, ("dimensions", ">i2"), ("unused", ">i2"), ("v", number, (dimensions,))])
    yield _HEAD
    for start in range(0, len(rows.ids), TOGETHER):
        part = slice(start, start + TOGETHER)
        out = np.zeros(len(rows.ids[part]), row)
        out["fields"], out["l1"], out["l2"] = 3, 8, 8
        out["l3"] = 4 + dimensions * (2 if half else 4)
        out["id"], out["document"], out["dimensions"] = rows.ids[part], rows.documents[part], dimensions
        out["v"] = rows.vectors[part]
        yield out.tobytes()
    yield _END


def _prepare(connection: psycopg.Connection[Any]) -> None:
    """Raises NotMade."""
    connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    found = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    version = "" if found is None else str(found[0])
    if tuple(int(part) for part in version.split(".")[:2]) < NEEDED:
        raise NotMade(f"pgvector {version} answers filtered searches short; 0.8 or newer is needed")
    connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(SCHEMA)))
    connection.execute(
        sql.SQL(
            "CREATE TABLE IF NOT EXISTS {} (collection_id text, generation bigint, name text NOT NULL, rows bigint NOT NULL, "
            "half boolean NOT NULL, bits boolean NOT NULL, PRIMARY KEY (collection_id, generation))"
        ).format(_copies())
    )


def _there(connection: psycopg.Connection[Any]) -> bool:
    found = connection.execute("SELECT to_regclass(%s)", (f"{SCHEMA}.copies",)).fetchone()
    return found is not None and found[0] is not None


def _drop(connection: psycopg.Connection[Any], collection_id: str, newest: int | None) -> None:
    """All copies of a collection but the newest ones, or with None all of them."""
    known = connection.execute(
        sql.SQL("SELECT generation, name FROM {} WHERE collection_id = %s ORDER BY generation DESC").format(_copies()),
        (collection_id,),
    ).fetchall()
    for generation, name in known if newest is None else known[1 + KEPT :]:
        connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(SCHEMA, name)))
        connection.execute(
            sql.SQL("DELETE FROM {} WHERE collection_id = %s AND generation = %s").format(_copies()),
            (collection_id, generation),
        )


def _copies() -> sql.Identifier:
    return sql.Identifier(SCHEMA, "copies")


def _url(settings: EngineSettings) -> str:
    """As libpq reads it."""
    url = settings.pgvector_url or ""
    return url.replace("postgresql+psycopg://", "postgresql://", 1)
