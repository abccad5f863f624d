"""Schemathesis reads the process's own document and tries to break every path of both planes, over the wire."""

from collections.abc import Iterator
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.fixtures.server import ADMIN_KEY, Server, models
from tests.fixtures.upstream import Upstream

CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
GUARDED: Final = "/admin/v1"


@pytest.fixture(scope="module")
def served(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A process of its own, as everything in it may be changed."""
    server = Server({"models": models(upstream)}, tmp_path_factory.mktemp("openapi")).start()
    yield server
    alive = server.running()
    server.stop()
    assert alive, server.output


def try_all(server: Server, examples: int, *, admin: bool) -> int:
    """How many operations were tried. A model that exists is asked for, so that more than 404s come back."""
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    chosen = [one for one in operations if one.path.startswith(GUARDED) is admin]
    headers = {"authorization": f"Bearer {ADMIN_KEY if admin else server.key}"}
    for operation in chosen:

        @given(case=operation.as_strategy())
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def survives(case: Case[Any]) -> None:
            if not admin and isinstance(case.body, dict) and "model" in case.body:
                case.body["model"] = "chat"
            case.call_and_validate(headers=headers, checks=CHECKS)

        survives()
    assert server.running()
    return len(chosen)


@pytest.mark.timeout(180)
def test_no_documented_request_breaks_the_data_plane(served: Server) -> None:
    """No 5xx, no undocumented status or type, no answer or error that differs from its schema."""
    assert try_all(served, 4, admin=False) > 40


@pytest.mark.timeout(180)
def test_no_documented_request_breaks_the_admin_plane(served: Server) -> None:
    """The same over the wire; tests/control has more examples without it."""
    assert try_all(served, 1, admin=True) > 60


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("admin", [False, True])
def test_nothing_breaks_in_a_long_search(served: Server, admin: bool) -> None:
    """Many more examples, new ones each time."""
    try_all(served, 200, admin=admin)
