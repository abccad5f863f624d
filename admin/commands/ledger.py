"""`penstock ledger verify|export|prune`: check the chain of entries, hand them on, and forget old months."""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import msgspec
from sqlalchemy import Engine

from admin.commands.configuration import database
from gateway import ledger, ledger_export
from gateway.database import reading
from gateway.errors import BadRequest
from gateway.ledger_export import usd
from gateway.spend_sums import day_of


def run(arguments: argparse.Namespace) -> int:
    with database(arguments) as engine:
        match arguments.action:
            case "verify":
                return _verify(engine, as_json=arguments.json)
            case "export":
                return _export(engine, arguments)
            case _:
                return _prune(engine, arguments.before)


def _verify(engine: Engine, *, as_json: bool) -> int:
    verdict = ledger.verify(engine)
    if as_json:
        print(json.dumps(msgspec.to_builtins(verdict)))
    else:
        for fault in verdict.broken:
            print(fault)
        pruned = f" ({verdict.pruned_entries:,} of them pruned)" if verdict.pruned_entries else ""
        print(
            f"{verdict.entries:,} entries{pruned} of {verdict.sessions:,} sessions, {usd(verdict.cost_nanousd)} USD: "
            f"{'BROKEN' if verdict.broken else 'whole'}\nseal {verdict.seal}"
        )
    return 1 if verdict.broken else 0


def _export(engine: Engine, arguments: argparse.Namespace) -> int:
    since, until = (None if text is None else _moment(text) for text in (arguments.since, arguments.until))
    lines = ledger_export.as_focus if arguments.format == "focus" else ledger_export.as_csv
    with reading(engine) as tx, _output(arguments.output) as output:
        output.writelines(lines(tx, since, until))
    return 0


def _prune(engine: Engine, month: str) -> int:
    before = _moment(f"{month}-01")
    count = ledger.prune(engine, day_of(before))
    print(f"{count:,} entries from before {month} are gone; their sums and the chain's last hash are kept")
    return 0


def _moment(text: str) -> float:
    """A date is its first moment in UTC; so is a time without a zone."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadRequest(f"{text!r} is not a date or time such as 2026-11-23 or 2026-11-23T08:00:00Z") from None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


@contextmanager
def _output(path: str | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
    else:
        with Path(path).open("w", encoding="utf-8", newline="") as file:
            yield file
