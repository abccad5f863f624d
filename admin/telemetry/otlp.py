"""OTLP: spans, histograms and log records as the protocol's messages, and the three sinks that send them."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol, final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs, SeverityNumber
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Status

from admin.telemetry import conventions
from admin.telemetry.account import Account
from admin.telemetry.feed import Unacceptable
from admin.telemetry.measures import Instrument, Labels, Measures
from admin.telemetry.process_logs import Event, ProcessLogs
from admin.telemetry.spans import Span, Value, spans
from gateway.metrics import Histogram

NANO: Final = 1_000_000_000
EVENT: Final = "penstock.request"
MOST_EVENTS: Final = 512  # of one message
_SEVERITIES: Final = {
    "debug": (SeverityNumber.SEVERITY_NUMBER_DEBUG, "DEBUG"),
    "info": (SeverityNumber.SEVERITY_NUMBER_INFO, "INFO"),
    "warning": (SeverityNumber.SEVERITY_NUMBER_WARN, "WARN"),
    "error": (SeverityNumber.SEVERITY_NUMBER_ERROR, "ERROR"),
    "critical": (SeverityNumber.SEVERITY_NUMBER_FATAL, "FATAL"),
}
SAMPLED: Final = 1
_KINDS: Final = {
    "internal": trace_pb2.Span.SPAN_KIND_INTERNAL,
    "server": trace_pb2.Span.SPAN_KIND_SERVER,
    "client": trace_pb2.Span.SPAN_KIND_CLIENT,
}


class Message(Protocol):
    """A Protocol Buffers message."""

    def SerializeToString(self) -> bytes: ...  # noqa: N802 — the library's name


class Sender(Protocol):
    """Hands messages to a collector. Raises `feed.Refused`, `feed.Unacceptable`."""

    def send(self, message: Message) -> None: ...

    def close(self) -> None: ...


@final
class Traces:
    """Of what is sampled."""

    name = "otlp_traces"

    def __init__(self, sender: Sender, resource: Mapping[str, str], version: str) -> None:
        self._sender = sender
        self._resource, self._scope = _resource(resource), _scope(version)

    def deliver(self, batch: Sequence[Account]) -> None:
        made = [
            _span(account, one)
            for account in batch
            if account.sampled and not account.attempt
            for one in spans(account)
        ]
        if made:
            scoped = ScopeSpans(scope=self._scope, spans=made, schema_url=conventions.SCHEMA_URL)
            self._sender.send(
                ExportTraceServiceRequest(resource_spans=[ResourceSpans(resource=self._resource, scope_spans=[scoped])])
            )

    def tick(self) -> None: ...

    def close(self) -> None:
        self._sender.close()


@final
class Logs:
    """One record per request, with its trace; and what the process itself logs, where `own` has that."""

    name = "otlp_logs"

    def __init__(
        self,
        sender: Sender,
        resource: Mapping[str, str],
        version: str,
        own: ProcessLogs | None = None,
        unix: Callable[[], float] = time.time,
    ) -> None:
        self._own = own
        self._held: list[LogRecord] = []
        self._lost = 0
        self._sender = sender
        self._unix = unix
        self._resource, self._scope = _resource(resource), _scope(version)

    def deliver(self, batch: Sequence[Account]) -> None:
        self._send([self._record(account) for account in batch if account.recorded])

    def tick(self) -> None:
        """What could not be sent is sent first the next time."""
        own = self._own
        if own is None:
            return
        if not self._held:
            self._held = [self._event(event) for event in own.taken(MOST_EVENTS)]
            self._count_lost(own.dropped)
        try:
            self._send(self._held)
        except Unacceptable:
            self._held = []
            raise
        self._held = []

    def close(self) -> None:
        try:
            self.tick()
        finally:
            self._sender.close()

    def _send(self, records: Sequence[LogRecord]) -> None:
        if records:
            scoped = ScopeLogs(scope=self._scope, log_records=records, schema_url=conventions.SCHEMA_URL)
            self._sender.send(
                ExportLogsServiceRequest(resource_logs=[ResourceLogs(resource=self._resource, scope_logs=[scoped])])
            )

    def _count_lost(self, dropped: int) -> None:
        """What found no room is told as well."""
        if self._held and dropped > self._lost:
            lost, self._lost = dropped - self._lost, dropped
            fields = {"count": lost}
            self._held.append(self._event(Event(self._unix(), "warning", "process_logs.dropped", "", fields)))

    def _event(self, event: Event) -> LogRecord:
        severity, text = _SEVERITIES.get(event.level, _SEVERITIES["error"])
        attributes: dict[str, Value] = {f"penstock.{name}": value for name, value in event.fields.items()}
        if event.error is not None:
            attributes |= {"exception.type": event.error, "exception.stacktrace": "\n".join(event.frames)}
        return LogRecord(
            time_unix_nano=_nanos(event.at),
            observed_time_unix_nano=_nanos(self._unix()),
            severity_number=severity,
            severity_text=text,
            body=AnyValue(string_value=event.name),
            event_name=event.name,
            attributes=_attributes(attributes),
            trace_id=event.trace.to_bytes(16, "big") if event.trace else b"",
            span_id=event.span.to_bytes(8, "big") if event.span else b"",
        )

    def _record(self, account: Account) -> LogRecord:
        severity, text = _severity(account)
        told = next(spans(account))
        attributes = {**told.attributes, "penstock.latency_ms": round(account.latency_ms, 3)}
        if account.cost_nanousd is not None:
            attributes["penstock.cost_usd"] = account.cost_nanousd / NANO
        for name, tokens in (("input", account.prompt_tokens), ("output", account.completion_tokens)):
            if tokens is not None:
                attributes[f"gen_ai.usage.{name}_tokens"] = tokens
        return LogRecord(
            time_unix_nano=_nanos(account.ended),
            observed_time_unix_nano=_nanos(self._unix()),
            severity_number=severity,
            severity_text=text,
            body=AnyValue(string_value=f"{told.name} {account.status}"),
            event_name=EVENT,
            attributes=_attributes(attributes),
            trace_id=account.trace.to_bytes(16, "big"),
            span_id=account.span.to_bytes(8, "big"),
            flags=SAMPLED if account.sampled else 0,
        )


@final
class Metrics:
    """Sent every `every_s`. `delta`: each time what was added since, instead of all since the start."""

    name = "otlp_metrics"

    def __init__(
        self,
        sender: Sender,
        resource: Mapping[str, str],
        version: str,
        *,
        every_s: float = 60.0,
        delta: bool = False,
        unix: Callable[[], float] = time.time,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sender = sender
        self._resource, self._scope = _resource(resource), _scope(version)
        self._every_s = every_s
        self._delta = delta
        self._unix = unix
        self._now = now
        self._measures = Measures()
        self._since = unix()
        self._sent_at = now()

    def deliver(self, batch: Sequence[Account]) -> None:
        self._measures.add(batch)

    def tick(self) -> None:
        if self._now() - self._sent_at >= self._every_s:
            self._sent_at = self._now()
            self._export()

    def close(self) -> None:
        try:
            self._export()
        finally:
            self._sender.close()

    def _export(self) -> None:
        until = self._unix()
        made = [self._metric(instrument, points, until) for instrument, points in self._measures.every()]
        if not made:
            return
        scoped = ScopeMetrics(scope=self._scope, metrics=made, schema_url=conventions.SCHEMA_URL)
        self._sender.send(
            ExportMetricsServiceRequest(
                resource_metrics=[ResourceMetrics(resource=self._resource, scope_metrics=[scoped])]
            )
        )
        if self._delta:
            self._measures.clear()
            self._since = until

    def _metric(self, instrument: Instrument, points: Sequence[tuple[Labels, Histogram]], until: float) -> Metric:
        made = Metric(name=instrument.name, unit=instrument.unit, description=instrument.description)
        temporality = (
            metrics_pb2.AGGREGATION_TEMPORALITY_DELTA if self._delta else metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE
        )
        since_ns, until_ns = _nanos(self._since), _nanos(until)
        if not instrument.bounds:
            numbers = [
                NumberDataPoint(
                    attributes=_attributes(dict(labels)),
                    as_double=one.total,
                    start_time_unix_nano=since_ns,
                    time_unix_nano=until_ns,
                )
                for labels, one in points
            ]
            made.sum.CopyFrom(Sum(data_points=numbers, aggregation_temporality=temporality, is_monotonic=True))
            return made
        histograms = [
            HistogramDataPoint(
                attributes=_attributes(dict(labels)),
                count=sum(one.counts),
                sum=one.total,
                bucket_counts=one.counts,
                explicit_bounds=one.bounds,
                start_time_unix_nano=since_ns,
                time_unix_nano=until_ns,
            )
            for labels, one in points
        ]
        made.histogram.CopyFrom(metrics_pb2.Histogram(data_points=histograms, aggregation_temporality=temporality))
        return made


def _span(account: Account, span: Span) -> trace_pb2.Span:
    status = Status(code=Status.STATUS_CODE_ERROR) if span.failed else None
    return trace_pb2.Span(
        trace_id=account.trace.to_bytes(16, "big"),
        span_id=span.span.to_bytes(8, "big"),
        parent_span_id=b"" if span.parent is None else span.parent.to_bytes(8, "big"),
        name=span.name,
        kind=_KINDS[span.kind],
        start_time_unix_nano=_nanos(span.began),
        end_time_unix_nano=_nanos(max(span.began, span.ended)),
        attributes=_attributes(span.attributes),
        status=status,
        flags=SAMPLED,
    )


def _severity(account: Account) -> tuple["SeverityNumber.ValueType", str]:
    if account.status >= 500:
        return SeverityNumber.SEVERITY_NUMBER_ERROR, "ERROR"
    if account.error_code is not None:
        return SeverityNumber.SEVERITY_NUMBER_WARN, "WARN"
    return SeverityNumber.SEVERITY_NUMBER_INFO, "INFO"


def _resource(attributes: Mapping[str, str]) -> Resource:
    return Resource(attributes=_attributes(attributes))


def _scope(version: str) -> InstrumentationScope:
    return InstrumentationScope(name=conventions.SCOPE, version=version)


def _attributes(attributes: Mapping[str, Value]) -> list[KeyValue]:
    return [KeyValue(key=name, value=_value(value)) for name, value in attributes.items()]


def _value(value: Value) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case str():
            return AnyValue(string_value=value)
        case _:
            return AnyValue(array_value=ArrayValue(values=[AnyValue(string_value=one) for one in value]))


def _nanos(unix: float) -> int:
    return int(unix * NANO)
