"""The trace of one request as values: a server span, and below it one for each stage. Pure."""

from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec

from admin.telemetry import conventions
from admin.telemetry.account import Account, Step

Value = str | bool | int | float | tuple[str, ...]
Kind = Literal["internal", "server", "client"]


class Span(msgspec.Struct, frozen=True):
    """Times are Unix seconds. `state` is the trace's own, not a span's."""

    name: str
    kind: Kind
    span: int
    parent: int | None
    began: float
    ended: float
    attributes: Mapping[str, Value]
    failed: bool = False


def spans(account: Account) -> Iterator[Span]:
    """The request's first. Attempts carry what GenAI's conventions ask of a call to a model; usage and cost stand at one of them alone."""
    yield _request(account)
    billed = _billed(account)
    for step in account.steps:
        if step.stage == "attempt":
            yield _attempt(account, step, billed=step is billed)
        else:
            yield _stage(account, step)


def _request(account: Account) -> Span:
    route = conventions.route(account.endpoint)
    attributes: dict[str, Value | None] = {
        "http.request.method": "POST",
        "http.route": route,
        "http.response.status_code": account.status,
        "gen_ai.operation.name": conventions.operation(account.endpoint),
        "gen_ai.provider.name": conventions.provider(account.provider),
        "gen_ai.request.model": account.model,
        "error.type": account.error_code,
        "penstock.request.id": account.id,
        "penstock.key.id": account.key_id,
        "penstock.team.id": account.team_id,
        "penstock.org.id": account.org_id,
        "penstock.tags": account.tags or None,
        "penstock.deployment": account.deployment,
        "penstock.attempts": account.attempts,
        "penstock.overhead_ms": round(account.overhead_ms, 3),
        "penstock.route": account.route,
        "penstock.route.version": account.route_version,
        "penstock.prompt.version": account.prompt_version,
        "penstock.router": account.router,
        "penstock.shadow_of": account.shadow_of,
        "gen_ai.data_source.id": account.collection,
        **(_tool(account) if account.endpoint == "mcp" else {}),
    }
    return Span(
        name=f"POST {route}",
        kind="server",
        span=account.span,
        parent=account.parent,
        began=account.at,
        ended=max(account.at, account.ended),
        attributes=_told(attributes),
        failed=account.status >= 500,
    )


def _attempt(account: Account, step: Step, *, billed: bool) -> Span:
    operation, model = conventions.operation(account.endpoint), step.model or account.model or ""
    attributes: dict[str, Value | None] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": conventions.provider(step.provider),
        "gen_ai.request.model": model,
        "gen_ai.request.stream": account.stream or None,
        "gen_ai.conversation.id": account.session,
        "gen_ai.response.id": step.about.id,
        "gen_ai.response.model": step.about.model,
        "gen_ai.response.finish_reasons": step.about.finish_reasons or None,
        **step.asked,
        "server.address": step.address,
        "server.port": step.port if step.address is not None else None,
        "error.type": step.outcome,
        "http.response.status_code": step.status,
        "penstock.deployment": step.deployment,
        "penstock.attempt": step.number,
    }
    if billed:
        attributes |= _usage(account)
        if account.stream and account.first_token_ms is not None:
            attributes["gen_ai.response.time_to_first_chunk"] = max(
                0.0, account.at + account.first_token_ms / 1000 - step.began
            )
    return Span(
        name=f"{operation} {model}",
        kind="client",
        span=step.span,
        parent=account.span,
        began=step.began,
        ended=step.ended,
        attributes=_told(attributes),
        failed=step.failed,
    )


def _stage(account: Account, step: Step) -> Span:
    attributes = {"penstock.stage": step.stage, "penstock.outcome": step.outcome, "penstock.name": step.name}
    return Span(
        name=step.stage if step.name is None else f"{step.stage} {step.name}",
        kind="internal",
        span=step.span,
        parent=account.span,
        began=step.began,
        ended=step.ended,
        attributes=_told(attributes),
    )


def _billed(account: Account) -> Step | None:
    """The attempt that answered, or else the last one."""
    attempts = [step for step in account.steps if step.stage == "attempt"]
    return next((step for step in reversed(attempts) if not step.failed), attempts[-1] if attempts else None)


def _usage(account: Account) -> dict[str, Value | None]:
    """`input_tokens` includes cached ones and `output_tokens` reasoning, here as in the conventions."""
    return {
        "gen_ai.usage.input_tokens": account.prompt_tokens,
        "gen_ai.usage.output_tokens": account.completion_tokens,
        "gen_ai.usage.cache_read.input_tokens": account.cached_tokens or None,
        "gen_ai.usage.cache_creation.input_tokens": account.cache_write_tokens or None,
        "gen_ai.usage.reasoning.output_tokens": account.reasoning_tokens or None,
        "penstock.usage.source": account.usage_source,
        "penstock.cost_usd": None if account.cost_nanousd is None else account.cost_nanousd / 1_000_000_000,
    }


def _tool(account: Account) -> dict[str, Value | None]:
    """`mcp/server/tool` is the name of what is called."""
    parts = (account.model or "").split("/", 2)
    return {"gen_ai.tool.name": parts[2] if len(parts) == 3 else None, "gen_ai.tool.type": "extension"}


def _told(attributes: Mapping[str, Value | None]) -> Mapping[str, Value]:
    return {name: value for name, value in attributes.items() if value is not None}
