"""`penstock predictions export`: captured predictions as Parquet, one file a day."""

import argparse
from datetime import UTC, datetime
from math import inf
from pathlib import Path

from admin.commands.configuration import database
from gateway.database import reading
from gateway.errors import BadRequest


def run(arguments: argparse.Namespace) -> int:
    """Raises BadRequest for a time that is none, or where the library that writes Parquet is missing."""
    since = 0.0 if arguments.since is None else _moment(arguments.since)
    until = inf if arguments.until is None else _moment(arguments.until)
    try:
        from inference.serving.export import write_days  # noqa: PLC0415 — PyArrow, for this command alone
    except ImportError as error:
        raise BadRequest(f"Parquet needs {error.name}: install the extra `parquet`") from error
    with database(arguments) as engine, reading(engine) as tx:
        for path in write_days(tx, Path(arguments.folder), since, min(until, 1e11), arguments.model):
            print(path)
    return 0


def _moment(text: str) -> float:
    """A date is its first moment in UTC; so is a time without a zone."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadRequest(f"{text!r} is not a date or time such as 2026-11-23 or 2026-11-23T08:00:00Z") from None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
