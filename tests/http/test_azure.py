"""Azure's two APIs: one that is OpenAI's, and a dated one with the model's name in the path."""

import pytest
import yaml

from gateway.settings import DeploymentSpec
from tests.fixtures.deployments import Routes, said
from tests.upstream.behaviour import Behaviour

VERSION = "2024-10-21"


def test_the_v1_api_is_openais_with_another_header(routes: Routes) -> None:
    """The model's name stands in the body."""
    route = routes(Behaviour(text="Hi."), deployment={"provider": "azure", "model": "gpt-4o"})
    assert said(routes.ask(route)) == "Hi."
    (entry,) = route.places[0].handle.entries()
    assert entry.path.endswith("/v1/chat/completions")
    assert (entry.header("api-key"), entry.header("authorization")) == (f"sk-{route.places[0].id}", None)
    assert '"model":"gpt-4o"' in entry.body


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("address", ["", "/openai", "/openai/v1", "/openai/deployments/my-gpt/"])
def test_the_dated_api_has_the_name_in_the_path(routes: Routes, address: str, streams: bool) -> None:
    """Whichever of its addresses somebody has copied."""
    route = routes(Behaviour(text="Hi."))
    handle = route.places[0].handle
    spec = {
        "id": f"{route.name}-azure",
        "model_name": route.name,
        "provider": "azure",
        "base_url": handle.base_url.removesuffix("/v1") + address,
        "model": "my-gpt",
        "api_version": VERSION,
        "api_key": "az-key",
    }
    assert routes.server.admin.post("/deployments", json=spec).status_code == 201
    assert routes.server.admin.delete(f"/deployments/{route.places[0].id}").is_success
    assert said(routes.ask(route, stream=streams)) == "Hi."
    (entry,) = handle.entries()
    assert entry.path == f"/s/{handle.id}/openai/deployments/my-gpt/chat/completions?api-version={VERSION}"
    assert entry.header("api-key") == "az-key"


def test_a_version_may_be_a_date() -> None:
    """Which is what YAML makes of it without quotes."""
    given = yaml.safe_load("{id: x, provider: azure, model: m, api_version: 2024-10-21}")
    assert DeploymentSpec.model_validate(given).api_version == VERSION


@pytest.mark.parametrize(
    ("provider", "model", "said_of_it"),
    [("openai", "gpt-4o", "is for the provider azure"), ("azure", "*", "v1 address")],
)
def test_a_version_needs_azure_and_one_name(routes: Routes, provider: str, model: str, said_of_it: str) -> None:
    """Anything else would be a path that nobody has."""
    spec = {"id": "x", "provider": provider, "base_url": "https://e.example", "model": model, "api_version": VERSION}
    answer = routes.server.admin.post("/models", json={"name": "never-there", "deployments": [spec]})
    assert answer.status_code == 400
    assert said_of_it in answer.json()["error"]["message"]
