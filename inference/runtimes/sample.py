"""Rows to try a model on: those that came with it, else ones made up from what its columns may hold."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from inference.errors import BadRequest
from inference.runtimes.arrays import DTYPES
from inference.signature import Column

GENERATED: Final = 256
MOST_ROWS: Final = 100_000
TRIED: Final = 2_000
_MISSING: Final = frozenset({"", "na", "nan", "null", "none"})

Table = Mapping[str, NDArray[Any]]


def of_rows(rows: Any) -> Table:
    """From JSON: a list of objects, of lists or of numbers, or an object of columns. Raises BadRequest."""
    try:
        if isinstance(rows, Mapping):
            return {
                str(name): _column(values if isinstance(values, list) else [values]) for name, values in rows.items()
            }
        if rows and isinstance(rows[0], Mapping):
            return {str(name): _column([row.get(name) for row in rows]) for name in rows[0]}
        array = np.asarray(rows, np.float64)
    except (ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise BadRequest(
            f"input_example: expected rows as objects or as lists of numbers ({error})",
            param="metadata.input_example",
            code="invalid_value",
        ) from error
    return {"": array.reshape(1, -1) if array.ndim == 1 else array}


def of_file(path: Path) -> Table:
    """A reference sample as Parquet or CSV, up to MOST_ROWS rows of it. Raises BadRequest."""
    with path.open("rb") as file:
        magic = file.read(4)
    return _parquet(path) if magic == b"PAR1" else _csv(path)


def kinds(table: Table) -> dict[str, str]:
    """Which columns hold text."""
    return {name: "BYTES" if array.dtype == object else "FP64" for name, array in table.items()}


def fitted(table: Table, inputs: Sequence[Column]) -> Table:
    """The columns that a model takes, in its types. Raises BadRequest where one is missing."""
    if len(inputs) == 1 and len(inputs[0].shape) > 1 and inputs[0].name not in table:
        return {inputs[0].name: _stacked(table, inputs[0])}
    made = {}
    positional = table.get("")
    for number, each in enumerate(inputs):
        if positional is not None and each.name not in table and number < positional.shape[1]:
            found = positional[:, number]
        elif each.name in table:
            found = table[each.name]
        else:
            raise BadRequest(
                f"The sample has no column '{each.name}'", param="metadata.input_example", code="invalid_value"
            )
        made[each.name] = _typed(found, each)
    return made


def generated(inputs: Sequence[Column], rows: int = GENERATED) -> Table:
    """Made up: within a column's range where it is known, else on every scale from a hundredth to ten thousand, with gaps where they
    may be. Always the same ones."""
    random = np.random.default_rng(20_261_128)
    return {each.name: _made_up(each, rows, random) for each in inputs}


def _made_up(column: Column, rows: int, random: np.random.Generator) -> NDArray[Any]:
    shape = (rows, *(size if size > 0 else 8 for size in column.shape[1:]))
    match column.datatype:
        case "BYTES":
            found = random.choice(np.array(column.categories or ("a", "b"), np.object_), shape)
        case "BOOL":
            found = random.random(shape) < 0.5
        case _ if column.minimum is not None and column.maximum is not None:
            found = random.uniform(column.minimum, column.maximum, shape)
        case kind if kind.startswith("FP"):
            scale = 10.0 ** random.integers(-2, 5, (rows, *([1] * (len(shape) - 1))))
            found = random.normal(size=shape) * scale
            found[random.random(shape) < 0.02] = 0.0
        case _:
            found = random.integers(0, 100, shape)
    found = np.asarray(found).astype(DTYPES[column.datatype])
    if column.nullable and column.datatype.startswith("FP"):
        found[random.random(shape) < 0.02] = np.nan
    return found


def _stacked(table: Table, column: Column) -> NDArray[Any]:
    found = table[""] if "" in table else np.column_stack([np.asarray(each, np.float64) for each in table.values()])
    want = column.shape[1:]
    size = int(np.prod([abs(each) for each in want]))
    if -1 not in want and int(np.prod(found.shape[1:])) != size:
        raise BadRequest(
            f"The sample has {int(np.prod(found.shape[1:]))} numbers in a row, and the model takes {size}",
            param="metadata.input_example",
            code="invalid_value",
        )
    return found.reshape(len(found), *want).astype(DTYPES[column.datatype])


def _typed(found: NDArray[Any], column: Column) -> NDArray[Any]:
    try:
        made = found.astype(DTYPES[column.datatype])
    except (ValueError, TypeError) as error:
        raise BadRequest(
            f"The sample's column '{column.name}' is no {column.datatype}: {error}",
            param="metadata.input_example",
            code="invalid_value",
        ) from error
    return made if len(column.shape) == 1 else made.reshape(len(made), *column.shape[1:])


def _column(values: Sequence[Any]) -> NDArray[Any]:
    if any(isinstance(each, str) for each in values):
        return np.array(["" if each is None else str(each) for each in values], np.object_)
    return np.array([np.nan if each is None else each for each in values], np.float64)


def _csv(path: Path) -> Table:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            names = next(reader, [])
            rows = [row for row, _ in zip(reader, range(MOST_ROWS), strict=False) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(error) from error
    if not names or not rows or any(len(row) != len(names) for row in rows):
        raise _unreadable("every row needs as many cells as the first has names, and there must be one row at least")
    return {name: _cells([row[number] for row in rows]) for number, name in enumerate(names)}


def _cells(cells: Sequence[str]) -> NDArray[Any]:
    try:
        return np.array([np.nan if each.strip().lower() in _MISSING else float(each) for each in cells], np.float64)
    except ValueError:
        return np.array(cells, np.object_)


def _parquet(path: Path) -> Table:
    try:
        from pyarrow import parquet  # noqa: PLC0415 — large, and only for samples in Parquet
    except ImportError as error:
        raise BadRequest(
            "Samples in Parquet need pyarrow: install the extra `parquet`, or send CSV", param="reference"
        ) from error
    try:
        batches = parquet.ParquetFile(path).iter_batches(batch_size=MOST_ROWS)
        table = next(batches).to_pydict()
    except (OSError, ValueError, StopIteration) as error:
        raise _unreadable(error) from error
    return {str(name): _column(values) for name, values in table.items()}


def _unreadable(why: object) -> BadRequest:
    return BadRequest(f"The reference sample cannot be read: {why}", param="reference", code="invalid_value")
