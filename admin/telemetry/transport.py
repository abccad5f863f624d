"""OTLP on the wire: Protocol Buffers over HTTP, or gRPC, to a collector that may be slow, full or gone (OTLP specification 1.7)."""

import gzip
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, final
from urllib.parse import urlsplit

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from admin.telemetry.feed import Refused, Unacceptable
from admin.telemetry.otlp import Message

AGAIN: Final = frozenset({429, 502, 503, 504})
SERVICES: Final = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}
Compression = Literal["none", "gzip"]


@final
class OverHttp:
    """One signal's address. `headers` may hold a password, so they are never shown."""

    def __init__(
        self, url: str, headers: Mapping[str, str], timeout_s: float, compression: Compression, ca_file: Path | None
    ) -> None:
        verify = True if ca_file is None else ssl.create_default_context(cafile=str(ca_file))
        self._url = url
        self._gzip = compression == "gzip"
        own = {"content-type": "application/x-protobuf"} | ({"content-encoding": "gzip"} if self._gzip else {})
        self._client = httpx.Client(timeout=timeout_s, verify=verify, headers={**headers, **own}, trust_env=False)

    def send(self, message: Message) -> None:
        body = message.SerializeToString()
        try:
            answer = self._client.post(self._url, content=gzip.compress(body, 5) if self._gzip else body)
        except httpx.HTTPError as error:
            raise Refused(type(error).__name__) from None
        if answer.status_code in AGAIN:
            raise Refused(f"status {answer.status_code}", _seconds(answer.headers.get("retry-after")))
        if not answer.is_success:
            raise Unacceptable(f"status {answer.status_code}")
        _look_for_rejections(answer.content)

    def close(self) -> None:
        self._client.close()


@final
class OverGrpc:
    """The same over gRPC."""

    def __init__(
        self,
        url: str,
        signal: str,
        headers: Mapping[str, str],
        timeout_s: float,
        compression: Compression,
        ca_file: Path | None,
    ) -> None:
        """Raises ImportError, with the extra's name."""
        try:
            import grpc  # noqa: PLC0415 — an extra, for those who name it as their protocol
        except ImportError:
            raise ImportError("OTLP over gRPC needs the extra: pip install 'penstock[telemetry-grpc]'") from None
        parts = urlsplit(url)
        place = parts.netloc.rpartition("@")[2] or url
        packing = grpc.Compression.Gzip if compression == "gzip" else grpc.Compression.NoCompression
        if parts.scheme == "https":
            roots = None if ca_file is None else ca_file.read_bytes()
            channel = grpc.secure_channel(place, grpc.ssl_channel_credentials(roots), compression=packing)
        else:
            channel = grpc.insecure_channel(place, compression=packing)
        self._error: type[grpc.RpcError] = grpc.RpcError
        self._again = frozenset(
            {
                grpc.StatusCode.CANCELLED,
                grpc.StatusCode.DEADLINE_EXCEEDED,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                grpc.StatusCode.ABORTED,
                grpc.StatusCode.OUT_OF_RANGE,
                grpc.StatusCode.UNAVAILABLE,
                grpc.StatusCode.DATA_LOSS,
            }
        )
        self._headers = tuple((name.lower(), value) for name, value in headers.items())
        self._timeout_s = timeout_s
        self._channel = channel
        self._call = channel.unary_unary(SERVICES[signal], lambda message: message.SerializeToString(), bytes)

    def send(self, message: Message) -> None:
        try:
            answer = self._call(message, timeout=self._timeout_s, metadata=self._headers)
        except self._error as error:
            code = error.code()
            if code in self._again:
                raise Refused(code.name) from None
            raise Unacceptable(code.name) from None
        _look_for_rejections(answer)

    def close(self) -> None:
        self._channel.close()


def _look_for_rejections(answer: bytes) -> None:
    """A collector may take a part. The three signals' answers have the same form."""
    if not answer:
        return
    try:
        told = ExportTraceServiceResponse.FromString(answer).partial_success
    except ValueError:  # some answer with JSON, whatever they were asked in
        return
    if told.rejected_spans:
        raise Unacceptable(f"the collector rejected {told.rejected_spans} of a batch")


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isdecimal() else None
