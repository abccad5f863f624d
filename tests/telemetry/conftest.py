"""One server for those who record what is said: nobody's words but those of keys that want it."""

from collections.abc import Iterator

import pytest

from tests.fixtures.deployments import Routes
from tests.fixtures.server import Server
from tests.fixtures.upstream import Upstream


@pytest.fixture(scope="session")
def routes(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Routes]:
    server = Server({"models": []}, tmp_path_factory.mktemp("contents")).start()
    yield Routes(server, upstream)
    alive = server.running()
    server.stop()
    assert alive, server.output
