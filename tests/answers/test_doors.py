"""Other doors to the same documents: MCP's `search` and `fetch` with the official client, and Dify's external knowledge base."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import httpx2
import openai
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import TextContent

from tests.answers.conftest import TEXTS, Grounded

MODES = pytest.mark.parametrize("mode", ["legacy", "auto"])


@pytest.fixture(scope="module")
def client(grounded: Grounded) -> Iterator[openai.OpenAI]:
    """A key of this module's own: what it finds is what it has."""
    with grounded.client() as client:
        yield client


@pytest.fixture(scope="module")
def store(grounded: Grounded, client: openai.OpenAI) -> str:
    return grounded.store(client, TEXTS, "docs")


@asynccontextmanager
async def connected(
    grounded: Grounded, key: str, path: str = "/mcp/retrieval", **options: Any
) -> AsyncIterator[Client]:
    headers = {"authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(headers=headers, trust_env=False, timeout=30) as http:
        transport = streamable_http_client(f"{grounded.server.url}{path}", http_client=http)
        async with Client(transport, **options) as client:
            yield client


def said(result: Any) -> Any:
    """The JSON in the one text of a result, which says the same as its structured content."""
    (content,) = result.content
    assert isinstance(content, TextContent)
    made = json.loads(content.text)
    assert made == result.structured_content
    return made


@MODES
@pytest.mark.usefixtures("store")
async def test_the_official_client_searches_and_fetches(grounded: Grounded, client: openai.OpenAI, mode: str) -> None:
    """In the shapes of connectors; a result's address gives its text to the same key."""
    async with connected(grounded, client.api_key, mode=mode) as mcp:
        assert sorted(tool.name for tool in (await mcp.list_tools()).tools) == ["fetch", "search"]
        results = said(await mcp.call_tool("search", {"query": "How fast does the gate close?"}))["results"]
        assert set(results[0]) == {"id", "title", "url"}
        assert results[0]["title"] == "gates.md"
        document = said(await mcp.call_tool("fetch", {"id": results[0]["id"]}))
    assert set(document) == {"id", "title", "text", "url", "metadata"}
    assert (document["id"], document["title"], document["url"]) == tuple(
        results[0][name] for name in ("id", "title", "url")
    )
    assert "closes in four seconds when the power fails" in document["text"]
    assert document["metadata"] == {"topic": "water", "year": 2024}
    path = document["url"].removeprefix(grounded.server.url)
    got = grounded.server.http.get(path, headers={"authorization": f"Bearer {client.api_key}"})
    assert "four seconds" in got.text


async def test_one_store_may_be_named_in_the_path(grounded: Grounded) -> None:
    """By its id or its name; what is in another one is not found there, nor fetched."""
    with grounded.client() as mine:
        grounded.store(mine, {"gates.md": TEXTS["gates.md"]}, "docs")
        other = grounded.store(mine, {"alone.txt": "The gate of the other plant closes in an hour."}, "alone")
        async with connected(grounded, mine.api_key, f"/mcp/retrieval/{other}") as mcp:
            results = said(await mcp.call_tool("search", {"query": "gate closes"}))["results"]
            assert [one["title"] for one in results] == ["alone.txt"]
        async with connected(grounded, mine.api_key, "/mcp/retrieval") as mcp:
            both = said(await mcp.call_tool("search", {"query": "gate closes"}))["results"]
            assert {one["title"] for one in both} == {"alone.txt", "gates.md"}
        async with connected(grounded, mine.api_key, "/mcp/retrieval/docs") as mcp:
            with pytest.raises(MCPError, match="no document"):
                await mcp.call_tool("fetch", {"id": results[0]["id"]})
        async with connected(grounded, mine.api_key, "/mcp/retrieval/nothing") as mcp:
            with pytest.raises(MCPError, match="nothing"):
                await mcp.call_tool("search", {"query": "gate"})


async def test_nobody_finds_what_is_somebody_elses(grounded: Grounded, client: openai.OpenAI, store: str) -> None:
    """Nor fetches it by an id that was heard of elsewhere. Arguments that are none are named."""
    file = next(iter(client.vector_stores.files.list(store))).id
    async with connected(grounded, grounded.server.new_key()) as mcp:
        assert said(await mcp.call_tool("search", {"query": "gate"})) == {"results": []}
        for id_ in (f"{store}/{file}", "x", f"{store}/..", ""):
            with pytest.raises(MCPError):
                await mcp.call_tool("fetch", {"id": id_})
        for tool, arguments in (("search", {"query": " "}), ("search", {}), ("fetch", {"id": 7}), ("drop", {})):
            with pytest.raises(MCPError) as caught:
                await mcp.call_tool(tool, arguments)
            assert caught.value.error.code == -32602


async def test_a_call_is_recorded_and_counted(grounded: Grounded, store: str) -> None:
    """As that of any tool; a key at its limit is told so."""
    made = grounded.server.admin.post("/keys", json={"name": "few", "limits": {"rpm": 2}}).json()
    grounded.server.await_key(made["key"], known=True)
    async with connected(grounded, made["key"]) as mcp:
        for _ in range(2):
            with pytest.raises(MCPError, match="No such"):
                await mcp.call_tool("fetch", {"id": f"{store}/x"})
        with pytest.raises(MCPError, match="limit"):
            await mcp.call_tool("fetch", {"id": f"{store}/x"})
        await mcp.call_tool("search", {"query": "gate"})  # in nothing, so that nothing is embedded
    deadline = time.monotonic() + 20
    while True:
        rows = grounded.server.admin.get("/requests", params={"key_id": made["id"]}).json()["data"]
        made_calls = [row["model"] for row in rows]
        if made_calls.count("mcp/retrieval/fetch") >= 3 and "mcp/retrieval/search" in made_calls:
            break
        assert time.monotonic() < deadline, rows
        await asyncio.sleep(0.05)


def asked(grounded: Grounded, key: str, **fields: Any) -> httpx.Response:
    body = {"knowledge_id": "docs", "query": "How fast does the gate close?", **fields}
    return grounded.server.http.post("/retrieval", json=body, headers={"authorization": f"Bearer {key}"})


def test_dify_finds_records(grounded: Grounded, client: openai.OpenAI, store: str) -> None:
    """By name or id, as many as it wants, with metadata that is an object in any case."""
    records: list[dict[str, Any]] = []
    for named in ("docs", store):
        answer = asked(grounded, client.api_key, knowledge_id=named, retrieval_setting={"top_k": 2})
        records = answer.json()["records"]
        assert (answer.status_code, len(records)) == (200, 2)
        assert records[0]["title"] == "gates.md"
        assert "four seconds" in records[0]["content"]
        assert 0.1 <= records[0]["score"] <= 1
        assert records[0]["metadata"]["topic"] == "water"
    bound = {"top_k": 2, "score_threshold": records[0]["score"] - 0.01}
    (good,) = asked(grounded, client.api_key, retrieval_setting=bound).json()["records"]
    assert good == records[0], "the other one is worse"
    assert len(asked(grounded, client.api_key, retrieval_setting={"top_k": 500}).json()["records"]) == len(TEXTS)


@pytest.mark.parametrize(
    ("conditions", "titles"),
    [
        ([{"name": ["topic"], "comparison_operator": "is", "value": "food"}], {"bread.md"}),
        ([{"name": ["topic"], "comparison_operator": "is not", "value": "food"}], {"gates.md", "turbines.txt"}),
        ([{"name": ["year"], "comparison_operator": "≥", "value": "2024"}], {"gates.md", "bread.md"}),
        ([{"name": ["year"], "comparison_operator": "=", "value": 2020}], {"turbines.txt"}),
        ([{"name": ["topic"], "comparison_operator": "start with", "value": "wa"}], {"gates.md", "turbines.txt"}),
        ([{"name": ["page"], "comparison_operator": "empty"}], set(TEXTS)),
        ([{"name": ["topic"], "comparison_operator": "in", "value": ["food", "fire"]}], {"bread.md"}),
    ],
)
def test_dify_narrows_by_metadata(
    grounded: Grounded, client: openai.OpenAI, store: str, conditions: Any, titles: set[str]
) -> None:
    assert store
    answer = asked(grounded, client.api_key, metadata_condition={"logical_operator": "and", "conditions": conditions})
    assert {record["title"] for record in answer.json()["records"]} == titles


def test_dify_hears_its_own_error_codes(grounded: Grounded, client: openai.OpenAI, store: str) -> None:
    assert store
    http = grounded.server.http
    body = {"knowledge_id": "docs", "query": "x"}
    cases = [
        (http.post("/retrieval", json=body), 401, 1001),
        (http.post("/retrieval", json=body, headers={"authorization": "Basic x"}), 401, 1001),
        (asked(grounded, "sk-ps-nobody"), 401, 1002),
        (asked(grounded, grounded.server.new_key(routes=["/v1/models"])), 403, 1002),
        (asked(grounded, client.api_key, knowledge_id="nowhere"), 404, 2001),
        (asked(grounded, grounded.server.new_key()), 404, 2001),
        (asked(grounded, client.api_key, query=""), 400, 400),
        (
            asked(
                grounded,
                client.api_key,
                metadata_condition={"conditions": [{"name": ["a"], "comparison_operator": "~"}]},
            ),
            400,
            400,
        ),
    ]
    for answer, status, code in cases:
        assert (answer.status_code, answer.json()["error_code"]) == (status, code), answer.text
        assert answer.json()["error_msg"] == answer.json()["error"]["message"] != ""


def test_the_recall_that_is_watched_is_told(grounded: Grounded, client: openai.OpenAI, store: str) -> None:
    """Nothing was checked yet, as so few passages need no graph; but who watches finds the numbers."""
    client.vector_stores.search(store, query="gate")
    text = httpx.get(f"http://127.0.0.1:{grounded.server.port}/metrics", timeout=20).text
    assert 'penstock_recall_neighbours_total{outcome="missed"} 0.0' in text
    assert 'penstock_recall_repairs_total{verdict="given_up"} 0.0' in text
