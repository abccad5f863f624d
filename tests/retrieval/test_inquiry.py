"""What a search may ask for beside the search itself, by the `openai` SDK against the real process: rerankers, chat models, order."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from openai.types import VectorStore
from openai.types.vector_store_search_response import VectorStoreSearchResponse

from tests.fixtures.deployments import Route, Routes
from tests.fixtures.server import Json, Server
from tests.fixtures.upstream import Upstream
from tests.upstream.behaviour import Behaviour

UNIT = {"per_search_unit": 0.002}
TEXTS = {
    "gate.txt": "The gate of the dam opens slowly. It holds the river back.",
    "twin.txt": "The gate of the dam opens slowly. It holds the river back!",
    "river.txt": "A river flows to the sea, and takes sand along.",
    "bread.txt": "Sourdough rises with wild yeast.",
}
AGES: dict[str, str | float] = {"gate.txt": "2001-01-01", "twin.txt": "2002-01-01", "river.txt": "2026-11-01"}
LONG = " ".join(f"Sentence {n} of the manual says that valve {n} turns the pump {n} of the plant." for n in range(60))

Search = Callable[..., Any]


@pytest.fixture(scope="module")
def server(documents_server: Server) -> Server:
    return documents_server


@pytest.fixture(scope="module")
def routes(server: Server, upstream: Upstream) -> Routes:
    return Routes(server, upstream)


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=server.new_key(), base_url=server.base_url, max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def ranker(routes: Routes) -> Route:
    """It ranks by the share of the query's words."""
    return routes(Behaviour(), deployment={"price": UNIT})


@pytest.fixture(scope="module")
def store(client: openai.OpenAI) -> VectorStore:
    made = client.vector_stores.create(name="inquiry")
    for name, text in {**TEXTS, "manual.txt": LONG}.items():
        file = client.files.create(file=(name, text.encode()), purpose="assistants")
        done = client.vector_stores.files.create_and_poll(
            file.id,
            vector_store_id=made.id,
            attributes={"written": AGES[name]} if name in AGES else {},
            chunking_strategy={
                "type": "static",
                "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 20},
            },
        )
        assert done.status == "completed", done
    return made


@pytest.fixture
def search(client: openai.OpenAI, store: VectorStore) -> Search:
    def run(
        query: Any = "gate", *, k: int = 3, ranking: Any = openai.omit, rewrite: Any = openai.omit, **more: Any
    ) -> Any:
        return client.vector_stores.search(
            store.id, query=query, max_num_results=k, ranking_options=ranking, rewrite_query=rewrite, extra_body=more
        )

    return run


def names(page: Any) -> list[str]:
    return [each.filename for each in page.data]


def stage(page: Any, name: str) -> Json:
    (found,) = [each for each in page.model_extra["stages"] if each["name"] == name]
    return dict(found)


def extra(result: VectorStoreSearchResponse) -> dict[str, Any]:
    assert result.model_extra is not None
    return result.model_extra


def recorded(server: Server, model: str) -> Json:
    """A call that was answered; records are written a moment later."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for row in server.admin.get("/requests", params={"model": model}).json()["data"]:
            if row["status"] == 200:
                return dict(row)
        time.sleep(0.05)
    raise AssertionError(f"no call of {model} was recorded")


def test_a_cross_encoder_has_the_last_word(search: Search, ranker: Route, server: Server) -> None:
    """It is a call of the key's like any other: recorded, settled, with its price. Scores are its own, and thresholds cut by them."""
    query = "river takes sand"
    (before,) = ranker.asked
    page = search(query, ranking={"ranker": ranker.name}, explain=True)
    assert names(page)[0] == "river.txt"
    assert page.data[0].score == 1.0
    assert stage(page, "rerank") | {"took_ms": 0} == {
        "name": "rerank", "status": "done", "model": ranker.name, "took_ms": 0,
    }  # fmt: skip
    traces = [each["name"] for each in extra(page.data[0])["explain"]]
    assert traces == ["dense", "lexical", "fused", "rerank"]
    assert ranker.asked == [before + 1]
    cut = search(query, ranking={"ranker": ranker.name, "score_threshold": 0.5})
    assert names(cut) == ["river.txt"]
    row = recorded(server, ranker.name)
    assert "retrieval" in row["tags"]
    assert row["cost_usd"] == 0.002


def test_a_reranker_that_is_late_is_left_out_and_said_so(search: Search, routes: Routes) -> None:
    late = routes(Behaviour(headers_after_s=30), deployment={"price": UNIT})
    plain = search(ranking={"ranker": "none"})
    page = search(ranking={"ranker": late.name}, rerank={"timeout_s": 0.3, "candidates": 5})
    assert names(page) == names(plain)
    told = stage(page, "rerank")
    assert (told["status"], told["reason"]) == ("skipped", "no answer within 0.3 s")
    assert plain.model_extra is not None
    assert "stages" not in plain.model_extra


def test_a_reranker_that_fails_is_left_out_and_said_so(search: Search, routes: Routes) -> None:
    for behaviour in (Behaviour(status=500), Behaviour(body='{"results": [{"index": 0, "relevance_score": 1}]}')):
        broken = routes(behaviour, deployment={"price": UNIT}, retries={"attempts": 0})
        page = search(ranking={"ranker": broken.name})
        assert len(page.data) == 3
        told = stage(page, "rerank")
        assert told["status"] == "skipped"
        assert told["reason"].startswith("Reranking: ")


def test_a_budget_that_does_not_reach_is_no_failure(server: Server, ranker: Route, client: openai.OpenAI) -> None:
    """The search is paid, the reranking is not: its passages come in the order of the search. Nothing is left held."""
    key = server.new_key(budget={"limit_usd": 0.001, "period": "total"})
    poor = client.with_options(api_key=key)
    made = poor.vector_stores.create(name="poor")
    file = poor.files.create(file=("a.txt", b"A gate."), purpose="assistants")
    assert poor.vector_stores.files.create_and_poll(file.id, vector_store_id=made.id).status == "completed"
    page = poor.vector_stores.search(made.id, query="gate", ranking_options={"ranker": ranker.name})  # type: ignore[arg-type]
    assert [each.filename for each in page.data] == ["a.txt"]
    told = stage(page, "rerank")
    assert told["status"] == "skipped"
    assert "budget" in told["reason"].lower()


def test_without_a_reranker_none_is_missed(search: Search) -> None:
    """`auto` is what there is; who asks for one in so many words is told that there is none."""
    assert "stages" not in search(ranking={"ranker": "auto"}).model_extra
    told = stage(search(rerank={}), "rerank")
    assert told["status"] == "skipped"
    assert "retrieval.rerank_model" in told["reason"]


def test_a_chat_model_rewrites_and_asks_in_other_ways(search: Search, routes: Routes) -> None:
    """`search_query` says what was searched for; a made-up answer is searched by meaning alone."""
    chat = routes(Behaviour(text="1. yeast\n2. wild sourdough\n3. too many"))
    page = search("what rises?", rewrite=True, expand={"model": chat.name, "multi_query": 2, "hyde": True})
    assert page.search_query == ["yeast", "wild sourdough"]
    assert names(page)[0] == "bread.txt"
    assert stage(page, "rewrite_query")["queries"] == ["yeast"]
    assert stage(page, "multi_query")["queries"] == ["yeast", "wild sourdough"]
    assert stage(page, "hyde")["queries"] == ["1. yeast\n2. wild sourdough\n3. too many"]
    assert chat.asked == [3]
    assert page.model_extra["plan"]["dense"] == ["all"] * 3


def test_a_chat_model_that_does_not_write_is_left_out_and_said_so(search: Search, routes: Routes) -> None:
    late = routes(Behaviour(headers_after_s=30))
    page = search(rewrite=True, expand={"model": late.name, "timeout_s": 0.3})
    assert page.search_query == ["gate"]
    assert stage(page, "rewrite_query")["reason"] == "no answer within 0.3 s"
    mute = routes(Behaviour(text=" "))
    assert stage(search(expand={"model": mute.name, "hyde": True}), "hyde")["reason"] == "the model wrote nothing"
    unnamed = search(rewrite=True)
    assert "retrieval.chat_model" in stage(unnamed, "rewrite_query")["reason"]
    assert names(unnamed) == names(search())


def test_nothing_is_paid_for_in_vain(search: Search, routes: Routes, client: openai.OpenAI) -> None:
    """Neither for a store that is not there, nor for a meaning that nothing is searched by."""
    chat = routes(Behaviour(text="a river"))
    words = {"hybrid_search": {"embedding_weight": 0, "text_weight": 1}}
    page = search(ranking=words, expand={"model": chat.name, "hyde": True})
    assert stage(page, "hyde")["reason"] == "nothing is searched by meaning"
    with pytest.raises(openai.NotFoundError):
        client.vector_stores.search("vs_nowhere", query="q", extra_body={"expand": {"model": chat.name, "hyde": True}})
    assert chat.asked == [0]


def test_what_says_the_same_makes_room(search: Search) -> None:
    assert set(names(search("the gate of the dam", k=2))) == {"gate.txt", "twin.txt"}
    page = search("the gate of the dam", k=2, mmr={"lambda": 0.3}, explain=True)
    assert len({"gate.txt", "twin.txt"}.intersection(names(page))) == 1
    assert extra(page.data[1])["explain"][-1]["name"] == "mmr"


def test_a_file_is_one_result(search: Search) -> None:
    """With its best passages, each with its own citation. There are as many files as are asked for, and match."""
    plain = search("valve pump of the plant", k=5)
    assert names(plain) == ["manual.txt"] * 5
    page = search("valve pump of the plant", k=5, group={"by": "file", "size": 2})
    assert sorted(names(page)) == sorted([*TEXTS, "manual.txt"])
    first = page.data[0]
    assert first.filename == "manual.txt"
    assert len(first.content) == 2
    for content in first.content:
        place = content.model_extra["citation"]
        assert LONG[place["start"] : place["end"]] == content.text
    assert len(search("valve pump of the plant", k=2, group={}).data) == 2


def test_neighbours_stand_around_a_passage(search: Search) -> None:
    page = search("valve 30 turns the pump 30", k=1, neighbors={"before": 1, "after": 1})
    content = page.data[0].content[0]
    context = content.model_extra["context"]
    assert content.text in context["text"]
    assert len(context["text"]) > 2 * len(content.text)
    assert LONG[context["start"] : context["end"]] == context["text"]


def test_what_is_newer_comes_first(search: Search) -> None:
    plain = search("gate river", k=4)
    assert names(plain)[0] != "river.txt"
    page = search("gate river", k=4, recency={"half_life_days": 365, "attribute": "written"}, explain=True)
    assert names(page)[0] == "river.txt"
    assert extra(page.data[0])["explain"][-1]["name"] == "recency"
    added = search("gate river", k=4, recency={"half_life_days": 365})
    assert [each.score for each in added.data] == pytest.approx([each.score for each in plain.data], abs=0.01)


def test_words_of_the_question_are_marked(search: Search) -> None:
    (result,) = search("opening gates", k=1, highlight=True).data
    content = result.content[0]
    marked = [content.text[each["start"] : each["end"]] for each in content.model_extra["highlights"]]
    assert marked == ["gate", "opens"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"ranking_options": {"ranker": "nobody"}}, "ranking_options.ranker"),
        ({"ranking_options": {"ranker": ""}}, "ranking_options.ranker"),
        ({"ranking_options": {"score_threshold": 2}}, "ranking_options.score_threshold"),
        ({"ranking_options": {"ranker": "none"}, "rerank": {}}, None),
        ({"rerank": {"candidates": 0}}, "rerank.candidates"),
        ({"rerank": {"timeout_s": 0}}, "rerank.timeout_s"),
        ({"rerank": {"model": "x"}}, "rerank.model"),
        ({"expand": {"multi_query": 9}}, "expand.multi_query"),
        ({"expand": {"hyde": True, "model": "nobody"}}, "expand.model"),
        ({"mmr": {"lambda": 1.5}}, "mmr.lambda"),
        ({"mmr": 0.5}, "mmr"),
        ({"group": {"by": "author"}}, "group.by"),
        ({"group": {"size": 0}}, "group.size"),
        ({"recency": {}}, "recency.half_life_days"),
        ({"recency": {"half_life_days": -1}}, "recency.half_life_days"),
        ({"neighbors": {"before": 11}}, "neighbors.before"),
        ({"highlight": "yes please"}, "highlight"),
        ({"rewrite_query": 7}, "rewrite_query"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_bad_value_is_named(
    server: Server, store: VectorStore, client: openai.OpenAI, fields: Json, param: str | None
) -> None:
    answer = server.post(f"/v1/vector_stores/{store.id}/search", {"query": "gate", **fields}, key=str(client.api_key))
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert answer.json()["error"]["param"] == param


def test_a_key_names_only_models_that_it_may_use(server: Server, ranker: Route, client: openai.OpenAI) -> None:
    bound = client.with_options(api_key=server.new_key(models=["text-embedding-minilm"]))
    made = bound.vector_stores.create(name="bound")
    with pytest.raises(openai.PermissionDeniedError) as refused:
        bound.vector_stores.search(made.id, query="gate", ranking_options={"ranker": ranker.name})  # type: ignore[arg-type]
    assert (refused.value.code, refused.value.param) == ("model_access_denied", "ranking_options.ranker")
