"""A worksheet as the output that was asked for: all of it or nothing, and the same bytes whenever it is written again."""

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from inference.scoring.errors import Failed
from inference.scoring.job import Job
from inference.scoring.sources import database_url, engine_of
from inference.scoring.worksheet import Answers, Worksheet
from inference.signature import DataType, Signature

ROW: Final = "row"  # the column of keys where rows are numbered
AT_ONCE: Final = 500


class Output(NamedTuple):
    """A column of the output: the `place`th of what `name` gives, or all of it."""

    title: str
    name: str
    datatype: DataType
    place: int | None


class Layout(NamedTuple):
    key: str
    key_type: DataType
    outputs: tuple[Output, ...]

    @property
    def columns(self) -> dict[str, DataType]:
        return {self.key: self.key_type, **{each.title: each.datatype for each in self.outputs}}


def layout(worksheet: Worksheet, signature: Signature, key: str | None) -> Layout:
    """Scalars are one column each, vectors one for each element: `probabilities_0`, `probabilities_1`, … Raises Failed."""
    whole = all(type(each) is int for answers in worksheet.answers() for each in answers.keys)
    first = next((answers.outputs for answers in worksheet.answers() if answers.keys), {})
    outputs: list[Output] = []
    for column in signature.outputs:
        given = first.get(column.name)
        if given is None and (first or not column.required):
            continue
        if column.shape[1:] == (1,):
            outputs.append(Output(column.name, column.name, column.datatype, 0))
            continue
        if len(column.shape) == 1:
            outputs.append(Output(column.name, column.name, column.datatype, None))
            continue
        width = len(_flat(given[0])) if given else max(0, column.shape[1])
        outputs += [Output(f"{column.name}_{index}", column.name, column.datatype, index) for index in range(width)]
    title = key or ROW
    while any(title == each.title for each in outputs):
        title += "_key"
    return Layout(title, "INT64" if whole else "BYTES", tuple(outputs))


@contextmanager
def output(job: Job, worksheet: Worksheet, found: Layout, databases: Mapping[str, str]) -> Iterator[Callable[[], None]]:
    """Writes all of it, and gives what makes it the output. Raises Failed.

    A file is replaced as a whole when that is called; of a table, what this job has written before is replaced at once.
    """
    place = job.spec.output
    if place.format == "sql":
        _write_table(job, worksheet, found, database_url(databases, place.database))
        yield lambda: None
        return
    target = Path(place.path or "")
    fresh = target.with_name(f".{target.name}.{job.id}")
    try:
        if place.format == "csv":
            _write_csv(fresh, worksheet, found)
        else:
            _write_parquet(fresh, worksheet, found)
        _keep(fresh)
        yield lambda: _rename(fresh, target)
    except OSError as error:
        raise Failed("output_unwritable", f"The output cannot be written: {error.strerror or error}") from error
    finally:
        fresh.unlink(missing_ok=True)


def write_refused(job: Job, worksheet: Worksheet) -> None:
    """JSON lines, also if there are none. Raises Failed."""
    target = Path(job.spec.refused)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(f".{target.name}.{job.id}")
        with fresh.open("wb") as file:
            for each in worksheet.refusals():
                file.write(msgspec.json.encode(each) + b"\n")
        _keep(fresh)
        _rename(fresh, target)
    except OSError as error:
        raise Failed(
            "output_unwritable", f"The file of refused rows cannot be written: {error.strerror or error}"
        ) from error


def _keep(path: Path) -> None:
    """On the disk before it has its name."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _rename(fresh: Path, target: Path) -> None:
    fresh.replace(target)


def _write_csv(path: Path, worksheet: Worksheet, found: Layout) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(found.columns)
        for columns in _columns(worksheet, found):
            writer.writerows(zip(*columns, strict=True))


def _write_parquet(path: Path, worksheet: Worksheet, found: Layout) -> None:
    try:
        from inference.scoring.parquet import Writer  # noqa: PLC0415 — PyArrow, for those who have it
    except ImportError as error:
        raise Failed("runtime_unavailable", f"Parquet needs {error.name}: install the extra `parquet`") from error
    writer = Writer(path, found.columns)
    try:
        for columns in _columns(worksheet, found):
            writer.write(columns)
    finally:
        writer.close()


_SQL_TYPES: Final[Mapping[DataType, Any]] = {"BOOL": sa.Boolean, "BYTES": sa.Text}


def _write_table(job: Job, worksheet: Worksheet, found: Layout, url: str) -> None:
    """One transaction: what is there of this job goes, and all of it comes. The key of both keeps two writers from doubling a row."""
    engine = engine_of(url)
    table = sa.Table(
        job.spec.output.table or "",
        sa.MetaData(),
        sa.Column("scoring_job", sa.Text, primary_key=True),
        *(
            sa.Column(title, _sql_type(datatype), primary_key=title == found.key, autoincrement=False)
            for title, datatype in found.columns.items()
        ),
    )
    names = tuple(found.columns)
    try:
        with engine.begin() as tx:
            table.create(tx, checkfirst=True)
            tx.execute(sa.delete(table).where(table.c.scoring_job == job.id))
            for columns in _columns(worksheet, found):
                rows = zip(*columns, strict=True)
                while some := [dict(zip(names, row, strict=True)) for row in islice(rows, AT_ONCE)]:
                    tx.execute(sa.insert(table), [{"scoring_job": job.id, **row} for row in some])
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
        raise Failed("output_unwritable", f"The table '{table.name}' cannot be written: {reason}") from error
    finally:
        engine.dispose()


def _sql_type(datatype: DataType) -> Any:
    return _SQL_TYPES.get(datatype, sa.Double if datatype.startswith("FP") else sa.BigInteger)


def _columns(worksheet: Worksheet, found: Layout) -> Iterator[list[list[Any]]]:
    """Values by column, chunk by chunk."""
    for answers in worksheet.answers():
        if answers.keys:
            keys = answers.keys if found.key_type == "INT64" else [str(each) for each in answers.keys]
            yield [keys, *_outputs(answers, found.outputs)]


def _outputs(answers: Answers, wanted: Iterable[Output]) -> Iterator[list[Any]]:
    flat: dict[str, list[list[Any]]] = {}
    for each in wanted:
        values = answers.outputs[each.name]
        if each.place is None:
            yield values
            continue
        rows = flat.get(each.name)
        if rows is None:
            rows = flat[each.name] = [_flat(value) for value in values]
        yield [row[each.place] for row in rows]


def _flat(value: Any) -> list[Any]:
    if not isinstance(value, list):
        return [value]
    return [each for inner in value for each in _flat(inner)]
