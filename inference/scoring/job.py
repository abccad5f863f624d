"""A scoring job as it is written down: what is to be scored, by which version, how far it is, and who works on it."""

from typing import Final, Literal

import msgspec

State = Literal["queued", "running", "paused", "completed", "failed", "cancelled"]
Format = Literal["csv", "parquet", "sql"]

OPEN: Final[tuple[State, ...]] = ("queued", "running")
KEPT: Final[tuple[State, ...]] = (*OPEN, "paused")  # what was scored is still there


class Place(msgspec.Struct, frozen=True):
    """A file (`path`), or a database by the name that the configuration gives it: `query` to read, `table` to write."""

    format: Format
    path: str | None = None
    database: str | None = None
    query: str | None = None
    table: str | None = None


class Spec(msgspec.Struct, frozen=True):
    """`key`: the column that names a row; without one, rows are numbered from 1. `features`: the columns of a model that takes one
    tensor, in order. `refused`: the file for rows that the model does not take; `max_refused`: their share beyond which the job fails.
    `key_id`: the key whose account it is on, if it is on any.
    """

    input: Place
    output: Place
    refused: str
    key: str | None = None
    features: tuple[str, ...] | None = None
    chunk_rows: int = 1000
    max_refused: float = 0.1
    key_id: str | None = None


class Count(msgspec.Struct, frozen=True):
    """Rows: `done` are those looked at, `refused` among them."""

    total: int | None = None
    done: int = 0
    refused: int = 0


class Job(msgspec.Struct, frozen=True):
    """`home`: the data folder that it belongs to, where its worksheet is. Times are Unix seconds."""

    id: str
    home: str
    model: str
    version: int
    spec: Spec
    state: State
    count: Count
    code: str | None
    message: str | None
    attempts: int
    owner: str | None
    host: str | None
    seen_at: float | None
    epoch: int
    created_by: str
    created_at: float
    started_at: float | None
    ended_at: float | None


class Owner(msgspec.Struct, frozen=True):
    """A process that scores; `host` is the kernel that it runs on."""

    id: str
    host: str
