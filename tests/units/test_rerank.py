"""`/v1/rerank` and `/v2/rerank` in front of providers that speak either shape."""

import json

import httpx
import pytest

from tests.fixtures.deployments import Route, Routes
from tests.fixtures.server import Json
from tests.upstream.behaviour import Behaviour

ASK = {"query": "the gate", "documents": ["a river", "the gate of a river", "a gate"], "top_n": 2}
ORDER = [(1, 1.0), (2, 0.5)]


def rank(routes: Routes, path: str, route: Route, **fields: object) -> httpx.Response:
    return routes.server.post(path, {"model": route.name, **ASK, **fields})


def ranked(answer: httpx.Response) -> list[tuple[int, float]]:
    assert answer.status_code == 200, answer.text
    return [(row["index"], row["relevance_score"]) for row in answer.json()["results"]]


def sent(route: Route) -> tuple[str, Json]:
    entry = route.places[0].handle.ended()
    return entry.path.partition(route.places[0].handle.id)[2], json.loads(entry.body)


@pytest.mark.parametrize("provider", ["openai", "cohere"])
@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
def test_either_shape_reaches_either_provider(routes: Routes, path: str, provider: str) -> None:
    """The same order and scores; the answer has the client's shape, the request the provider's."""
    route = routes(Behaviour(), deployment={"provider": provider, "price": {"per_search_unit": 0.002}})
    answer = rank(routes, path, route)
    assert ranked(answer) == ORDER
    where, body = sent(route)
    assert where == ("/v2/rerank" if provider == "cohere" else "/v1/rerank")
    assert (body["model"], body["top_n"]) == ("scripted", 2)
    if path == "/v2/rerank":
        assert answer.json()["meta"]["api_version"]["version"] == "2"
        assert all("document" not in row for row in answer.json()["results"])


def test_a_client_s_own_fields_go_on_where_the_shape_is_the_same(routes: Routes) -> None:
    """Unread, as everywhere."""
    route = routes(Behaviour(), deployment={"price": {"per_search_unit": 0.002}})
    rank(routes, "/v1/rerank", route, truncation=True)
    assert sent(route)[1]["truncation"] is True


def test_documents_may_be_objects_and_come_back(routes: Routes) -> None:
    """Cohere's second API takes texts alone: the field that is ranked is sent, and returned where it was asked for."""
    route = routes(Behaviour(), deployment={"provider": "cohere", "price": {"per_search_unit": 0.002}})
    documents = [{"text": "a river"}, {"text": "the gate", "more": 1}]
    answer = rank(routes, "/v1/rerank", route, documents=documents, return_documents=True)
    assert [row["document"]["text"] for row in answer.json()["results"]] == ["the gate", "a river"]
    assert sent(route)[1]["documents"] == ["a river", "the gate"]


def test_an_answer_that_ranks_what_it_was_not_given_is_no_answer(routes: Routes) -> None:
    """Nor is one that is not a ranking."""
    for body in ('{"results": [{"index": 3, "relevance_score": 1}]}', '{"results": 1}', "[]"):
        route = routes(Behaviour(body=body), deployment={"price": {"per_search_unit": 0.002}}, retries={"attempts": 0})
        assert rank(routes, "/v1/rerank", route).status_code == 502


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"documents": []}, "documents"),
        ({"documents": "x"}, "documents"),
        ({"documents": [{"title": "x"}]}, "documents[0]"),
        ({"query": ""}, "query"),
        ({"query": None}, "query"),
        ({"top_n": 0}, "top_n"),
        ({"model": 3}, "model"),
    ],
)
def test_a_bad_request_names_the_field(routes: Routes, fields: Json, param: str) -> None:
    answer = routes.server.post("/v1/rerank", {"model": "m", **ASK, **fields})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
