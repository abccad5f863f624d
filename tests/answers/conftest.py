"""One gateway with documents in it for the tests of grounded answers, and models in front of it that are scripts of their own."""

import json
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from embedding import bundled
from tests.fixtures.server import Server
from tests.fixtures.upstream import ScriptHandle, Upstream
from tests.upstream.behaviour import Behaviour, ToolCall

TEXTS = {
    "gates.md": "# Gates\n\nThe penstock gate closes in four seconds when the power fails.",
    "turbines.txt": "A penstock feeds water to the turbine of a hydroelectric power station.",
    "bread.md": "# Baking\n\nSourdough bread rises with wild yeast, and takes a day to ferment.",
}
PRICE = {"input": 1000, "output": 2000}
ATTRIBUTES: dict[str, dict[str, Any]] = {
    "gates.md": {"topic": "water", "year": 2024},
    "turbines.txt": {"topic": "water", "year": 2020},
    "bread.md": {"topic": "food", "year": 2024},
}


class Grounded:
    """A server, its scripted models, and clients with keys of their own."""

    def __init__(self, server: Server, upstream: Upstream) -> None:
        self.server = server
        self._upstream = upstream
        self._numbers = 0

    def model(self, *behaviours: Behaviour, native: bool = False, **fields: Any) -> tuple[str, ScriptHandle]:
        """The name of a model, and what its upstream sees."""
        self._numbers += 1
        handle = self._upstream.script(*behaviours)
        name = f"grounded{self._numbers}"
        where = {"id": f"{name}-a", "base_url": handle.base_url, "model": "x", "price": PRICE, "responses": native}
        self.create({"name": name, "deployments": [where], "retries": {"attempts": 0}, **fields})
        return name, handle

    def create(self, body: object) -> None:
        made = self.server.admin.post("/models", json=body)
        assert made.status_code == 201, made.text

    def client(self, **key: Any) -> openai.OpenAI:
        return self.sdk(self.server.new_key(**key))

    def sdk(self, secret: str) -> openai.OpenAI:
        return openai.OpenAI(api_key=secret, base_url=self.server.base_url, max_retries=0, timeout=50)

    def store(self, client: openai.OpenAI, texts: dict[str, str], name: str = "docs", **fields: Any) -> str:
        """Its id, once everything in it is read."""
        store = client.vector_stores.create(name=name)
        for filename, text in texts.items():
            file = client.files.create(file=(filename, text.encode()), purpose="assistants")
            done = client.vector_stores.files.create_and_poll(
                file.id, vector_store_id=store.id, attributes=ATTRIBUTES.get(filename, {}), extra_body=fields
            )
            assert done.status == "completed", done
        return store.id

    def spend(self, tag: str) -> Any:
        """The bill under a tag, once something is on it."""
        deadline = time.monotonic() + 20
        while True:
            rows = self.server.admin.get("/spend", params={"group_by": "tag"}).json()["data"]
            found = next((row for row in rows if tag in row.values()), None)
            if found is not None and found["requests"]:
                return found
            assert time.monotonic() < deadline, rows
            time.sleep(0.05)


@pytest.fixture(scope="session")
def grounded(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grounded]:
    if not bundled.installed():
        pytest.skip("needs the `embedded` extra")
    local = {"id": "minilm", "provider": "embedded", "model": "all-minilm-l6-v2"}
    config = {"models": [{"name": "text-embedding-minilm", "deployments": [local]}]}
    server = Server(config, tmp_path_factory.mktemp("answers")).start()
    yield Grounded(server, upstream)
    alive = server.running()
    server.stop()
    assert alive, server.output


@pytest.fixture(scope="session")
def client(grounded: Grounded) -> Iterator[openai.OpenAI]:
    with grounded.client() as client:
        yield client


@pytest.fixture(scope="session")
def store(grounded: Grounded, client: openai.OpenAI) -> str:
    return grounded.store(client, TEXTS, "docs")


def searching(*queries: str, **arguments: Any) -> Behaviour:
    """A turn of a model that wants to look something up."""
    call = ToolCall("file_search", json.dumps({"queries": queries, **arguments}))
    return Behaviour(text="", tool_calls=(call,), prompt_tokens=10, completion_tokens=5)


def heard(handle: ScriptHandle, number: int) -> Any:
    """What the upstream was asked in its request of that number."""
    return json.loads(handle.entries()[number].body)
