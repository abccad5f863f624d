"""What is told of one request: its record with the times of its stages, as one value that every sink reads. Facts, never content."""

from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

import msgspec

from admin.telemetry.answers import About, about
from gateway.catalog import Deployment
from gateway.contents.spoken import texts
from gateway.ledger_entries import label
from gateway.record import Record
from gateway.used import Usage
from gateway.watching import Mark, Watched

ASKED: Final = {
    "gen_ai.request.temperature": "temperature",
    "gen_ai.request.top_p": "top_p",
    "gen_ai.request.max_tokens": "max_tokens",
    "gen_ai.request.presence_penalty": "presence_penalty",
    "gen_ai.request.frequency_penalty": "frequency_penalty",
    "gen_ai.request.choice.count": "n",
    "gen_ai.embeddings.dimension.count": "dimensions",
}
ROUNDS: Final = "rounds"  # of several turns of a model, each of which is a request
CONTENT: Final = frozenset({"request_text", "answer_text"})
NOT_FACTS: Final = frozenset({"trace", "span", "parent", "steps", "metric_model", "attempt"})


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One stage. Times are Unix seconds. `outcome`: an error's code, or the stage's word (`hit`); `model` is the model's name upstream."""

    stage: str
    began: float
    ended: float
    span: int
    name: str | None = None
    outcome: str | None = None
    status: int | None = None
    number: int | None = None
    deployment: str | None = None
    provider: str | None = None
    model: str | None = None
    address: str | None = None
    port: int | None = None
    asked: Mapping[str, float | int] = {}  # what the request says of its answer: numbers, under GenAI's names
    about: About = About()

    @property
    def failed(self) -> bool:
        return self.stage == "attempt" and self.outcome is not None


class Account(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request, or one attempt that was settled by itself (`attempt`), under the names of `/admin/v1/requests`.

    Times are Unix seconds, durations milliseconds. `trace`, `parent` and `span` are W3C's numbers.
    """

    id: str
    at: float
    ended: float
    endpoint: str
    status: int
    trace: int
    span: int
    parent: int | None = None
    sampled: bool = True
    key_id: str | None = None
    org_id: str | None = None
    team_id: str | None = None
    model: str | None = None
    metric_model: str = ""
    deployment: str | None = None
    provider: str | None = None
    stream: bool = False
    attempts: int = 0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_nanousd: int | None = None
    latency_ms: float = 0.0
    first_token_ms: float | None = None
    overhead_ms: float = 0.0
    error_code: str | None = None
    tags: tuple[str, ...] = ()
    user: str | None = None
    usage_source: str | None = None
    route: str | None = None
    route_version: str | None = None
    prompt_version: str | None = None
    router: str | None = None
    shadow_of: str | None = None
    session: str | None = None
    steps: tuple[Step, ...] = ()
    attempt: bool = False
    collection: str | None = None  # of a search, which is no call and has no record
    request_text: str | None = None  # redacted, and only where content is recorded and the sink is to have it
    answer_text: str | None = None

    @property
    def failed(self) -> bool:
        return self.status >= 500 or self.status == 499

    @property
    def rounds(self) -> bool:
        return self.endpoint == ROUNDS

    @property
    def recorded(self) -> bool:
        """Whether it is a request, as they are listed."""
        return not (self.attempt or self.rounds) and self.collection is None

    def facts(self, *, content: bool = False) -> Mapping[str, object]:
        """For JSON: identifiers as OpenTelemetry writes them, money in dollars beside nano-dollars. `content`: what was said, too."""
        hidden = NOT_FACTS if content else NOT_FACTS | CONTENT
        values = {
            name: value
            for name, value in msgspec.structs.asdict(self).items()
            if value is not None and name not in hidden
        }
        values["trace_id"], values["span_id"] = f"{self.trace:032x}", f"{self.span:016x}"
        if self.parent is not None:
            values["parent_span_id"] = f"{self.parent:016x}"
        if self.cost_nanousd is not None:
            values["cost_usd"] = self.cost_nanousd / 1_000_000_000
        values["steps"] = [
            {
                "stage": step.stage,
                "ms": round((step.ended - step.began) * 1000, 3),
                **{
                    name: value
                    for name in ("outcome", "deployment", "provider", "model", "number")
                    if (value := getattr(step, name)) is not None
                },
            }
            for step in self.steps
        ]
        return values


def account(
    record: Record, unix_minus_loop: float, *, attempt: bool = False, redact: Callable[[str], str] | None = None
) -> Account:
    """`unix_minus_loop` turns the event loop's clock into Unix time. The record is over, and nobody changes it any more.

    With `redact` what was said is told as well, where it is recorded.
    """
    watched = record.watched or Watched()
    context, key, used = watched.context, record.key, record.usage or Usage()
    routed, known = record.routed, record.usage is not None
    said = None if redact is None or attempt else _said(watched, redact)
    began, ended = record.started_at + unix_minus_loop, record.finished_at + unix_minus_loop
    return Account(
        id=record.id,
        at=began,
        ended=ended,
        endpoint=record.endpoint,
        status=record.status,
        trace=0 if context is None else context.trace,
        span=watched.span,
        parent=None if context is None else context.parent,
        sampled=context is not None and context.sampled,
        key_id=None if key is None else key.id,
        org_id=None if key is None else key.org_id,
        team_id=None if key is None else key.team_id,
        model=label(record.model),
        metric_model=record.metric_model,
        deployment=record.deployment,
        provider=record.provider,
        stream=record.stream,
        attempts=record.attempts,
        prompt_tokens=used.input if known else None,
        completion_tokens=used.output if known else None,
        cached_tokens=used.cached_read if known else None,
        cache_write_tokens=used.cache_write if known else None,
        reasoning_tokens=used.reasoning if known else None,
        cost_nanousd=record.cost_nanousd,
        latency_ms=(record.finished_at - record.started_at) * 1000,
        first_token_ms=None if record.first_token_at is None else (record.first_token_at - record.started_at) * 1000,
        overhead_ms=record.overhead_s * 1000,
        error_code=label(record.error_code),
        tags=tuple(label(tag) or "" for tag in record.tags or ()),
        user=label(record.user),
        usage_source=record.usage_source,
        route=None if routed is None else label(routed.reason),
        route_version=None if routed is None else routed.route_version,
        prompt_version=None if routed is None else routed.prompt_version,
        router=None if routed is None else label(routed.router),
        shadow_of=None if routed is None else routed.shadow_of,
        session=None if watched.session is None else label(watched.session[:200].decode("latin-1")),
        steps=() if attempt else tuple(_step(mark, record, unix_minus_loop) for mark in watched.marks),
        attempt=attempt,
        request_text=None if said is None else said[0],
        answer_text=None if said is None else said[1],
    )


def _said(watched: Watched, redact: Callable[[str], str]) -> tuple[str, str | None] | None:
    if watched.content is None:
        return None
    request, answer = texts(watched.content)
    return redact(request), None if answer is None else redact(answer)


def _step(mark: Mark, record: Record, unix_minus_loop: float) -> Step:
    ended = mark.ended or record.finished_at
    address, port = (None, None) if mark.deployment is None else _server(mark.deployment)
    return Step(
        stage=mark.stage,
        began=mark.began + unix_minus_loop,
        ended=max(ended, mark.began) + unix_minus_loop,
        span=mark.span,
        name=None if mark.stage == "attempt" else mark.name or None,
        outcome=label(mark.outcome),
        status=mark.status or None,
        number=mark.number or None,
        deployment=None if mark.deployment is None else mark.deployment.id,
        provider=None if mark.deployment is None else mark.deployment.provider,
        model=label(mark.target) or None,
        address=address,
        port=port,
        asked=_asked(mark.request),
        about=about(mark.seen) if mark.seen and mark.outcome is None else About(),
    )


def _asked(request: object) -> Mapping[str, float | int]:
    """Of those that a request has. One choice is what every request has."""
    found = {name: value for name, field in ASKED.items() if (value := getattr(request, field, None)) is not None}
    most = getattr(request, "max_completion_tokens", None)
    if most is not None:
        found["gen_ai.request.max_tokens"] = most
    if found.get("gen_ai.request.choice.count") == 1:
        del found["gen_ai.request.choice.count"]
    return found


def _server(deployment: Deployment) -> tuple[str | None, int | None]:
    """Host and port alone: the rest of an address may be a secret."""
    parts = urlsplit(deployment.base_url)
    try:
        port = parts.port
    except ValueError:
        port = None
    return parts.hostname, port or {"https": 443, "http": 80}.get(parts.scheme)
