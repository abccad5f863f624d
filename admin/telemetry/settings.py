"""What is told to whom: the section `telemetry`, and OpenTelemetry's environment variables, which stand above it.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/ and …/protocol/exporter/
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import unquote

from pydantic import Field, SecretStr, model_validator

from gateway.settings import PositiveSeconds, Section
from gateway.trace_context import Sampler

Signal = Literal["traces", "metrics", "logs"]
SIGNALS: Final[tuple[Signal, ...]] = ("traces", "metrics", "logs")
Address = Annotated[str, Field(max_length=2000, pattern=r"^https?://[^\s/]+(/\S*)?$")]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class TelemetryError(Exception):
    """Something is asked for that is not installed."""


class OtlpSection(Section):
    """A collector. `endpoint` stands for all signals, with the paths that OTLP/HTTP gives them; the others are whole addresses.

    `process_logs`: events of this level and above go there as logs, too, beside the one of each request.
    """

    endpoint: Address | None = None
    traces_endpoint: Address | None = None
    metrics_endpoint: Address | None = None
    logs_endpoint: Address | None = None
    signals: tuple[Signal, ...] = SIGNALS
    protocol: Literal["http/protobuf", "grpc"] = "http/protobuf"
    headers: dict[str, SecretStr] = Field(default={})
    compression: Literal["none", "gzip"] = "none"
    timeout_s: PositiveSeconds = 10
    ca_file: Path | None = None
    temporality: Literal["cumulative", "delta"] = "cumulative"
    metrics_interval_s: PositiveSeconds = 60
    process_logs: Literal["off", "error", "warning", "info", "debug"] = "off"

    def address(self, signal: Signal) -> str | None:
        """None where nobody wants it."""
        own: str | None = getattr(self, f"{signal}_endpoint")
        if signal not in self.signals or own is not None or self.endpoint is None:
            return own if signal in self.signals else None
        return self.endpoint if self.protocol == "grpc" else f"{self.endpoint.rstrip('/')}/v1/{signal}"


class JsonLogSection(Section):
    """A line of JSON per request. Without a `path` on standard output."""

    path: Path | None = None


class WebhookSinkSection(Section):
    """Batches as JSON. With a `secret` each is signed (HMAC-SHA256)."""

    url: Address
    secret: SecretStr | None = Field(default=None, min_length=8, max_length=1000)
    headers: dict[str, SecretStr] = Field(default={})
    timeout_s: PositiveSeconds = 10
    content: bool = False


class LangfuseSection(Section):
    """Langfuse's ingestion API. `content`: what is recorded of requests and answers goes there too."""

    url: Address = "https://cloud.langfuse.com"
    public_key: SecretStr
    secret_key: SecretStr
    timeout_s: PositiveSeconds = 20
    content: bool = False


class S3Section(Section):
    """Objects of lines of JSON, gzipped, in a bucket of S3 or of anything that speaks its API (`endpoint`)."""

    bucket: str = Field(min_length=3, max_length=63, pattern=r"^[a-z0-9][a-z0-9.-]+$")
    prefix: str = Field(default="penstock/", max_length=500, pattern=r"^[A-Za-z0-9!_.*'()/=-]*$")
    region: str = Field(default="us-east-1", min_length=1, max_length=64)
    endpoint: Address | None = None
    access_key: SecretStr
    secret_key: SecretStr
    session_token: SecretStr | None = None
    timeout_s: PositiveSeconds = 30
    interval_s: PositiveSeconds = 60
    content: bool = False


class KafkaSection(Section):
    """A message of JSON per request, with the key's id as its key."""

    servers: tuple[Name, ...] = Field(min_length=1)
    topic: str = Field(default="penstock.requests", min_length=1, max_length=249, pattern=r"^[A-Za-z0-9._-]+$")
    security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    username: str | None = None
    password: SecretStr | None = None
    timeout_s: PositiveSeconds = 30
    content: bool = False


class TelemetrySection(Section):
    """Off as long as it names nobody. `queue`, `batch`, `interval_s`: of each receiver; what finds no room is dropped and counted."""

    service_name: Name = "penstock"
    resource: dict[Name, str] = Field(default={})
    sampler: Literal[
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ] = "parentbased_always_on"
    sample_ratio: float = Field(default=1.0, ge=0, le=1)
    queue: int = Field(default=4096, ge=1, le=1 << 20)
    batch: int = Field(default=512, ge=1, le=1 << 16)
    interval_s: PositiveSeconds = 1
    disabled: bool = False
    otlp: OtlpSection | None = None
    json_log: JsonLogSection | None = None
    webhooks: tuple[WebhookSinkSection, ...] = Field(default=(), max_length=20)
    langfuse: LangfuseSection | None = None
    s3: S3Section | None = None
    kafka: KafkaSection | None = None

    @property
    def on(self) -> bool:
        every = (self.json_log, *self.webhooks, self.langfuse, self.s3, self.kafka)
        collected = self.otlp is not None and any(self.otlp.address(signal) for signal in SIGNALS)
        return not self.disabled and (collected or any(one is not None for one in every))

    @property
    def content(self) -> bool:
        """Whether anybody is to have what was recorded of requests and answers."""
        return self.on and any(
            one is not None and one.content for one in (*self.webhooks, self.langfuse, self.s3, self.kafka)
        )

    def sampling(self) -> Sampler:
        share = 1.0 if self.sampler.endswith("always_on") else 0.0
        return Sampler(
            self.sample_ratio if self.sampler.endswith("traceidratio") else share,
            self.sampler.startswith("parentbased_"),
        )

    @model_validator(mode="after")
    def _a_batch_fits(self) -> Self:
        if self.batch > self.queue:
            raise ValueError("batch must not be larger than queue")
        return self


def environment(environ: Mapping[str, str], *, named: bool) -> Iterator[tuple[str, tuple[str, ...], object]]:
    """What OpenTelemetry's variables say of the section: variable, path, value. One that is set but empty is not set (specification).

    They count where there is a collector: `named` in the file, or by one of them. On many machines they are set for others.
    """
    exporters = {signal: environ.get(f"OTEL_{signal.upper()}_EXPORTER") or "" for signal in SIGNALS}
    if not (named or any(environ.get(place) for place in _ADDRESSES) or "otlp" in "".join(exporters.values())):
        return
    for name, path in _PLAIN.items():
        if value := environ.get(name):
            yield name, path, value
    for name, path in _MILLISECONDS.items():
        if value := environ.get(name):
            yield name, path, _seconds(value)
    for name, path in _PAIRS.items():
        if value := environ.get(name):
            yield name, path, _pairs(value)
    if (name := "OTEL_SDK_DISABLED") in environ:
        yield name, ("disabled",), environ[name].strip().lower() == "true"
    if any(exporters.values()):
        yield (
            "OTEL_*_EXPORTER",
            ("otlp", "signals"),
            [name for name, one in exporters.items() if "otlp" in (one or "otlp")],
        )
        if not (named or any(environ.get(place) for place in _ADDRESSES)):
            port = "4317" if environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") == "grpc" else "4318"
            yield "OTEL_*_EXPORTER", ("otlp", "endpoint"), f"http://localhost:{port}"


_PLAIN: Final = {
    "OTEL_SERVICE_NAME": ("service_name",),
    "OTEL_TRACES_SAMPLER": ("sampler",),
    "OTEL_TRACES_SAMPLER_ARG": ("sample_ratio",),
    "OTEL_BSP_MAX_QUEUE_SIZE": ("queue",),
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": ("batch",),
    "OTEL_EXPORTER_OTLP_ENDPOINT": ("otlp", "endpoint"),
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": ("otlp", "traces_endpoint"),
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": ("otlp", "metrics_endpoint"),
    "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": ("otlp", "logs_endpoint"),
    "OTEL_EXPORTER_OTLP_PROTOCOL": ("otlp", "protocol"),
    "OTEL_EXPORTER_OTLP_COMPRESSION": ("otlp", "compression"),
    "OTEL_EXPORTER_OTLP_CERTIFICATE": ("otlp", "ca_file"),
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": ("otlp", "temporality"),
}
_ADDRESSES: Final = tuple(name for name in _PLAIN if name.endswith("_ENDPOINT"))
_MILLISECONDS: Final = {
    "OTEL_BSP_SCHEDULE_DELAY": ("interval_s",),
    "OTEL_EXPORTER_OTLP_TIMEOUT": ("otlp", "timeout_s"),
    "OTEL_METRIC_EXPORT_INTERVAL": ("otlp", "metrics_interval_s"),
}
_PAIRS: Final = {"OTEL_EXPORTER_OTLP_HEADERS": ("otlp", "headers"), "OTEL_RESOURCE_ATTRIBUTES": ("resource",)}


def _seconds(milliseconds: str) -> object:
    """What is no number is left for validation to complain of."""
    try:
        return float(milliseconds) / 1000
    except ValueError:
        return milliseconds


def _pairs(text: str) -> dict[str, str]:
    """`key=value,key=value`, percent-encoded (W3C Baggage)."""
    pairs = (pair.partition("=") for pair in text.split(",") if "=" in pair)
    return {unquote(name.strip()): unquote(value.strip()) for name, _, value in pairs}
