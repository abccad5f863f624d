"""The unmodified `cohere` SDK, both of its clients, against the real process: rerankings by providers of either shape."""

from collections.abc import Iterator

import cohere
import pytest
from cohere.core import ApiError

from tests.fixtures.deployments import Route, Routes
from tests.upstream.behaviour import Behaviour

DOCUMENTS = ["a river", "the gate of a river", "a gate"]
PRICE = {"price": {"per_search_unit": 0.002}}


@pytest.fixture(scope="module", params=["openai", "cohere"])
def model(request: pytest.FixtureRequest, routes: Routes) -> Route:
    """Behind a provider that speaks Jina's shape, or Cohere's."""
    return routes(Behaviour(), deployment={"provider": request.param, **PRICE})


@pytest.fixture(scope="module")
def second(routes: Routes) -> Iterator[cohere.ClientV2]:
    with cohere.ClientV2(api_key=routes.server.key, base_url=routes.server.url, timeout=20) as client:
        yield client


@pytest.fixture(scope="module")
def first(routes: Routes) -> Iterator[cohere.Client]:
    with cohere.Client(api_key=routes.server.key, base_url=routes.server.url, timeout=20) as client:
        yield client


def test_the_second_client_reranks(second: cohere.ClientV2, model: Route) -> None:
    answer = second.rerank(model=model.name, query="the gate", documents=DOCUMENTS, top_n=2, max_tokens_per_doc=512)
    assert [(each.index, each.relevance_score) for each in answer.results] == [(1, 1.0), (2, 0.5)]
    assert answer.id
    assert answer.meta is not None
    assert answer.meta.api_version is not None
    assert answer.meta.api_version.version == "2"
    assert answer.meta.billed_units is not None
    assert answer.meta.billed_units.search_units == 1


def test_the_first_client_gets_its_documents_back(first: cohere.Client, model: Route) -> None:
    documents = [{"text": text} for text in DOCUMENTS]
    answer = first.rerank(
        model=model.name,
        query="the gate",
        documents=documents,
        top_n=2,
        return_documents=True,
    )
    assert [each.index for each in answer.results] == [1, 2]
    assert [each.document.text for each in answer.results if each.document is not None] == [
        "the gate of a river",
        "a gate",
    ]


def test_an_upstream_that_says_nothing_of_its_bill_is_counted(second: cohere.ClientV2, routes: Routes) -> None:
    silent = routes(Behaviour(usage="absent"), deployment={"provider": "openai", **PRICE})
    answer = second.rerank(model=silent.name, query="the gate", documents=DOCUMENTS * 50)
    assert answer.meta is not None
    assert answer.meta.billed_units is not None
    assert answer.meta.billed_units.search_units == 2


def test_what_is_wrong_is_the_client_s_own_error(second: cohere.ClientV2, first: cohere.Client, routes: Routes) -> None:
    """The classes of the SDK, by status; the body names the field."""
    with pytest.raises(ApiError) as unknown:
        second.rerank(model="nobody", query="q", documents=["a"])
    assert unknown.value.status_code == 404
    with pytest.raises(ApiError) as bad:
        first.rerank(model="nobody", query="q", documents=[])
    assert bad.value.status_code == 400
    assert bad.value.body["error"]["param"] == "documents"
    stranger = cohere.ClientV2(api_key="sk-wrong", base_url=routes.server.url)
    with stranger, pytest.raises(ApiError) as refused:
        stranger.rerank(model="nobody", query="q", documents=["a"])
    assert refused.value.status_code == 401
