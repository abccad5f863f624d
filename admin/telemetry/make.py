"""Makes what the section `telemetry` asks for. Imported by those who ask for something."""

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING

from pydantic import SecretStr

from admin.telemetry.feed import Feed, Sink
from admin.telemetry.settings import (
    SIGNALS,
    KafkaSection,
    LangfuseSection,
    OtlpSection,
    S3Section,
    TelemetryError,
    TelemetrySection,
)
from admin.telemetry.sinks.json_log import JsonLog
from admin.telemetry.sinks.kafka import AioKafka, Kafka
from admin.telemetry.sinks.langfuse import Langfuse
from admin.telemetry.sinks.s3 import S3, Credentials
from admin.telemetry.sinks.webhook import WebhookSink
from admin.telemetry.watch import Inside, Watch
from gateway.recorder import Records

if TYPE_CHECKING:  # an extra of its own
    from admin.telemetry import process_logs
    from admin.telemetry.otlp import Sender


def watch(section: TelemetrySection, inner: Records, version: str, session: str, redact: Callable[[str], str]) -> Watch:
    """Raises TelemetryError. `session` tells processes apart; `redact` is for content, of which most receivers get none."""
    inside: Inside = ContextVar("inside", default=None)
    own = _process_logs(section, redact, inside)
    feeds = [
        Feed(sink, room=section.queue, batch=section.batch, interval_s=section.interval_s)
        for sink in _sinks(section, version, session, own)
    ]
    if section.s3 is not None:  # few large objects, not many small ones
        feeds.append(Feed(_s3(section.s3), room=section.queue, batch=section.queue, interval_s=section.s3.interval_s))
    return Watch(
        inner,
        feeds,
        section.sampling(),
        room=section.queue,
        redact=redact if section.content else None,
        inside=inside,
        own=own,
    )


def _process_logs(
    section: TelemetrySection, redact: Callable[[str], str], inside: Inside
) -> "process_logs.ProcessLogs | None":
    otlp = section.otlp
    if otlp is None or otlp.process_logs == "off" or otlp.address("logs") is None:
        return None
    from admin.telemetry import process_logs  # noqa: PLC0415 — for those who ask for it

    def here() -> tuple[int, int] | None:
        found = inside.get()
        return None if found is None else (found[0].trace, found[1])

    return process_logs.ProcessLogs(otlp.process_logs, section.queue, redact, here)


def _sinks(
    section: TelemetrySection, version: str, session: str, own: "process_logs.ProcessLogs | None"
) -> Iterator[Sink]:
    if section.otlp is not None:
        yield from _otlp(section.otlp, resource(section, version, session), version, own)
    if section.json_log is not None:
        yield JsonLog(section.json_log.path)
    for hook in section.webhooks:
        headers = {name: value.get_secret_value() for name, value in hook.headers.items()}
        yield WebhookSink(hook.url, shown(hook.secret), headers, hook.timeout_s, content=hook.content)
    if section.langfuse is not None:
        yield _langfuse(section.langfuse)
    if section.kafka is not None:
        yield _kafka(section.kafka)


def shown(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _langfuse(section: LangfuseSection) -> Sink:
    keys = section.public_key.get_secret_value(), section.secret_key.get_secret_value()
    return Langfuse(section.url, *keys, section.timeout_s, content=section.content)


def _s3(section: S3Section) -> Sink:
    keys = section.access_key.get_secret_value(), section.secret_key.get_secret_value()
    return S3(
        bucket=section.bucket,
        prefix=section.prefix,
        region=section.region,
        endpoint=section.endpoint,
        credentials=Credentials(*keys, shown(section.session_token)),
        timeout_s=section.timeout_s,
        content=section.content,
    )


def _kafka(section: KafkaSection) -> Sink:
    password = shown(section.password)
    try:
        broker = AioKafka(section.servers, section.timeout_s, section.security, section.username, password)
    except ImportError as error:
        raise TelemetryError(str(error)) from None
    return Kafka(broker, section.topic, content=section.content)


def resource(section: TelemetrySection, version: str, session: str) -> Mapping[str, str]:
    """Who tells. What the configuration says stands above what is found out."""
    return {
        "service.name": section.service_name,
        "service.version": version,
        "service.instance.id": session,
        "host.name": socket.gethostname(),
        "process.pid": str(os.getpid()),
        "telemetry.sdk.name": "penstock",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.version": version,
        **section.resource,
    }


def _otlp(
    section: OtlpSection, told: Mapping[str, str], version: str, own: "process_logs.ProcessLogs | None"
) -> Iterator[Sink]:
    try:
        from admin.telemetry import otlp  # noqa: PLC0415 — an extra: Protocol Buffers
    except ImportError:
        raise TelemetryError("telemetry.otlp needs the extra: pip install 'penstock[telemetry]'") from None
    for signal in SIGNALS:
        address = section.address(signal)
        if address is None:
            continue
        sender = _sender(section, signal, address)
        if signal == "traces":
            yield otlp.Traces(sender, told, version)
        elif signal == "logs":
            yield otlp.Logs(sender, told, version, own)
        else:
            delta = section.temporality == "delta"
            yield otlp.Metrics(sender, told, version, every_s=section.metrics_interval_s, delta=delta)


def _sender(section: OtlpSection, signal: str, address: str) -> "Sender":
    from admin.telemetry.transport import OverGrpc, OverHttp  # noqa: PLC0415 — see above

    headers = {name: value.get_secret_value() for name, value in section.headers.items()}
    if section.protocol == "http/protobuf":
        return OverHttp(address, headers, section.timeout_s, section.compression, section.ca_file)
    try:
        return OverGrpc(address, signal, headers, section.timeout_s, section.compression, section.ca_file)
    except ImportError as error:
        raise TelemetryError(str(error)) from None
