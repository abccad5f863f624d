"""What is to be scored, in the words of whoever asks: as a specification that a job can keep, or refused with the place."""

from collections.abc import Collection
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, select

from gateway.errors import BadRequest
from gateway.tables import keys
from inference.scoring.job import Format, Place, Spec

SUFFIXES: Final[dict[str, Format]] = {".csv": "csv", ".parquet": "parquet", ".pq": "parquet"}


def file(path: Path, param: str) -> Place:
    """A file, whose name says what it is. Raises BadRequest."""
    format_ = SUFFIXES.get(path.suffix.lower())
    if format_ is None:
        raise BadRequest(f"{param}: {path.name} is neither .csv nor .parquet", param=param, code="unsupported_format")
    return Place(format_, path=str(path))


def query(name: str, text: str | None, databases: Collection[str], param: str) -> Place:
    """A SELECT. That it changes nothing is the database's own care: it runs where nothing can be written. Raises BadRequest."""
    _require(name, databases, param)
    if not text or text.strip().partition(" ")[0].partition("\n")[0].upper() not in {"SELECT", "WITH"}:
        raise BadRequest(f"{param}: a database is read by one SELECT", param=param, code="invalid_query")
    return Place("sql", database=name, query=text)


def table(name: str, table_: str | None, databases: Collection[str], param: str) -> Place:
    """Raises BadRequest."""
    _require(name, databases, param)
    if not table_ or len(table_) > 63:
        raise BadRequest(f"{param}: the name of a table is missing or too long", param=param, code="invalid_table")
    return Place("sql", database=name, table=table_)


def checked(spec: Spec) -> Spec:
    """Raises BadRequest where its parts do not go together."""
    if spec.input.format == "sql" and spec.key is None:
        raise BadRequest("Rows of a query need a key, by which the job can go on", param="key", code="missing_key")
    paths = [path for path in (spec.input.path, spec.output.path, spec.refused) if path is not None]
    if len({Path(path).resolve() for path in paths}) != len(paths):
        raise BadRequest("Input, output and refused rows are three files", param="output", code="invalid_output")
    if spec.input.path is not None and not Path(spec.input.path).is_file():
        raise BadRequest(f"There is no file {spec.input.path}", param="input", code="input_not_found")
    for path in (spec.output.path, spec.refused):
        if path is not None and not Path(path).parent.is_dir():
            raise BadRequest(f"There is no folder {Path(path).parent}", param="output", code="output_not_found")
    return spec


def payer(tx: Connection, spec: Spec) -> None:
    """Raises BadRequest where the key is not there, or not any more."""
    if spec.key_id is None:
        return
    found = select(keys.c.id).where(keys.c.id == spec.key_id, keys.c.revoked_at.is_(None))
    if tx.execute(found).first() is None:
        raise BadRequest(
            f"There is no key '{spec.key_id}' whose account it could be on", param="key_id", code="key_not_found"
        )


def _require(name: str, databases: Collection[str], param: str) -> None:
    if name not in databases:
        raise BadRequest(
            f"{param}: the configuration names no database '{name}' in predictions.scoring.databases",
            param=param,
            code="database_unknown",
        )
