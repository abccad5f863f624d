"""Makes what the section `telemetry` asks for. Imported by those who ask for something."""

import os
import socket
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from admin.telemetry.feed import Feed, Sink
from admin.telemetry.settings import SIGNALS, OtlpSection, TelemetrySection
from admin.telemetry.watch import Watch
from gateway.recorder import Records

if TYPE_CHECKING:  # an extra of its own
    from admin.telemetry.otlp import Send


class TelemetryError(Exception):
    """Something is asked for that is not installed, or not there."""


def watch(section: TelemetrySection, inner: Records, version: str, session: str) -> Watch:
    """Raises TelemetryError. `session` tells processes apart."""
    feeds = [
        Feed(sink, room=section.queue, batch=section.batch, interval_s=interval_s)
        for sink, interval_s in _sinks(section, version, session)
    ]
    return Watch(inner, feeds, section.sampling(), room=section.queue)


def _sinks(section: TelemetrySection, version: str, session: str) -> Iterator[tuple[Sink, float]]:
    if section.otlp is not None:
        for sink in _otlp(section.otlp, resource(section, version, session), version):
            yield sink, section.interval_s


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


def _otlp(section: OtlpSection, told: Mapping[str, str], version: str) -> Iterator[Sink]:
    try:
        from admin.telemetry import otlp  # noqa: PLC0415 — an extra: Protocol Buffers
    except ImportError:
        raise TelemetryError("telemetry.otlp needs the extra: pip install 'penstock[telemetry]'") from None
    for signal in SIGNALS:
        address = section.address(signal)
        if address is None:
            continue
        send = _send(section, signal, address)
        if signal == "traces":
            yield otlp.Traces(send, told, version)
        elif signal == "logs":
            yield otlp.Logs(send, told, version)
        else:
            delta = section.temporality == "delta"
            yield otlp.Metrics(send, told, version, every_s=section.metrics_interval_s, delta=delta)


def _send(section: OtlpSection, signal: str, address: str) -> "Send":
    from admin.telemetry.transport import OverGrpc, OverHttp  # noqa: PLC0415 — see above

    headers = {name: value.get_secret_value() for name, value in section.headers.items()}
    if section.protocol == "http/protobuf":
        return OverHttp(address, headers, section.timeout_s, section.compression, section.ca_file).send
    try:
        return OverGrpc(address, signal, headers, section.timeout_s, section.compression, section.ca_file).send
    except ImportError as error:
        raise TelemetryError(str(error)) from None
