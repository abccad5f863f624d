"""Schemathesis reads the OpenAPI document and tries to break every documented route."""

from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from tests.fixtures.control import ADMIN_KEY

# Any of three headers may hold the key, which the first check does not expect (test_admin_rest asks every route without
# one); and some rules, such as that an address is needed, are beyond what a JSON schema can say.
NOT_FOR_US = [ignored_auth, positive_data_acceptance]


@pytest.mark.timeout(300)
def test_no_request_that_can_be_made_from_the_documentation_breaks_a_route(app: FastAPI) -> None:
    """No 500, no undocumented status, no answer that differs from its schema, no way around the admin key."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
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
            case.call_and_validate(headers={"authorization": f"Bearer {ADMIN_KEY}"}, excluded_checks=NOT_FOR_US)

        survives()
