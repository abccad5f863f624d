"""Fixtures live in tests/fixtures, one file per subject; this file only lists them."""

pytest_plugins: list[str] = [
    "tests.fixtures.embedding",
    "tests.fixtures.control",
    "tests.fixtures.postgres",
    "tests.fixtures.upstream",
    "tests.fixtures.server",
    "tests.fixtures.deployments",
    "tests.fixtures.redis",
    "tests.fixtures.leases",
]
