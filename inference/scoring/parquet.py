"""Parquet, read by groups and written by chunks. The one module here that imports PyArrow."""

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Final, final

import pyarrow as pa
import pyarrow.parquet as pq

from inference.scoring.errors import Failed
from inference.scoring.sources import GROUP, Row, stat, unique
from inference.scoring.worksheet import Position
from inference.signature import DataType

TYPES: Final[dict[DataType, pa.DataType]] = {
    "BOOL": pa.bool_(),
    "UINT8": pa.uint8(),
    "UINT16": pa.uint16(),
    "UINT32": pa.uint32(),
    "UINT64": pa.uint64(),
    "INT8": pa.int8(),
    "INT16": pa.int16(),
    "INT32": pa.int32(),
    "INT64": pa.int64(),
    "FP16": pa.float32(),  # few readers know half precision
    "FP32": pa.float32(),
    "FP64": pa.float64(),
    "BYTES": pa.string(),
}


@final
class Parquet:
    """`inference.scoring.sources.Source`."""

    textual = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = stat(path)
        with self._file() as file:
            self.names = tuple(file.schema_arrow.names)
            self._rows = file.metadata.num_rows
        unique(self.names)

    def total(self) -> int:
        return int(self._rows)

    def fingerprint(self) -> Any:
        return self._seen

    def rows(self, after: Position) -> Generator[Row]:
        with self._file() as file:
            behind = after.rows
            for number in range(file.num_row_groups):
                size = file.metadata.row_group(number).num_rows
                if behind >= size:
                    behind -= size
                    continue
                try:
                    yield from self._group(file, number, behind)
                except pa.ArrowException as error:
                    raise Failed("input_invalid", f"The input is damaged: {error}") from error
                behind = 0

    def _group(self, file: pq.ParquetFile, number: int, behind: int) -> Iterator[Row]:
        for batch in file.iter_batches(GROUP, row_groups=[number]):
            if behind >= batch.num_rows:
                behind -= batch.num_rows
                continue
            columns = [column.to_pylist() for column in batch.slice(behind).columns]
            behind = 0
            for values in zip(*columns, strict=True):
                yield Row(values)

    def _file(self) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(self._path)
        except pa.ArrowException as error:
            raise Failed("input_invalid", f"The input is not Parquet: {error}") from error


@final
class Writer:
    """One row group for each call of `write`."""

    def __init__(self, path: Path, columns: dict[str, DataType]) -> None:
        self._schema = pa.schema([(name, TYPES[kind]) for name, kind in columns.items()])
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")

    def write(self, columns: list[list[Any]]) -> None:
        """Values by column."""
        arrays = [pa.array(values, each.type) for values, each in zip(columns, self._schema, strict=True)]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        self._writer.close()
