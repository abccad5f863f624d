"""Fixtures live in tests/fixtures, one file per subject; this file only lists them."""

import gc
from importlib.util import find_spec

from hypothesis import HealthCheck, settings

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
    *(["tests.fixtures.predictions"] if find_spec("skl2onnx") else []),  # not where optional packages are tested
]
