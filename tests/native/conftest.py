"""One server with a deployment of every family, and a script behind each of them."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fixtures.deployments import Route, Routes
from tests.fixtures.server import Json, Server
from tests.fixtures.upstream import Upstream
from tests.upstream.behaviour import Behaviour

AWS = {
    "x-litellm-aws-region-name": "eu-west-1",
    "x-litellm-aws-access-key-id": "AKIDEXAMPLE",
    "x-litellm-aws-secret-access-key": "wJalrXUtnFEMI",
}
DECLARED = [
    {"path": "/openai/v1/files/*", "methods": ["GET", "POST"], "model": "priced", "per_request": 0.002},
    {"path": "/gemini/v1beta/files", "methods": ["GET"], "model": "priced-gemini", "per_request": 0.5},
]


class Natives(Routes):
    """`native("gemini", …)` is a model at that provider."""

    def native(self, provider: str, *places: Behaviour | tuple[Behaviour, ...], **deployment: Any) -> Route:
        return self(*places, deployment={"provider": provider, **deployment})

    def of(self, route: Route) -> Json:
        """The record of the last call of a model, once it is shipped."""
        deadline = time.monotonic() + 20
        while True:
            found = [one for one in self.settled(1) if one["model"] == route.name]
            if found:
                return found[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.fixture(scope="session")
def natives(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Natives]:
    """One server for all tests of pass-through; it has to be alive at the end."""
    priced = upstream.script(Behaviour(body='{"data":[]}'), name="files-of-openai")
    google = upstream.script(Behaviour(body='{"files":[]}'), name="files-of-gemini")
    models = [
        {"name": "priced", "deployments": [{"id": "priced", "base_url": priced.base_url, "api_key": "sk-up"}]},
        {
            "name": "priced-gemini",
            "deployments": [
                {
                    "id": "priced-gemini",
                    "provider": "gemini",
                    "base_url": google.base_url.replace("/v1", "/v1beta"),
                    "api_key": "up",
                }
            ],
        },
    ]
    config = {"models": models, "passthrough": {"paths": DECLARED}}
    server = Server(config, tmp_path_factory.mktemp("native")).start()
    yield Natives(server, upstream)
    alive = server.running()
    server.stop()
    assert alive, server.output
