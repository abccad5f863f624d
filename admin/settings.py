"""The root of the configuration: what can be set, and which of command line, environment, file or default decided it.

The only module that reads the process's environment; everything else is handed values.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator, model_validator

from admin import config_check, config_file
from admin.config_file import ConfigError, Document, KeyPath, Problem
from admin.predictions.settings import FeaturesSection, PredictionsSection
from admin.references import UnresolvedError, references, resolve
from admin.registry_settings import RegistrySection
from admin.retrieval_settings import EmbeddingSection, RetrievalSection
from admin.roles import Role
from admin.telemetry import settings as telemetry
from admin.telemetry.settings import TelemetrySection
from admin.webhooks import Webhook
from gateway import pricing
from gateway.batches.terms import BatchTerms
from gateway.mcp.settings import McpSection
from gateway.native.terms import Declared
from gateway.realtime.limits import Limits as RealtimeLimits
from gateway.settings import CacheSpec, ModelSpec, PositiveSeconds, PricingSection, Section
from inference.fleet.settings import EngineSpec, ProgramSpec

DEFAULT_FILE = "penstock.yaml"

ENVIRONMENT: Mapping[str, KeyPath] = {
    "PENSTOCK_DATA_DIR": ("data_dir",),
    "PENSTOCK_DATABASE_URL": ("database_url",),
    "PENSTOCK_REDIS_URL": ("redis_url",),
    "PENSTOCK_ADMIN_KEY": ("admin_key",),
    "PENSTOCK_SECRET_KEY": ("secret_key",),
}
FLAGS: Mapping[str, KeyPath] = {
    "--host": ("server", "host"),
    "--port": ("server", "port"),
    "--workers": ("server", "workers"),
    "--data-dir": ("data_dir",),
}


_PROTECTED = re.compile(r"https://\S+|http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?(/\S*)?")


class ServerLimits(Section):
    """What one client may cost. `body_mb`: calls that are read whole, `upload_mb`: those that stream in."""

    header_bytes: int = Field(default=32 * 1024, ge=1024, le=1 << 20)
    header_count: int = Field(default=100, ge=8, le=10_000)
    body_mb: float = Field(default=32, gt=0, le=2048)
    upload_mb: float = Field(default=512, gt=0, le=1 << 20)
    buffered_mb: float = Field(default=1024, gt=0, le=1 << 20)
    header_timeout_s: PositiveSeconds = 10
    body_timeout_s: PositiveSeconds = 60
    idle_timeout_s: PositiveSeconds = 75
    write_timeout_s: PositiveSeconds = 120
    drain_s: float = Field(default=30, ge=0, le=86_400)
    max_connections: int = Field(default=20_000, ge=1)


class ServerSection(Section):
    """The listening side. Port 0 lets the system choose one."""

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=4000, ge=0, le=65_535)
    workers: int = Field(default=1, ge=1, le=256)
    tls_cert: Path | None = None
    tls_key: Path | None = None
    limits: ServerLimits = ServerLimits()

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together; set both or none")
        return self


class UpstreamSection(Section):
    """The calling side. `max_connections` holds per origin; `idle_s` stays below what common servers allow (5 s)."""

    max_connections: int = Field(default=1024, ge=1)
    idle_s: PositiveSeconds = 4
    ca_file: Path | None = None
    user_agent: str = Field(default="penstock", min_length=1, max_length=200, pattern=r"^[\x20-\x7e]+$")


class CacheSection(CacheSpec):
    """`store: auto` is Redis where there is one, else this process's memory and disk; `disk_mb: 0` is memory alone.

    What is larger than `max_entry_kb` is not kept.
    """

    store: Literal["auto", "local", "redis"] = "auto"
    memory_mb: float = Field(default=32, gt=0, le=1 << 20)
    disk_mb: float = Field(default=256, ge=0, le=1 << 24)
    max_entry_kb: float = Field(default=1024, gt=0, le=1 << 16)


class LimitsSection(Section):
    """What happens to calls that need more than this process has leased while the lease store is away.

    `deny` refuses them. `local_share` lets each process go on with so much of each limit, once per window.
    """

    store_failure: Literal["deny", "local_share"] = "deny"
    local_share: float = Field(default=0.1, gt=0, le=1)

    @property
    def local_part(self) -> float | None:
        return self.local_share if self.store_failure == "local_share" else None


class WebhookSection(Section):
    """Somebody who wants to know of `events`. With a `secret` each message is signed (HMAC-SHA256).

    `format`: the bare message, or a CloudEvent 1.0 around it (`cloudevents`: structured mode, `cloudevents_binary`: in headers,
    `cloudevents_batch`: as many as are waiting, up to 100). `prediction`: every capture of a classic model.
    """

    url: str = Field(max_length=2000, pattern=r"^https?://[^\s/]+(/\S*)?$")
    secret: SecretStr | None = Field(default=None, min_length=8, max_length=1000)
    events: tuple[Literal["budget", "rollout", "feedback", "prediction", "drift"], ...] = Field(
        default=("budget", "rollout", "drift"), min_length=1
    )
    format: Literal["json", "cloudevents", "cloudevents_binary", "cloudevents_batch"] = "json"


class AlertsSection(Section):
    webhooks: tuple[WebhookSection, ...] = Field(default=(), max_length=20)

    def compile(self) -> tuple[Webhook, ...]:
        """On a running event loop."""
        return tuple(
            Webhook(
                each.url,
                None if each.secret is None else each.secret.get_secret_value(),
                events=each.events,
                format_=each.format,
            )
            for each in self.webhooks
        )


class ContentSection(Section):
    """What was asked and answered, redacted: of nobody unless it is `enabled`, or a key's metadata say `record_content: true`.

    What is larger than `max_kb` is not kept.
    """

    enabled: bool = False
    max_kb: float = Field(default=256, gt=0, le=1 << 16)
    retention_days: float = Field(default=7, gt=0, le=36_500)


class RecordsSection(Section):
    """What is kept of each request: numbers and names, and its text only by `content`."""

    content: ContentSection = ContentSection()
    enabled: bool = True
    retention_days: float = Field(default=30, gt=0, le=36_500)


class ResponsesSection(Section):
    """What `/v1/responses` keeps for those who made it: here text is kept, as it is what they want to go on from."""

    retention_days: float = Field(default=30, gt=0, le=36_500)


class FilesSection(Section):
    """What clients keep here. Replicas need one `directory` that all of them share; without one it is in the data folder.

    `quota_mb`: of all files of a team, or of a key that is in none.
    """

    directory: Path | None = None
    max_mb: float = Field(default=512, gt=0, le=1 << 20)
    quota_mb: float = Field(default=10_240, gt=0, le=1 << 30)


class BatchesSection(Section):
    """Files of calls that are served in the background.

    `concurrency`: lines at the same time, per process. `room`: no line starts while so many calls are in flight, live ones included.
    `service_tiers`: what lines ask their upstream for, by the public name of a model: `{"chat": "flex"}`.
    """

    concurrency: int = Field(default=16, ge=1, le=4096)
    room: int = Field(default=64, ge=1, le=65_536)
    max_lines: int = Field(default=50_000, ge=1, le=1_000_000)
    on_budget: Literal["pause", "fail"] = "pause"
    service_tiers: dict[str, Annotated[str, Field(min_length=1, max_length=64)]] = Field(default={})

    def compile(self) -> BatchTerms:
        return BatchTerms(self.concurrency, self.room, self.max_lines, self.on_budget, self.service_tiers)


class PathSpec(Section):
    """A provider's path that says nothing of what it costs. `…/*`: everything below it.

    `model`: whose deployments carry it, and whose users may call it. `per_request` is USD.
    """

    path: str = Field(max_length=500, pattern=r"^/(openai|anthropic|gemini)/[!-)+->@-~]+(/\*)?$")
    methods: tuple[Literal["GET", "POST", "PUT", "PATCH", "DELETE"], ...] = Field(default=("POST",), min_length=1)
    model: str = Field(min_length=1, max_length=200)
    per_request: float = Field(ge=0, le=1_000_000)

    def compile(self) -> Declared:
        nanousd = pricing.pico_per_unit(self.per_request) // pricing.PICO_PER_NANO
        return Declared(self.path, frozenset(self.methods), self.model, nanousd)


class PassthroughSection(Section):
    """Paths below `/openai`, `/anthropic` and `/gemini` that cannot be metered and are passed on all the same, at a declared price."""

    paths: tuple[PathSpec, ...] = Field(default=(), max_length=1000)

    def compile(self) -> tuple[Declared, ...]:
        return tuple(path.compile() for path in self.paths)


class RealtimeSection(Section):
    """Conversations over a WebSocket. `idle_s`: without an event either way; `ping_s`: between pings, and for their answer."""

    idle_s: PositiveSeconds = 900
    session_s: PositiveSeconds = 3600
    ping_s: PositiveSeconds = 20
    message_mb: float = Field(default=16, gt=0, le=256)

    def compile(self) -> RealtimeLimits:
        return RealtimeLimits(self.idle_s, self.session_s, self.ping_s, int(self.message_mb * 1024 * 1024))


class LogSection(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "text"] = "json"


def _protected(url: str) -> str:
    """Keys that decide who is an admin do not travel in clear, except on this machine."""
    if not _PROTECTED.fullmatch(url):
        raise ValueError("expected https://…, or http:// on this machine")
    return url


WebAddress = Annotated[str, Field(max_length=2000), AfterValidator(_protected)]


class OidcSection(Section):
    """Logins of people by JSON Web Tokens of one identity provider (OpenID Connect).

    `role_claim` is a claim, `realm_access.roles` for a nested one, whose values `roles` turns into roles here. Without it the
    table of users says who may what, by the email that the provider vouches for.
    """

    issuer: WebAddress
    audience: tuple[Annotated[str, Field(min_length=1, max_length=500)], ...] = Field(min_length=1)
    jwks_url: WebAddress | None = None
    algorithms: tuple[Literal["RS256", "ES256", "EdDSA"], ...] = Field(
        default=("RS256", "ES256", "EdDSA"), min_length=1
    )
    role_claim: str | None = Field(default=None, min_length=1, max_length=200)
    roles: dict[str, Role] = Field(default={})
    org_claim: str = Field(default="org_id", min_length=1, max_length=200)
    team_claim: str = Field(default="team_id", min_length=1, max_length=200)
    email_claim: str = Field(default="email", min_length=1, max_length=200)
    leeway_s: float = Field(default=30, ge=0, le=600)
    keys_ttl_s: PositiveSeconds = 3600

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.role_claim is None) != (not self.roles):
            raise ValueError("role_claim and roles belong together; set both or none")
        return self


class AuthSection(Section):
    oidc: OidcSection | None = None


class Settings(Section):
    """Everything in `penstock.yaml`. Paths are relative to the working directory."""

    server: ServerSection = ServerSection()
    upstream: UpstreamSection = UpstreamSection()
    data_dir: Path = Path(".penstock")
    database_url: str | None = Field(default=None, repr=False)
    redis_url: str | None = Field(default=None, repr=False)
    admin_key: SecretStr | None = None
    secret_key: SecretStr | None = None
    models: tuple[ModelSpec, ...] = ()
    pricing: PricingSection = PricingSection()
    cache: CacheSection | None = None
    limits: LimitsSection = LimitsSection()
    alerts: AlertsSection = AlertsSection()
    records: RecordsSection = RecordsSection()
    responses: ResponsesSection = ResponsesSection()
    files: FilesSection = FilesSection()
    batches: BatchesSection = BatchesSection()
    retrieval: RetrievalSection = RetrievalSection()
    embedding: EmbeddingSection = EmbeddingSection()
    registry: RegistrySection = RegistrySection()
    passthrough: PassthroughSection = PassthroughSection()
    realtime: RealtimeSection = RealtimeSection()
    mcp: McpSection = McpSection()
    predictions: PredictionsSection = PredictionsSection()
    features: FeaturesSection = FeaturesSection()
    guards: tuple[dict[str, Any], ...] = Field(
        default=(), repr=False
    )  # each a GuardSpec, which is loaded for who has any
    engines: tuple[EngineSpec, ...] = ()
    engine_programs: tuple[ProgramSpec, ...] = ()
    auth: AuthSection = AuthSection()
    log: LogSection = LogSection()
    telemetry: TelemetrySection = TelemetrySection()

    @model_validator(mode="after")
    def _the_engine_has_its_server(self) -> Self:
        wanted = self.retrieval
        servers = ("qdrant", "chroma", "milvus", "weaviate", "pinecone")
        if wanted.engine in servers and getattr(wanted, wanted.engine) is None:
            raise ValueError(f"retrieval.engine: {wanted.engine} needs retrieval.{wanted.engine}.url")
        if wanted.engine == "pgvector" and wanted.engines(self.database).pgvector_url is None:
            raise ValueError("retrieval.engine: pgvector needs retrieval.pgvector.url, or a database_url of PostgreSQL")
        return self

    @property
    def database(self) -> str:
        """The URL in force: SQLite in the data directory unless another one is given."""
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'penstock.db'}"

    @property
    def files_dir(self) -> Path:
        return self.files.directory or self.data_dir / "files"

    @property
    def registry_dir(self) -> Path:
        """Absolute: processes with other working directories open what is there."""
        return (self.registry.directory or self.data_dir / "registry").resolve()

    @model_validator(mode="after")
    def _the_cache_has_its_redis(self) -> Self:
        if self.cache is not None and self.cache.store == "redis" and self.redis_url is None:
            raise ValueError("cache.store: redis needs a redis_url")
        if self.embedding.cache.store == "redis" and self.redis_url is None:
            raise ValueError("embedding.cache.store: redis needs a redis_url")
        return self

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(
            ("sqlite:///", "postgres://", "postgresql://", "postgresql+psycopg://")
        ):
            raise ValueError("expected postgresql://user@host/database or sqlite:///file")
        return url

    @field_validator("redis_url")
    @classmethod
    def _known_redis(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("expected redis://host:6379/0, rediss://… or unix://…")
        return url


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings with their history. `origins` has a path for every value that is not a default."""

    settings: Settings
    origins: Mapping[KeyPath, str]
    warnings: tuple[str, ...]
    file: Path | None
    environ: Mapping[str, str] = field(repr=False)

    def origin(self, *path: str | int) -> str:
        """`flag --port`, `environment PENSTOCK_DATA_DIR`, `penstock.yaml:14` or `default`."""
        return self.origins.get(path, "default")

    def resolve(self, text: str) -> str:
        """A stored value with its `${VAR}` references replaced, as of this process's start. Raises UnresolvedError."""
        return resolve(text, self.environ)


def environment() -> Mapping[str, str]:
    """The process's environment, read once per call and not to be changed."""
    return MappingProxyType(dict(os.environ))  # noqa: TID251 — this is the one place that may


def load(flags: Mapping[str, str | int | None], environ: Mapping[str, str], directory: Path = Path()) -> Loaded:
    """The effective configuration. `flags` is keyed as in FLAGS, and `--config`; None means not given.

    Command line before environment before file before default. Raises ConfigError with everything that is wrong.
    """
    file = _file(flags.get("--config") or environ.get("PENSTOCK_CONFIG"), directory)
    document = config_file.read(file, environ) if file else Document("", {})
    origins: dict[KeyPath, str] = {path: document.place(path) for path in document.lines}
    data: dict[str, Any] = dict(document.data)
    for name, path in ENVIRONMENT.items():
        if value := environ.get(name):  # set but empty, as compose files do it, is not set
            _overlay(data, path, value, origins, f"environment {name}")
    told_of = data.get("telemetry")
    named = isinstance(told_of, dict) and told_of.get("otlp") is not None
    for name, within, told in telemetry.environment(environ, named=named):
        _overlay(data, ("telemetry", *within), told, origins, f"environment {name}")
    for name, path in FLAGS.items():
        if flags.get(name) is not None:
            _overlay(data, path, flags[name], origins, f"flag {name}")
    settings = _validated(data, document, origins)
    return Loaded(settings, origins, _warnings(data, document, origins, settings, environ), file, environ)


def _file(named: str | int | None, directory: Path) -> Path | None:
    if named:
        return Path(str(named))
    usual = directory / DEFAULT_FILE
    return usual if usual.exists() else None


def _overlay(data: dict[str, Any], path: KeyPath, value: object, origins: dict[KeyPath, str], origin: str) -> None:
    """Puts one value over what the file says. A section that is no mapping is left for validation to complain of."""
    *sections, key = path
    for section in sections:
        inner = data.get(str(section)) or {}
        if not isinstance(inner, dict):
            return
        data[str(section)] = dict(inner)
        data = data[str(section)]
    data[str(key)] = value
    origins[path] = origin


def _validated(data: Mapping[str, object], document: Document, origins: Mapping[KeyPath, str]) -> Settings:
    problems = list(document.problems)
    broken = {problem.path for problem in problems}
    settings = None
    try:
        settings = Settings.model_validate(data)
    except ValidationError as error:
        found = config_check.explain(error, Settings, document.references)
        problems += [_problem(path, message, document, origins) for path, message in found if path not in broken]
    problems += [_problem(path, message, document, origins) for path, message in config_check.contradictions(data)]
    if settings is not None and settings.guards:
        found = config_check.guards(settings.guards, document.references)
        problems += [_problem(path, message, document, origins) for path, message in found if path not in broken]
    if settings is not None and settings.features.views:
        found = config_check.feature_views(settings.features.views, document.references)
        problems += [_problem(path, message, document, origins) for path, message in found if path not in broken]
    if problems or settings is None:
        raise ConfigError(*problems)
    return settings


def _problem(path: KeyPath, message: str, document: Document, origins: Mapping[KeyPath, str]) -> Problem:
    place = origins.get(path) or (document.place(path) if document.file else "")
    shown = path[:-1] if message.startswith("unknown key") else path
    return Problem(place, shown, message, document.line(path))


def _warnings(
    data: Mapping[str, object],
    document: Document,
    origins: Mapping[KeyPath, str],
    settings: Settings,
    environ: Mapping[str, str],
) -> tuple[str, ...]:
    unset = {
        path: names
        for path, text in document.references.items()
        if path[-1] in config_file.KEPT_UNRESOLVED and (names := _unset(text, environ))
    }
    found = [*config_check.not_in_force(data, origins), *config_check.doubtful(data, unset)]
    found.sort(key=lambda finding: document.line(finding[0]))
    warnings = [f"{origins[path]}: {message}" for path, message in found]
    if settings.admin_key is not None and len(settings.admin_key.get_secret_value()) < 16:
        warnings.append(f"{origins['admin_key',]}: admin_key: shorter than 16 characters, which can be guessed")
    return tuple(warnings)


def _unset(text: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    try:
        resolve(text, environ)
    except UnresolvedError:
        return tuple(name for name in references(text) if name not in environ)
    return ()
