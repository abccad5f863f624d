"""The table of MCP servers. Every function takes the transaction it works in."""

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Connection, select, update

from gateway.errors import BadRequest
from gateway.mcp.catalog import OAuth, Server
from gateway.mcp.settings import MAX_SECRET, OAUTH_SECRETS, SECRETS, ServerSpec
from gateway.named_specs import NamedSpecs, Spec, SpecRecord
from gateway.pricing import PICO_PER_NANO, fixed_price, pico_per_unit
from gateway.secret_box import SecretBox, is_reference
from gateway.tables import mcp_servers as table
from gateway.tariffs import Price


def keep_refresh_token(tx: Connection, name: str, token: str, box: SecretBox) -> None:
    """What a token endpoint gave instead of the one before, which it may not take again. No change of the configuration."""
    row = tx.execute(select(table).where(SERVERS.alive(name))).one_or_none()
    if row is not None and row.spec.get("oauth") is not None:
        oauth = {**row.spec["oauth"], "refresh_token": box.seal(token)}
        tx.execute(update(table).where(SERVERS.alive(name)).values(spec={**row.spec, "oauth": oauth}))


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


SERVERS: Final = NamedSpecs(table, "MCP server", "mcp_server_not_found", ServerSpec, sealed)


def compiled(record: SpecRecord, clear: Callable[[str], str]) -> Server | None:
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
