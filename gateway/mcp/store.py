"""The table of MCP servers. Every function takes the transaction it works in.

As models and deployments: the file seeds it (`gateway.seeding`), REST changes it, and from then on the database is the truth.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, insert, select, update

from gateway.database import record_revision
from gateway.errors import BadRequest, Conflict, NotFound
from gateway.mcp.catalog import OAuth, Server
from gateway.mcp.settings import MAX_SECRET, OAUTH_SECRETS, SECRETS, ServerSpec
from gateway.paging import Page, page
from gateway.pricing import PICO_PER_NANO, Price, fixed_price, pico_per_unit
from gateway.secret_box import SecretBox, is_reference
from gateway.tables import mcp_servers as table

Spec = Mapping[str, Any]
REST = "rest"


class ServerRecord(msgspec.Struct, frozen=True):
    """`spec` is a ServerSpec's JSON with sealed values or references, never a secret in clear."""

    name: str
    spec: Spec
    origin: str
    edited: bool
    created_at: float
    updated_at: float


def create(tx: Connection, spec: ServerSpec, box: SecretBox) -> ServerRecord:
    """In the place of a deleted one of that name. Raises Conflict when the name is taken."""
    if tx.execute(select(table.c.name).where(_alive(spec.name))).one_or_none() is not None:
        raise Conflict(f"mcp server {spec.name!r} exists already: change it with PATCH, or delete it.", param="name")
    now = time.time()
    values = {"spec": server_json(spec, box), "origin": REST, "edited": True, "deleted_at": None}
    values |= {"created_at": now, "updated_at": now}
    if tx.execute(update(table).where(table.c.name == spec.name).values(**values)).rowcount == 0:
        tx.execute(insert(table).values(name=spec.name, **values))
    record_revision(tx, f"mcp server {spec.name} created")
    return get(tx, spec.name)


def get(tx: Connection, name: str) -> ServerRecord:
    """Raises NotFound."""
    row = tx.execute(select(table).where(_alive(name))).one_or_none()
    if row is None:
        raise NotFound(f"There is no MCP server {name!r}.", param="name", code="mcp_server_not_found")
    return _record(row)


def listed(tx: Connection, limit: int, after: str | None = None) -> Page[ServerRecord]:
    """By name."""
    query = select(table).where(table.c.deleted_at.is_(None)).order_by(table.c.name).limit(limit + 1)
    found = [_record(row) for row in tx.execute(query if after is None else query.where(table.c.name > after))]
    return page(found, limit, [one.name for one in found])


def change(tx: Connection, name: str, changes: Spec, box: SecretBox) -> ServerRecord:
    """Merges JSON of ServerSpec's fields, secrets in clear; None puts a default back. Raises NotFound, ValidationError."""
    merged = {key: value for key, value in {**get(tx, name).spec, **sealed(changes, box)}.items() if value is not None}
    ServerSpec.model_validate(merged)
    tx.execute(update(table).where(_alive(name)).values(spec=merged, edited=True, updated_at=time.time()))
    record_revision(tx, f"mcp server {name} changed")
    return get(tx, name)


def remove(tx: Connection, name: str) -> None:
    """A seeded one leaves a mark, or the next start would bring it back. Raises NotFound."""
    get(tx, name)
    now = time.time()
    seeded = update(table).where(table.c.name == name, table.c.origin != REST)
    tx.execute(seeded.values(deleted_at=now, updated_at=now, edited=True))
    tx.execute(delete(table).where(table.c.name == name, table.c.origin == REST))
    record_revision(tx, f"mcp server {name} deleted")


def keep_refresh_token(tx: Connection, name: str, token: str, box: SecretBox) -> None:
    """What a token endpoint gave instead of the one before, which it may not take again. No change of the configuration."""
    row = tx.execute(select(table).where(_alive(name))).one_or_none()
    if row is not None and row.spec.get("oauth") is not None:
        oauth = {**row.spec["oauth"], "refresh_token": box.seal(token)}
        tx.execute(update(table).where(_alive(name)).values(spec={**row.spec, "oauth": oauth}))


def every(tx: Connection) -> list[ServerRecord]:
    """All that can be used, by name."""
    return [
        _record(row) for row in tx.execute(select(table).where(table.c.deleted_at.is_(None)).order_by(table.c.name))
    ]


def server_json(spec: ServerSpec, box: SecretBox) -> dict[str, Any]:
    return sealed(spec.model_dump(mode="json", exclude_defaults=True), box)


def sealed(spec: Spec, box: SecretBox) -> dict[str, Any]:
    """Keys, tokens, and the values of headers, parameters and variables, each of which may be one."""
    made = dict(spec)
    for name in SECRETS:
        value = made.get(name)
        if isinstance(value, dict):
            made[name] = {key: _seal(inner, box) for key, inner in value.items()}
        elif value is not None:
            made[name] = _seal(value, box)
    if made.get("oauth"):
        secret = {name: _seal(made["oauth"][name], box) for name in OAUTH_SECRETS if made["oauth"].get(name)}
        made["oauth"] = {**made["oauth"], **secret}
    return made


def compiled(record: ServerRecord, clear: Callable[[str], str]) -> Server | None:
    """What the data plane works with; None for one that is switched off. Raises ValidationError, and what `clear` raises."""
    spec = ServerSpec.model_validate(record.spec)
    if not spec.enabled:
        return None
    bearer = () if spec.api_key is None else (("authorization", f"Bearer {clear(spec.api_key)}"),)
    return Server(
        name=spec.name,
        kind=spec.kind,
        price=_price(spec.price.per_call),
        prices={name: _price(usd) for name, usd in spec.price.tools.items()},
        description=spec.description,
        url="" if spec.url is None else str(spec.url),
        headers=(*bearer, *((name.lower(), clear(value)) for name, value in spec.headers.items())),
        query=tuple((name, clear(value)) for name, value in spec.query.items()),
        oauth=_oauth(spec, clear),
        command=spec.command or "",
        args=spec.args,
        env=tuple((name, clear(value)) for name, value in spec.env.items()),
        document=spec.document,
        document_url=None if spec.document_url is None else str(spec.document_url),
        tools=spec.tools,
        timeout_s=spec.timeout_s,
        start_s=spec.start_s,
        parallel=spec.parallel,
        max_answer_bytes=int(spec.max_answer_mb * 1024 * 1024),
        verify_tls=spec.verify_tls,
        ca_file=spec.ca_file,
    )


def _oauth(spec: ServerSpec, clear: Callable[[str], str]) -> OAuth | None:
    asked = spec.oauth
    if asked is None:
        return None
    return OAuth(
        asked.grant,
        asked.client_id,
        None if asked.client_secret is None else clear(asked.client_secret),
        None if asked.refresh_token is None else clear(asked.refresh_token),
        None if asked.token_url is None else str(asked.token_url),
        None if asked.issuer is None else str(asked.issuer),
        asked.scope,
    )


def _price(usd: float) -> Price:
    return fixed_price(-(-pico_per_unit(usd) // PICO_PER_NANO))


def _seal(value: str, box: SecretBox) -> str:
    if len(value) > MAX_SECRET:
        raise BadRequest(f"A secret has at most {MAX_SECRET} characters.", code="string_above_max_length")
    return value if is_reference(value) else box.seal(value)


def _alive(name: str) -> Any:
    return (table.c.name == name) & table.c.deleted_at.is_(None)


def _record(row: Row[Any]) -> ServerRecord:
    return ServerRecord(row.name, row.spec, row.origin, row.edited, row.created_at, row.updated_at)
