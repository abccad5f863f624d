"""`penstock keys create|list|revoke`: virtual keys straight in the database, for the time before the first admin call."""

import argparse
import json
import time
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Engine

from admin.commands.configuration import database
from gateway import key_store
from gateway.database import changing, reading
from gateway.key_store import KeyRecord, NewKey

PAGE = 500


def run(arguments: argparse.Namespace) -> int:
    with database(arguments) as engine:
        match arguments.action:
            case "create":
                _create(engine, arguments)
            case "list":
                _list(engine, as_json=arguments.json)
            case _:
                _revoke(engine, arguments.id, as_json=arguments.json)
    return 0


def _create(engine: Engine, arguments: argparse.Namespace) -> None:
    days: float | None = arguments.expires_in_days
    new = NewKey(
        name=arguments.name,
        team_id=arguments.team_id,
        models=tuple(name for name in arguments.models.split(",") if name) if arguments.models else None,
        expires_at=None if days is None else time.time() + days * 86_400,
    )
    with changing(engine) as tx:
        record, secret = key_store.create(tx, new)
    if arguments.json:
        print(json.dumps({**_json(record), "key": secret}))
    else:
        print(f"{secret}\n\nThis is {record.id} ({record.name}). The key is shown only now; it works within a second.")


def _list(engine: Engine, *, as_json: bool) -> None:
    found: list[KeyRecord] = []
    after: str | None = None
    with reading(engine) as tx:
        while True:
            page = key_store.listed(tx, PAGE, after)
            found += page.data
            after = page.next
            if after is None:
                break
    if as_json:
        print(json.dumps({"data": [_json(record) for record in found]}))
    elif not found:
        print("no keys yet; make one with `penstock keys create NAME`")
    else:
        for record in found:
            print(
                f"{record.id}  {record.hint}  {_state(record):<10}  {record.name}  {', '.join(record.models or ['*'])}"
            )


def _revoke(engine: Engine, id_: str, *, as_json: bool) -> None:
    with changing(engine) as tx:
        record = key_store.revoke(tx, id_)
    print(
        json.dumps(_json(record)) if as_json else f"{record.id} ({record.name}) is revoked, within a second everywhere"
    )


def _state(record: KeyRecord) -> str:
    if record.revoked_at is not None:
        return "revoked"
    return "expired" if record.expires_at is not None and record.expires_at <= time.time() else "active"


def _json(record: KeyRecord) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(record)
    for name in ("created_at", "updated_at", "expires_at", "revoked_at"):
        if fields[name] is not None:
            fields[name] = datetime.fromtimestamp(fields[name], UTC).isoformat(timespec="seconds")
    return {**fields, "state": _state(record)}
