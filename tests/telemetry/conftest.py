"""Servers that tests of telemetry share: one that records the words of keys that want it, and one that tells a collector everything."""

from collections.abc import Iterator

import pytest

from tests.fixtures.collector import collecting
from tests.fixtures.deployments import Routes
from tests.fixtures.server import Server
from tests.fixtures.upstream import Upstream
from tests.telemetry.watched import Watched


@pytest.fixture(scope="session")
def routes(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Routes]:
    server = Server({"models": []}, tmp_path_factory.mktemp("contents")).start()
    yield Routes(server, upstream)
    alive = server.running()
    server.stop()
    assert alive, server.output


@pytest.fixture(scope="session")
def watched(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with collecting() as collector:
        config = {
            "models": [],
            "cache": {"exact": {"ttl_s": 600}},
            "telemetry": {
                "interval_s": 0.1,
                "resource": {"deployment.environment.name": "tests"},
                "otlp": {"process_logs": "info"},
            },
        }
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=tests%20here",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_METRIC_EXPORT_INTERVAL": "200",
            "OTEL_SERVICE_NAME": "gate",
        }
        server = Server(config, tmp_path_factory.mktemp("otlp"), environ=environ).start()
        yield Watched(server, Routes(server, upstream), collector)
        alive = server.running()
        server.stop()
        assert alive, server.output
