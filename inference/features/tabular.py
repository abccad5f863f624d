"""Tables that come and go as CSV, Parquet or JSON, by column."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias

import msgspec

from inference.errors import Unavailable
from inference.features import writing
from inference.features.writing import Columns
from inference.serving.errors import BadInput
from inference.signature import Column

Format: TypeAlias = Literal["csv", "parquet", "json"]

MEDIA: Final[Mapping[str, Format]] = {
    "text/csv": "csv",
    "application/csv": "csv",
    "application/vnd.apache.parquet": "parquet",
    "application/x-parquet": "parquet",
    "application/parquet": "parquet",
    "application/json": "json",
}


class UnsupportedMedia(BadInput):
    status, code = 415, "unsupported_media_type"


def format_of(media: str) -> Format:
    """By a content type, JSON without one. Raises UnsupportedMedia."""
    kind = media.partition(";")[0].strip().lower()
    found = MEDIA.get(kind or "application/json")
    if found is None:
        raise UnsupportedMedia(
            f"'{kind[:80]}' is not read here: application/json, text/csv or application/vnd.apache.parquet",
            param="content-type",
        )
    return found


def read(body: bytes, form: Format, known: Sequence[Column]) -> tuple[Columns, int]:
    """`known`: the columns whose cells in CSV are read in their type; others stay text. JSON: `{"rows": [{…}, …]}`. Raises BadInput."""
    match form:
        case "csv":
            return _csv(body, {each.name: each for each in known})
        case "parquet":
            return _parquet(body)
        case "json":
            try:
                given = msgspec.json.decode(body)
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
                raise BadInput(f"The body is not JSON: {error}", code="invalid_json") from None
            if not isinstance(given, dict) or set(given) != {"rows"} or not isinstance(given["rows"], list):
                raise BadInput("Expected an object with `rows`, a list of objects", param="rows", code="invalid_body")
            return writing.by_row(given["rows"], "rows")


def write(columns: Columns, form: Format) -> bytes:
    """Raises Unavailable where Parquet cannot be written."""
    match form:
        case "csv":
            return _csv_of(columns)
        case "parquet":
            return _parquet_of(columns)
        case "json":
            names = list(columns)
            rows = [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]
            return msgspec.json.encode({"rows": rows})


def place(form: Format) -> Callable[[str, int], str]:
    """Of a value by its column and its row."""
    return lambda name, row: f"{'rows' if form == 'json' else form}[{row}].{name}"


def _csv(body: bytes, known: Mapping[str, Column]) -> tuple[Columns, int]:
    try:
        lines = [line for line in csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"The body is not CSV in UTF-8: {error}", code="invalid_csv") from None
    if not lines:
        raise BadInput("The body has no line with the names of the columns", code="invalid_csv")
    names, rows = lines[0], lines[1:]
    _unique(names)
    for number, row in enumerate(rows):
        if len(row) != len(names):
            where = f"csv[{number}]"
            raise BadInput(f"Invalid '{where}': {len(row)} cells, not {len(names)}", param=where, code="invalid_shape")
    from inference.serving.reading import cell  # noqa: PLC0415 — NumPy, which the admin plane does without until somebody writes rows

    made: dict[str, Sequence[Any]] = {}
    for index, name in enumerate(names):
        column = known.get(name)
        cells = [row[index] for row in rows]
        made[name] = cells if column is None else [cell(column, text) for text in cells]
    return made, len(rows)


def _parquet(body: bytes) -> tuple[Columns, int]:
    pyarrow = _arrow()
    try:
        table = pyarrow.parquet.read_table(io.BytesIO(body))
        _unique(table.column_names)
        return {name: table[name].to_pylist() for name in table.column_names}, table.num_rows
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"The body is not Parquet: {error}", code="invalid_parquet") from None


def _csv_of(columns: Columns) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        writer.writerow([_text(value) for value in row])
    return out.getvalue().encode()


def _parquet_of(columns: Columns) -> bytes:
    pyarrow = _arrow()
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({name: list(values) for name, values in columns.items()}), out)
    return out.getvalue()


def _text(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
    if isinstance(value, list | dict):
        return msgspec.json.encode(value).decode()
    return "" if value is None else value


def _unique(names: Sequence[str]) -> None:
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if twice is not None:
        raise BadInput(f"The column '{twice}' comes twice", param=twice, code="duplicate_feature")


def _arrow() -> Any:
    try:
        import pyarrow.parquet  # noqa: PLC0415 — for those who have it
    except ImportError as error:
        raise Unavailable("Parquet needs pyarrow: install the extra `parquet`") from error
    return pyarrow
