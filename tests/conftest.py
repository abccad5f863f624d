"""Fixtures live in tests/fixtures, one file per subject; this file only lists them."""

import gc
import os
from importlib.util import find_spec

import pytest
from hypothesis import HealthCheck, settings

from gateway import compiled

if os.environ.get("PENSTOCK_TEST_COMPILED"):  # noqa: TID251 — `make test-compiled`: here as well, and not in servers alone
    assert compiled.use(), "nothing is compiled of this source: penstock compile"

# A million objects live here, and the collector stops a test for a second whenever it looks at all of them: ten times as rarely, then.
gc.set_threshold(700, 10, 100)

# Two runs of the same tree try the same examples, and a slow machine is no failure; `make soak` looks for new ones.
settings.register_profile(
    "steady", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("search", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")

pytest_plugins: list[str] = [
    "tests.fixtures.embedding",
    "tests.fixtures.control",
    "tests.fixtures.postgres",
    "tests.fixtures.upstream",
    "tests.fixtures.server",
    "tests.fixtures.deployments",
    "tests.fixtures.redis",
    "tests.fixtures.leases",
    "tests.fixtures.retrieval",
    "tests.fixtures.rollouts",
    "tests.fixtures.engines",
    "tests.fixtures.plane",
    "tests.fixtures.anew",
    "tests.fixtures.opened",
    *(["tests.fixtures.predictions"] if find_spec("skl2onnx") else []),  # not where optional packages are tested
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--torn", action="store_true", help="every module in two parts, as sharing out its tests may do")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Fixtures of a module are then made twice: what they put into a server that is everybody's must bear that."""
    if config.getoption("torn"):
        items[:] = items[::2] + items[1::2]
