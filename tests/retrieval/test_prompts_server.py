"""Prefixes of an embedding model on the real process: what its provider is sent by clients, by files and by searches."""

import json
import time
from collections.abc import Iterator

import pytest

from tests.fixtures.server import ADMIN_KEY, ONCE, Json, Server
from tests.fixtures.upstream import ScriptHandle, Upstream
from tests.upstream.behaviour import Behaviour

pytestmark = pytest.mark.timeout(120)  # files are read by a process that a busy machine starts late

E5 = {"query_prefix": "query: ", "passage_prefix": "passage: "}
AUTH = {"Authorization": f"Bearer {ADMIN_KEY}"}


class Site:
    """A server, and models on scripts of their own."""

    def __init__(self, upstream: Upstream, server: Server) -> None:
        self.upstream, self.server, self.made = upstream, server, 0

    def model(self, embedding: Json | None, provider: str = "openai", **more: object) -> tuple[str, ScriptHandle]:
        self.made += 1
        name, script = f"prompted-{self.made}", self.upstream.script(Behaviour())
        where = {
            "id": name,
            "provider": provider,
            "base_url": script.base_url,
            "model": "m",
            "api_key": "sk-up",
            **more,
        }
        body = {"name": name, "deployments": [where], "retries": ONCE}
        answer = self.server.admin.post("/models", json=body | ({} if embedding is None else {"embedding": embedding}))
        assert answer.status_code == 201, answer.text
        return name, script

    def embed(self, model: str, key: str | None = None, **fields: object) -> Json:
        answer = self.server.post("/v1/embeddings", {"model": model, "input": "a", **fields}, key=key)
        made: Json = answer.json()
        return {"status": answer.status_code, **made}

    def store(self, model: str) -> str:
        answer = self.server.http.post(
            "/v1/vector_stores", json={"name": model, "embedding_model": model}, headers=AUTH
        )
        assert answer.status_code == 200, answer.text
        id_: str = answer.json()["id"]
        return id_

    def add(self, store: str, text: str) -> None:
        files = {"file": ("a.txt", text.encode())}
        file = self.server.http.post("/v1/files", data={"purpose": "assistants"}, files=files, headers=AUTH).json()[
            "id"
        ]
        path = f"/v1/vector_stores/{store}/files"
        assert self.server.http.post(path, json={"file_id": file}, headers=AUTH).status_code == 200
        deadline = time.monotonic() + 60
        while (seen := self.server.http.get(f"{path}/{file}", headers=AUTH).json())["status"] == "in_progress":
            assert time.monotonic() < deadline, seen
            time.sleep(0.05)
        assert seen["status"] == "completed", seen

    def search(self, store: str, query: str) -> int:
        body = {"query": query, "ranking_options": {"hybrid_search": {"embedding_weight": 1, "text_weight": 0}}}
        answer = self.server.http.post(f"/v1/vector_stores/{store}/search", json=body, headers=AUTH)
        return answer.status_code


@pytest.fixture(scope="module")
def site(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    seed = upstream.script(Behaviour())
    where = {"id": "seeded", "base_url": seed.base_url, "model": "m", "api_key": "sk-up"}
    config = {"models": [{"name": "seeded", "deployments": [where], "embedding": E5}]}
    server = Server(config, tmp_path_factory.mktemp("prompts")).start()
    yield Site(upstream, server)
    server.stop()


def inputs(script: ScriptHandle) -> list[object]:
    return [json.loads(entry.body).get("input") for entry in script.entries()]


def test_a_client_says_which_texts_are_questions(site: Site) -> None:
    """By `input_type`; without it nothing is put before them. Only models that embed are looked at."""
    name, script = site.model(E5)
    for fields in ({}, {"input_type": "search_query"}, {"input": ["a", "b"], "input_type": "passage"}):
        assert site.embed(name, **fields)["status"] == 200
    assert inputs(script) == ["a", "query: a", ["passage: a", "passage: b"]]
    assert all("input_type" not in json.loads(entry.body) for entry in script.entries())
    refused = site.embed(name, input_type="clustering")
    assert (refused["status"], refused["error"]["param"]) == (400, "input_type")
    assert site.embed(name, input=[1, 2], input_type="query")["error"]["code"] == "token_input_unsupported"
    assert len(script.entries()) == 3


def test_prefixes_stand_in_the_file_and_are_changed_over_rest(site: Site) -> None:
    """null takes them away; what makes no sense is refused with its place."""
    seeded = site.server.admin.get("/models/seeded").json()
    assert {name: seeded["embedding"][name] for name in E5} == E5
    name, script = site.model(E5)
    for wanted in ({"query_prefix": "ask: "}, None):
        assert site.server.admin.patch(f"/models/{name}", json={"embedding": wanted}).status_code == 200
        expected = "ask: a" if wanted else "a"
        deadline = time.monotonic() + 30
        while True:
            assert site.embed(name, input_type="query")["status"] == 200
            if inputs(script)[-1] == expected:
                break
            assert time.monotonic() < deadline, inputs(script)
            time.sleep(0.05)
    assert json.loads(script.entries()[-1].body)["input_type"] == "query"  # without roles it goes through, as ever
    for wrong in ({}, {"query_input_type": "q"}, {**E5, "query_input_type": "q", "passage_input_type": "p"}):
        assert site.server.admin.patch(f"/models/{name}", json={"embedding": wrong}).status_code == 400


def test_providers_that_have_to_be_told_are(site: Site) -> None:
    """NVIDIA refuses texts without it; others are declared. Both in the provider's words, by clients and for stores."""
    for embedding, provider, words in (
        (None, "nvidia", ("query", "passage")),
        ({"query_input_type": "search_query", "passage_input_type": "search_document"}, "openai", None),
    ):
        name, script = site.model(embedding, provider)
        question, passage = words or ("search_query", "search_document")
        assert site.embed(name, input_type="document")["status"] == 200
        store = site.store(name)
        site.add(store, "A turbine turns.")
        assert site.search(store, "A turbine turns.") == 200  # the same text, and another vector
        told = [json.loads(entry.body).get("input_type") for entry in script.entries()]
        assert told == [passage, passage, question]


def test_a_store_is_filled_and_asked_with_the_prefixes_that_it_was_begun_with(site: Site) -> None:
    """Also once the model has others, until it is embedded anew; the admin plane shows them."""
    name, script = site.model(E5)
    store = site.store(name)
    site.add(store, "A turbine turns.")
    assert site.search(store, "what turns?") == 200
    assert inputs(script) == [["passage: A turbine turns."], ["query: what turns?"]]
    assert site.server.admin.get(f"/collections/{store}").json()["prompts"] == E5
    other = {"query_prefix": "ask: ", "passage_prefix": "tell: "}
    assert site.server.admin.patch(f"/models/{name}", json={"embedding": other}).status_code == 200
    deadline = time.monotonic() + 30
    while site.server.admin.get(f"/collections/{site.store(name)}").json()["prompts"] != other:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert site.search(store, "what turns now?") == 200
    assert inputs(script)[-1] == ["query: what turns now?"]
    begun = site.server.admin.post(f"/collections/{store}/reembeddings", json={"promote": "auto"}).json()
    assert (begun["before"]["prompts"], begun["after"]["prompts"]) == (E5, other)
    deadline = time.monotonic() + 60
    path = f"/collections/{store}/reembeddings/{begun['id']}"
    while (seen := site.server.admin.get(path).json())["state"] != "swapped":
        assert seen["state"] != "failed", seen
        assert time.monotonic() < deadline, seen
        time.sleep(0.05)
    assert site.search(store, "and what turns then?") == 200
    assert ["tell: A turbine turns."] in inputs(script)
    assert inputs(script)[-1] == ["ask: and what turns then?"]  # perhaps once more, of who did not know of the swap


def test_a_store_with_input_types_is_not_asked_with_prefixes(site: Site) -> None:
    """Its vectors would not be comparable, and nobody would see it."""
    types = {"query_input_type": "query", "passage_input_type": "document"}
    name, script = site.model(types)
    store = site.store(name)
    site.add(store, "A turbine turns.")
    assert site.server.admin.patch(f"/models/{name}", json={"embedding": E5}).status_code == 200
    deadline = time.monotonic() + 30
    while (status := site.search(store, "what turns?")) != 409:
        assert status == 200
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert all("query: " not in entry.body for entry in script.entries())


def test_a_prefix_is_held_and_billed(site: Site) -> None:
    """What may be spent covers the text with the prefix; what is spent is what the provider counts."""
    long = {"query_prefix": "a " * 900, "passage_prefix": ""}
    name, script = site.model(long, price={"input": 1000.0})
    made = site.server.admin.post(
        "/keys", json={"name": "prompts", "budget": {"limit_usd": 1, "period": "total"}}
    ).json()
    site.server.await_key(made["key"], known=True)
    assert site.embed(name, key=made["key"])["status"] == 200
    refused = site.embed(name, key=made["key"], input_type="query")
    assert (refused["status"], refused["error"]["code"]) == (429, "budget_exceeded")
    assert len(script.entries()) == 1
