"""One name for whichever store is in force: wherever a store is named to be searched, and moved for all of them at once."""

import json
from typing import Any

import openai
import pytest

from admin.cli import main
from tests.answers.conftest import Grounded, searching
from tests.answers.test_doors import connected, said
from tests.upstream.behaviour import Behaviour

FAST = {"fast.md": "The penstock gate closes in four seconds."}
SLOW = {"slow.md": "The penstock gate closes in nine minutes."}
QUESTION: list[Any] = [{"role": "user", "content": "How fast does the penstock gate close?"}]
SAYS = Behaviour(text="It closes [1].")


class Alias:
    """A name that is `fast` at first, and `slow` once it is moved."""

    def __init__(self, grounded: Grounded, client: openai.OpenAI, name: str) -> None:
        self._admin = grounded.server.admin
        self.name = name
        self.stores = grounded.store(client, FAST, f"{name}-1"), grounded.store(client, SLOW, f"{name}-2")
        made = self._admin.post("/retrievers", json={"name": name, "collection": self.stores[0]})
        assert made.status_code == 201, made.text
        assert self._admin.post(f"/retrievers/{name}/versions", json={"collection": self.stores[1]}).status_code == 201

    def move(self, version: int) -> None:
        moved = self._admin.post(f"/retrievers/{self.name}/rollback", json={"version": version})
        assert moved.status_code == 200, moved.text

    def drop(self) -> None:
        self._admin.delete(f"/retrievers/{self.name}")


def cited(answer: Any) -> list[str]:
    return [note["filename"] for note in answer.choices[0].message.to_dict()["annotations"]]


def test_answers_follow_the_name(grounded: Grounded, client: openai.OpenAI) -> None:
    """`file_search` in chats and in responses, and a way back."""
    alias = Alias(grounded, client, "manual-alias")
    tools: Any = [{"type": "file_search", "vector_store_ids": [alias.name]}]
    for version, filename in ((1, "fast.md"), (2, "slow.md"), (1, "fast.md")):
        alias.move(version)
        model, _ = grounded.model(SAYS)
        answer = client.chat.completions.create(model=model, messages=QUESTION, tools=tools)
        assert cited(answer) == [filename]
        model, _ = grounded.model(searching("How fast?"), SAYS)
        response: Any = client.responses.create(model=model, input="How fast?", tools=tools)
        assert [one.filename for one in response.output[1].content[0].annotations] == [filename]
    alias.drop()
    model, _ = grounded.model(SAYS)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model=model, messages=QUESTION, tools=tools)


def test_a_model_may_have_the_name_attached(grounded: Grounded, client: openai.OpenAI) -> None:
    """An admin has attached it, so a stranger is answered as well; what was cached of the former store is not given again."""
    alias = Alias(grounded, client, "attached-alias")
    model, handle = grounded.model(SAYS, retrieval={"collections": [alias.name]}, cache={"exact": {"ttl_s": 600}})
    with grounded.client() as stranger:
        for version, filename in ((1, "fast.md"), (1, "fast.md"), (2, "slow.md")):
            alias.move(version)
            answer = stranger.chat.completions.create(model=model, messages=QUESTION, temperature=0)
            assert cited(answer) == [filename]
        assert len(handle.entries()) == 2
        with pytest.raises(openai.NotFoundError):
            stranger.vector_stores.search(alias.name, query="gate")


def test_each_key_keeps_its_side_of_a_name(grounded: Grounded, client: openai.OpenAI) -> None:
    """Between two stores with weights an answer is from one of them, from the one in which the same key's searches are made."""
    alias = Alias(grounded, client, "split-alias")
    moved = grounded.server.admin.patch(f"/retrievers/{alias.name}", json={"weights": {"1": 1, "2": 1}})
    assert moved.status_code == 200, moved.text
    org = grounded.server.admin.post("/orgs", json={"name": "split"}).json()["id"]
    team = grounded.server.admin.post("/teams", json={"name": "split", "org_id": org}).json()["id"]
    model, _ = grounded.model(
        Behaviour(text="It closes [1] [2]."), retrieval={"collections": [alias.name]}, cache={"exact": {"ttl_s": 600}}
    )
    sides = set()
    for _ in range(12):
        with grounded.client(team_id=team) as one:
            headers = {"authorization": f"Bearer {one.api_key}"}
            answer = one.chat.completions.create(model=model, messages=QUESTION, temperature=0)
            (side,) = set(cited(answer))
            sides.add(side)
            asked = {
                "knowledge_id": alias.name,
                "query": "gate",
                "retrieval_setting": {"top_k": 3, "score_threshold": 0},
            }
            refused = grounded.server.http.post("/retrieval", json=asked, headers=headers)
            assert refused.status_code == 404, "the stores are another's: the model alone was given them"
    assert sides == {"fast.md", "slow.md"}


async def test_other_doors_know_the_name(
    grounded: Grounded, client: openai.OpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    """Dify, MCP and the command."""
    alias = Alias(grounded, client, "door-alias")
    alias.move(2)
    asked = {"knowledge_id": alias.name, "query": "gate", "retrieval_setting": {"top_k": 3, "score_threshold": 0}}
    headers = {"authorization": f"Bearer {client.api_key}"}
    records = grounded.server.http.post("/retrieval", json=asked, headers=headers).json()["records"]
    assert [(one["title"], one["metadata"]["vector_store_id"]) for one in records] == [("slow.md", alias.stores[1])]
    async with connected(grounded, client.api_key, f"/mcp/retrieval/{alias.name}") as mcp:
        (found,) = said(await mcp.call_tool("search", {"query": "gate closes"}))["results"]
        assert "nine minutes" in said(await mcp.call_tool("fetch", {"id": found["id"]}))["text"]
    where = ["--url", grounded.server.url, "--key", client.api_key]
    assert main(["search", "gate", "--collection", alias.name, "--json", *where]) == 0
    assert [one["filename"] for one in json.loads(capsys.readouterr().out)["data"]] == ["slow.md"]
    assert main(["search", "gate", "--collection", "no-such-alias", *where]) == 1
    assert "there is no collection 'no-such-alias'" in capsys.readouterr().err


def test_a_store_of_ones_own_comes_before_a_name_for_all(grounded: Grounded, client: openai.OpenAI) -> None:
    """What a key calls its own store is nobody else's to redefine."""
    alias = Alias(grounded, client, "shared-alias")
    grounded.store(client, SLOW, alias.name)
    model, _ = grounded.model(SAYS)
    tools: Any = [{"type": "file_search", "vector_store_ids": [alias.name]}]
    answer = client.chat.completions.create(model=model, messages=QUESTION, tools=tools)
    assert cited(answer) == ["slow.md"]


def test_a_search_is_on_the_bill_of_its_tag(grounded: Grounded, client: openai.OpenAI) -> None:
    """The question's vector, a query in other words and its vector: whatever a direct search asks of models."""
    store = grounded.store(client, FAST, "tagged")
    model, _ = grounded.model(Behaviour(text="gate speed\ngate time", prompt_tokens=20, completion_tokens=3))
    client.vector_stores.search(
        store,
        query="how quickly is it shut?",
        extra_body={"expand": {"multi_query": 2, "model": model}},
        extra_headers={"x-penstock-tags": "search-bill"},
    )
    row = grounded.spend("search-bill")
    assert row["cost_usd"] > 0
    rows = grounded.server.admin.get("/requests", params={"tag": "search-bill"}).json()["data"]
    assert {row["endpoint"] for row in rows} == {"chat", "embeddings"}
    assert all(set(row["tags"]) == {"retrieval", "search-bill"} for row in rows)
