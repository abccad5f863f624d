"""What decides, without a server: contexts and samples, settings and their variables, histograms, and gRPC on its own wire."""

import math
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from admin import settings
from admin.config_file import ConfigError
from admin.telemetry import otlp
from admin.telemetry.feed import Refused, Unacceptable
from admin.telemetry.measures import MOST_SERIES, OVERFLOW, SERVER_DURATION, TOKEN_USAGE, Measures
from admin.telemetry.settings import TelemetrySection
from admin.telemetry.transport import SERVICES, OverGrpc, OverHttp
from gateway.trace_context import Context, Sampler, context, new_span
from tests.fixtures.collector import attributes, collecting
from tests.telemetry.test_sinks import account

ROOT = Path(__file__).parents[2]
TRACE = "0af7651916cd43dd8448eb211c80319c"


def test_a_trace_is_taken_over_as_it_is_named() -> None:
    """Its id, its span as parent, its decision and its state; an unknown version by its known part."""
    headers = {b"traceparent": f"00-{TRACE}-b7ad6b7169203331-01".encode(), b"tracestate": b"a=1"}
    found = context(headers, Sampler(0.0))
    assert found == Context(int(TRACE, 16), 0xB7AD6B7169203331, True, b"a=1")
    assert found.lines(1) == f"traceparent: 00-{TRACE}-{1:016x}-01\r\ntracestate: a=1\r\n".encode()
    later = {b"traceparent": f"cc-{TRACE}-b7ad6b7169203331-01-more".encode()}
    assert context(later, Sampler()).trace == int(TRACE, 16)
    assert context(headers, Sampler(0.0, follows=False)).sampled is False


@given(st.binary(max_size=80))
def test_whatever_else_comes_begins_a_new_one(noise: bytes) -> None:
    """Without the state of a trace that nobody can name."""
    found = context({b"traceparent": noise, b"tracestate": b"a=1"}, Sampler())
    assert found.trace
    assert found.parent is not None or found.state is None


@given(st.floats(0, 1), st.lists(st.integers(1, (1 << 128) - 1), min_size=1))
def test_a_larger_share_keeps_what_a_smaller_one_does(share: float, traces: list[int]) -> None:
    """Every process decides alike, and none of nothing is kept, all of all."""
    more = min(1.0, share * 1.5)
    assert all(Sampler(more).keeps(trace) for trace in traces if Sampler(share).keeps(trace))
    assert not any(Sampler(0.0).keeps(trace) for trace in traces)
    assert all(Sampler(1.0).keeps(trace) for trace in traces)
    assert 0 < new_span() < 1 << 64


def loaded(environ: dict[str, str], tmp_path: Path, text: str = "{}") -> settings.Loaded:
    file = tmp_path / "penstock.yaml"
    file.write_text(text)
    return settings.load({"--config": str(file)}, environ, tmp_path)


def test_it_is_off_until_somebody_is_named(tmp_path: Path) -> None:
    """Names, times and headers alone switch nothing on."""
    about = {"OTEL_SERVICE_NAME": "gate", "OTEL_EXPORTER_OTLP_HEADERS": "a=b", "OTEL_EXPORTER_OTLP_TIMEOUT": "500"}
    assert not loaded({}, tmp_path).settings.telemetry.on
    assert not loaded(about, tmp_path).settings.telemetry.on
    assert loaded({**about, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, tmp_path).settings.telemetry.on
    assert loaded({"OTEL_TRACES_EXPORTER": "otlp"}, tmp_path).settings.telemetry.on
    off = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}
    assert not loaded(off, tmp_path).settings.telemetry.on


def test_variables_stand_above_the_file_and_are_named(tmp_path: Path) -> None:
    """Milliseconds become seconds, pairs a table, and each value has its origin."""
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318/",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://traces:9/own",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20x,b = c",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1500",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=prod",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.25",
        "OTEL_METRICS_EXPORTER": "none",
    }
    found = loaded(environ, tmp_path, "telemetry: {service_name: gate, otlp: {endpoint: 'http://other:1'}}\n")
    section = found.settings.telemetry
    assert section.otlp is not None
    assert section.otlp.address("traces") == "http://traces:9/own"
    assert section.otlp.address("logs") == "http://collector:4318/v1/logs"
    assert section.otlp.address("metrics") is None
    assert {name: value.get_secret_value() for name, value in section.otlp.headers.items()} == {
        "authorization": "Bearer x",
        "b": "c",
    }
    assert section.otlp.timeout_s == 1.5
    assert (section.service_name, section.resource) == ("gate", {"deployment.environment.name": "prod"})
    assert section.sampling() == Sampler(0.25)
    assert found.origin("telemetry", "otlp", "endpoint") == "environment OTEL_EXPORTER_OTLP_ENDPOINT"
    assert "Bearer x" not in repr(found.settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ("OTEL_TRACES_SAMPLER", "xray"),
    ],
)
def test_a_variable_that_says_nothing_usable_is_an_error(tmp_path: Path, name: str, value: str) -> None:
    """One that names the variable."""
    with pytest.raises(ConfigError, match=name):
        loaded({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", name: value}, tmp_path)
    if not name.endswith("ENDPOINT"):
        assert not loaded({name: value}, tmp_path).settings.telemetry.on  # it is meant for somebody else


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        ("always_on", Sampler(1.0, follows=False)),
        ("always_off", Sampler(0.0, follows=False)),
        ("traceidratio", Sampler(0.5, follows=False)),
        ("parentbased_always_on", Sampler(1.0)),
        ("parentbased_always_off", Sampler(0.0)),
    ],
)
def test_samplers_are_opentelemetrys(sampler: str, expected: Sampler) -> None:
    """By their names there."""
    assert TelemetrySection.model_validate({"sampler": sampler, "sample_ratio": 0.5}).sampling() == expected


def test_who_is_not_watched_pays_nothing() -> None:
    """Neither OpenTelemetry nor anything of this package is loaded by a server that tells nobody."""
    heavy = "{'opentelemetry', 'grpc', 'aiokafka', 'google.protobuf', 'admin.telemetry.watch', 'gateway.contents.redaction'}"
    script = f"import sys, admin.serve; print({heavy} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_series_too_many_is_added_up_with_the_others() -> None:
    """As OpenTelemetry's own libraries do it."""
    measures = Measures()
    measures.add([account(number, metric_model=f"m{number}", error_code=None) for number in range(MOST_SERIES)])
    found = {instrument: dict(points) for instrument, points in measures.every()}
    assert sum(len(points) for points in found.values()) <= MOST_SERIES + 10
    assert sum(sum(one.counts) for one in found[SERVER_DURATION].values()) == MOST_SERIES
    assert sum(found[SERVER_DURATION][OVERFLOW].counts) > 0


def test_a_hit_of_the_cache_used_no_tokens() -> None:
    """And an attempt that was settled by itself adds what it used, but no duration."""
    measures = Measures()
    measures.add([account(1, provider="cache", steps=()), account(2, attempt=True)])
    found = dict(measures.every())
    assert SERVER_DURATION in found
    assert sum(one.total for _, one in found[TOKEN_USAGE]) == 14
    assert sum(sum(one.counts) for _, one in found[SERVER_DURATION]) == 1
    assert math.isclose(found[SERVER_DURATION][0][1].total, 0.5)


@pytest.fixture
def grpc_service() -> Iterator[tuple[str, list[tuple[bytes, dict[str, str]]], list[grpc.StatusCode]]]:
    """A collector's trace service: its address, what it got, and what it answers."""
    got: list[tuple[bytes, dict[str, str]]] = []
    answers: list[grpc.StatusCode] = []

    def export(request: bytes, about: grpc.ServicerContext) -> bytes:
        got.append((request, dict(about.invocation_metadata())))
        if answers:
            about.abort(answers.pop(0), "as told")
        return b""

    service, method = SERVICES["traces"].strip("/").split("/")
    handler = grpc.method_handlers_generic_handler(service, {method: grpc.unary_unary_rpc_method_handler(export)})
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool, handlers=(handler,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"http://127.0.0.1:{port}", got, answers
        server.stop(None).wait()


def test_over_grpc(grpc_service: tuple[str, list[tuple[bytes, dict[str, str]]], list[grpc.StatusCode]]) -> None:
    """The same message, with headers as metadata; what may work later is refused, what never will is not tried again."""
    url, got, answers = grpc_service
    sender = OverGrpc(url, "traces", {"X-Tenant": "tests"}, 10, "gzip", None)
    traces = otlp.Traces(sender, {"service.name": "gate"}, "1")
    traces.deliver([account(1)])
    request = ExportTraceServiceRequest.FromString(got[0][0])
    span = request.resource_spans[0].scope_spans[0].spans[0]
    assert attributes(span.attributes)["penstock.request.id"] == account(1).id
    assert got[0][1]["x-tenant"] == "tests"
    answers += [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INVALID_ARGUMENT]
    with pytest.raises(Refused):
        traces.deliver([account(2)])
    with pytest.raises(Unacceptable):
        traces.deliver([account(2)])
    traces.close()


def test_over_http() -> None:
    """A collector that is busy says when to come again; one that takes a part says so; one that is gone is refused."""
    with collecting() as collector:
        sender = OverHttp(f"{collector.url}/v1/traces", {}, 5, "none", None)
        message = ExportTraceServiceRequest()
        collector.answers, collector.answer_headers = [429, 400, 200], {"retry-after": "7"}
        with pytest.raises(Refused) as busy:
            sender.send(message)
        assert busy.value.after_s == 7
        with pytest.raises(Unacceptable):
            sender.send(message)
        sender.send(message)
        collector.answer_body = b"\x0a\x02\x08\x03"  # partial_success {rejected: 3}
        with pytest.raises(Unacceptable, match="rejected 3"):
            sender.send(message)
        sender.close()
    gone = OverHttp("http://127.0.0.1:1/v1/traces", {}, 5, "none", None)
    with pytest.raises(Refused, match="ConnectError"):
        gone.send(message)
    gone.close()
