"""`penstock/rerank` behind the real process: both shapes, the `cohere` client, searches, the ledger, and what it refuses."""

import time
from collections.abc import Iterator
from typing import Any

import cohere
import openai
import pytest

from embedding import bundled
from tests.fixtures.server import Json, Server

MODEL = "penstock/rerank"
QUERY = "How is the gate opened by hand?"
DOCUMENTS = ["Lunch is served at noon.", "To open the gate by hand, turn the crank.", "A river flows to the sea."]
needs_vectors = pytest.mark.skipif(not bundled.installed(), reason="the embedding model is not installed")


@pytest.fixture(scope="module")
def client(bare: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=bare.base_url, api_key=bare.key, max_retries=0, timeout=90) as client:
        yield client


@pytest.fixture(scope="module")
def store(client: openai.OpenAI) -> str:
    """Three files, of which one answers."""
    made = client.vector_stores.create(name="gates")
    for number, text in enumerate(DOCUMENTS):
        file = client.files.create(file=(f"{number}.txt", text.encode()), purpose="assistants")
        client.vector_stores.files.create_and_poll(file.id, vector_store_id=made.id)
    return made.id


def rank(bare: Server, path: str = "/v1/rerank", **fields: Any) -> Any:
    return bare.post(path, {"model": MODEL, "query": QUERY, "documents": DOCUMENTS, **fields})


def indexes(answer: Json) -> list[int]:
    return [row["index"] for row in answer["results"]]


def test_it_is_there_without_configuration(bare: Server, client: openai.OpenAI) -> None:
    """And reranks alone."""
    assert MODEL in [model.id for model in client.models.list()]
    asked = bare.post("/v1/chat/completions", bare.ask(MODEL))
    assert (asked.status_code, asked.json()["error"]["type"]) == (400, "invalid_request_error")


def test_jinas_shape(bare: Server) -> None:
    """Best first, a share each, documents where they are asked for."""
    answer = rank(bare, top_n=2, return_documents=True)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["model"] == MODEL
    assert body["object"] == "list"
    first, second = body["results"]
    assert (first["index"], first["document"]) == (1, {"text": DOCUMENTS[1]})
    assert 1 >= first["relevance_score"] > second["relevance_score"] >= 0
    assert body["usage"]["total_tokens"] > 0
    assert answer.headers["x-penstock-model"] == MODEL
    assert answer.headers["x-penstock-deployment"] == f"reranker:{MODEL}"
    assert float(answer.headers["x-penstock-cost-usd"]) == 0


def test_coheres_clients(bare: Server) -> None:
    """Unmodified, both of them."""
    with cohere.ClientV2(api_key=bare.key, base_url=bare.url, timeout=60) as second:
        answer = second.rerank(model=MODEL, query=QUERY, documents=DOCUMENTS, top_n=2, max_tokens_per_doc=512)
    assert answer.results[0].index == 1
    assert len(answer.results) == 2
    assert answer.meta is not None
    assert answer.meta.billed_units is not None
    assert answer.meta.billed_units.search_units == 1
    with cohere.Client(api_key=bare.key, base_url=bare.url, timeout=60) as first:
        other = first.rerank(model=MODEL, query=QUERY, documents=[{"text": text} for text in DOCUMENTS])
    assert other.results[0].index == 1
    assert len(other.results) == 3


def test_documents_are_cut_where_the_request_says_so(bare: Server) -> None:
    """What stands behind is not read."""
    hidden = ["x " * 400 + DOCUMENTS[1], DOCUMENTS[2]]
    assert indexes(rank(bare, documents=hidden, query="open gate hand turn crank").json())[0] == 0
    scores = {
        row["index"]: row["relevance_score"]
        for row in rank(bare, documents=hidden, max_tokens_per_doc=10).json()["results"]
    }
    bare_ = {row["index"]: row["relevance_score"] for row in rank(bare, documents=hidden).json()["results"]}
    assert scores[0] < bare_[0]


def test_a_search_may_say_what_it_thinks(bare: Server) -> None:
    """`prior`, in any unit, where the words say the same."""
    same = [{"text": DOCUMENTS[1], "prior": prior} for prior in (1.0, 30.0, 2.5)]
    assert indexes(rank(bare, documents=same).json()) == [1, 2, 0]


@pytest.mark.parametrize("priors", [[0.5, None], [0.5, "x"], [True, 1], [1, [1]], [1, {}], [1, 10**400]])
def test_half_of_that_is_a_bad_request(bare: Server, priors: list[Any]) -> None:
    documents = [{"text": "a gate", **({} if each is None else {"prior": each})} for each in priors]
    answer = rank(bare, documents=documents)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith("documents[")
    assert answer.json()["error"]["param"].endswith("].prior")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"documents": []}, "documents"),
        ({"query": ""}, "query"),
        ({"top_n": 0}, "top_n"),
        ({"documents": [3]}, "documents[0]"),
    ],
)
def test_bad_requests_name_the_field(bare: Server, fields: Json, param: str) -> None:
    answer = rank(bare, **fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    "documents",
    [["", " ", "\0"], ["a gate"] * 1_000, ["gate " * 400_000, "crank"], ["水門を手で開く。", "🚪", "\u202egate"]],
    ids=["empty", "many", "huge", "unicode"],
)
def test_odd_documents_have_a_place_each(bare: Server, documents: list[str]) -> None:
    answer = rank(bare, "/v2/rerank", documents=documents)
    assert answer.status_code == 200, answer.text
    assert sorted(indexes(answer.json())) == list(range(len(documents)))


@needs_vectors
def test_searches_take_it_by_name(client: openai.OpenAI, store: str) -> None:
    """Its scores are those of the results, a threshold cuts by them, and `explain` says what it said."""
    page = client.vector_stores.search(
        store,
        query=QUERY,
        ranking_options={"ranker": MODEL},  # type: ignore[arg-type] # OpenAI's names alone are typed
        extra_body={"explain": True, "rerank": {"timeout_s": 30}},
    )
    assert page.data[0].filename == "1.txt"
    stage = (page.model_extra or {})["stages"][0]
    assert (stage["name"], stage["status"], stage["model"]) == ("rerank", "done", MODEL)
    traces = (page.data[0].model_extra or {})["explain"]
    assert traces[-1]["name"] == "rerank"
    assert page.data[0].score == pytest.approx(traces[-1]["score"])


@needs_vectors
def test_a_search_that_cannot_wait_says_so(client: openai.OpenAI, store: str) -> None:
    """Too late by far: the search's own order, and why."""
    page = client.vector_stores.search(
        store,
        query=QUERY,
        ranking_options={"ranker": MODEL},  # type: ignore[arg-type] # as above
        extra_body={"rerank": {"timeout_s": 0.000_001}},
    )
    stage = (page.model_extra or {})["stages"][0]
    assert (stage["status"], stage["reason"]) == ("skipped", "no answer within 1e-06 s")
    assert page.data[0].filename == "1.txt"


@needs_vectors
def test_file_search_takes_it_by_name(client: openai.OpenAI, store: str) -> None:
    """As it takes any model that reranks; one that is not there is a mistake."""

    def ask(ranker: str) -> str:
        tool: Any = {"type": "file_search", "vector_store_ids": [store], "ranking_options": {"ranker": ranker}}
        answer = client.chat.completions.create(
            model="penstock/quotes", messages=[{"role": "user", "content": QUERY}], tools=[tool]
        )
        return answer.choices[0].message.content or ""

    assert "turn the crank" in ask(MODEL)
    with pytest.raises(openai.BadRequestError) as refused:
        ask("nobody")
    assert (refused.value.code, refused.value.param) == ("model_not_found", "tools[0].ranking_options.ranker")


def test_it_costs_nothing_and_is_in_the_ledger(bare: Server) -> None:
    rank(bare)
    deadline = time.monotonic() + 20
    while not (row := _spent(bare)) or not row["requests"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert row["cost_usd"] == 0


def _spent(server: Server) -> Json:
    rows = server.admin.get("/spend", params={"group_by": "model"}).json()["data"]
    return next((row for row in rows if MODEL in row.values()), {})
