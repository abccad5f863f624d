"""Schemathesis reads the OpenAPI document and tries to break every documented route."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from admin.migrate import prepare
from gateway.database import connect
from gateway.refresh import Refresher
from gateway.secret_box import SecretBox
from gateway.snapshot import Current
from gateway.snapshot_store import SnapshotStore
from tests.fixtures.control import ADMIN_KEY, CLOSED_S, application, resolve

# Any of three headers may hold the key, which the first check does not expect (test_admin_rest asks every route without
# one); and some rules, such as that an address is needed, are beyond what a JSON schema can say.
NOT_FOR_US = [ignored_auth, positive_data_acceptance]


@pytest.fixture
def apps(
    box: SecretBox, new_postgres: Callable[[str], str], migrated_postgres: str, tmp_path: Path
) -> Iterator[list[FastAPI]]:
    """One on each kind of database. To make a request up takes ten times as long as to ask it."""
    sqlite = connect(f"sqlite:///{tmp_path / 'penstock.db'}")
    prepare(sqlite)
    with ExitStack() as ends:
        apps: list[FastAPI] = []
        for engine in (sqlite, connect(new_postgres(migrated_postgres))):
            ends.callback(engine.dispose)
            refresher = Refresher(SnapshotStore(engine, box, resolve), Current(), interval_s=0.05, slow_s=1.0)
            ends.callback(refresher.close, CLOSED_S)
            refresher.load()
            (folder := tmp_path / engine.name).mkdir()
            apps.append(ends.enter_context(application(engine, box, refresher, {}, folder)))
        yield apps


@pytest.mark.timeout(300)
def test_no_request_that_can_be_made_from_the_documentation_breaks_a_route(apps: list[FastAPI]) -> None:
    """No 500, no undocumented status, no answer that differs from its schema, no way around the admin key."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", apps[0])
    operations = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    assert len(operations) > 15
    for operation in operations:

        @given(case=operation.as_strategy())
        @settings(
            max_examples=8,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def survives(case: Case[Any]) -> None:
            for app in apps:
                case.call_and_validate(
                    headers={"authorization": f"Bearer {ADMIN_KEY}"}, excluded_checks=NOT_FOR_US, app=app
                )

        survives()
