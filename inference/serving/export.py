"""Captured predictions as Parquet, one file a day (UTC), for whoever trains and analyses elsewhere."""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import Connection

from inference.serving.capture_store import between

GROUP: Final = 10_000  # rows of a row group, and in memory
SCHEMA: Final = pa.schema(
    [
        ("id", pa.string()),
        ("at", pa.timestamp("us", tz="UTC")),
        ("model", pa.string()),
        ("version", pa.int32()),
        ("arm", pa.string()),
        ("rollout", pa.string()),
        ("key_id", pa.string()),
        ("team_id", pa.string()),
        ("org_id", pa.string()),
        ("error", pa.string()),
        ("valid", pa.bool_()),
        ("latency_s", pa.float64()),
        ("cost_nanousd", pa.int64()),
        ("rows", pa.int32()),
        ("inputs", pa.string()),  # JSON: models differ in their columns
        ("outputs", pa.string()),
    ]
)


def write_days(tx: Connection, folder: Path, since: float, until: float, model: str | None) -> list[Path]:
    """`predictions-2026-11-28.parquet` and so on; a file that was there is replaced as a whole."""
    folder.mkdir(parents=True, exist_ok=True)
    days = groupby(between(tx, since, until, model), key=lambda row: _moment(row["at"]).date().isoformat())
    return [_write(folder / f"predictions-{day}.parquet", rows) for day, rows in days]


def _write(path: Path, rows: Iterator[dict[str, Any]]) -> Path:
    fresh = path.with_suffix(".new")
    with pq.ParquetWriter(fresh, SCHEMA, compression="zstd") as writer:
        while group := list(islice(rows, GROUP)):
            for row in group:
                row["at"] = _moment(row["at"])
            writer.write_table(pa.Table.from_pylist(group, SCHEMA))
    return fresh.replace(path)


def _moment(unix: float) -> datetime:
    return datetime.fromtimestamp(unix, UTC)
