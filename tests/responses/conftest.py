"""One process for the tests of `/v1/responses`, and the SDK in front of it."""

from collections.abc import Iterator

import openai
import pytest

from tests.fixtures.deployments import Routes


@pytest.fixture
def client(routes: Routes) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=routes.server.key, base_url=routes.server.base_url, max_retries=0, timeout=20) as client:
        yield client
