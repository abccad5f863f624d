"""Rollouts of retrievers on the real process: a name that is searched goes from one collection, or way to search it, to another."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

from admin.api.search_wire import SearchBody
from admin.retrievers import as_set
from retrieval.asking import Question
from tests.fixtures.rollouts import QUICK, over
from tests.fixtures.server import Json, Server

pytestmark = pytest.mark.timeout(180)

WORDS = {"ranking_options": {"hybrid_search": {"embedding_weight": 0, "text_weight": 1}}}  # which needs no model
ERRORS = {"metric": "error_rate", "max_regression": 0.05}
EMPTY = {"metric": "empty_rate", "max_regression": 0.05}
LATENCY = {"metric": "latency_p95_ms", "max_regression": 1.0, "slack": 500}


@pytest.fixture(scope="module")
def collection(rolling_server: Server) -> Iterator[Callable[..., str]]:
    """A new one, with a document that answers unless it is to be empty."""
    client = openai.OpenAI(api_key=rolling_server.key, base_url=rolling_server.base_url, max_retries=0)

    def made(text: str = "A gate regulates the flow into a turbine.") -> str:
        store = client.vector_stores.create(name="flows", extra_body={"embedding_model": "embed"})
        if text:
            file = client.files.create(file=("a.txt", text.encode()), purpose="assistants")
            done = client.vector_stores.files.create_and_poll(file.id, vector_store_id=store.id, poll_interval_ms=50)
            assert done.status == "completed", done.last_error
        return store.id

    with client:
        yield made


class Searching:
    """Searches for one name, some at a time, and what they came to."""

    def __init__(self, server: Server, name: str) -> None:
        self.server = server
        self.name = name
        self.answers: list[httpx.Response] = []

    def ask(self, _: int = 0) -> httpx.Response:
        answer = self.server.post(f"/v1/vector_stores/{self.name}/search", {"query": "turbine", **WORDS})
        self.answers.append(answer)
        return answer

    def until_over(self, id_: str) -> Json:
        with ThreadPoolExecutor(4) as pool:
            for _ in range(100):
                list(pool.map(self.ask, range(40)))
                shown: Json = self.server.admin.get(f"/rollouts/{id_}").json()
                if over(shown):
                    return shown
        pytest.fail("never over")

    def versions(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for each in self.answers:
            name = each.headers.get("x-penstock-retriever", "")
            found[name] = found.get(name, 0) + 1
        return found


def begin(server: Server, name: str, champion: str, challenger: str, **fields: Any) -> Json:
    body = {
        "target": {"kind": "retriever", "name": name},
        "champion": champion,
        "challenger": challenger,
        "gates": [ERRORS, EMPTY, LATENCY],
        **QUICK,
        **fields,
    }
    answer = server.admin.post("/rollouts", json=body)
    assert answer.status_code == 201, answer.text
    shown: Json = answer.json()
    return shown


def test_an_equal_retriever_is_promoted(rolling_server: Server, collection: Callable[..., str]) -> None:
    """By the ids of two collections; whoever searches the first one by its own id is moved, and no search is lost."""
    old, new = collection(), collection()
    searching = Searching(rolling_server, old)
    rollout = begin(rolling_server, old, old, new)

    shown = searching.until_over(rollout["id"])
    last = searching.ask()

    assert shown["state"] == "promoted", shown
    assert all(one["passed"] for one in shown["evidence"])
    assert {each.status_code for each in searching.answers} == {200}
    assert searching.versions().keys() == {f"{old}@1", f"{old}@2"}
    assert last.headers["x-penstock-retriever"] == f"{old}@2"
    served = rolling_server.admin.get(f"/retrievers/{old}").json()["versions"]
    assert [(one["collection"], one["share"]) for one in served] == [(old, 0.0), (new, 1.0)]


def test_a_retriever_that_finds_nothing_goes_back(rolling_server: Server, collection: Callable[..., str]) -> None:
    """No error, no delay: only empty."""
    old = collection()
    searching = Searching(rolling_server, "finder")
    shown = searching.until_over(begin(rolling_server, "finder", old, collection(""), bake_s=30)["id"])
    assert (shown["state"], shown["step"]) == ("rolled_back", 0), shown
    assert shown["reason"].startswith("empty_rate: ")
    assert searching.ask().headers["x-penstock-retriever"] == "finder@1"


def test_a_retriever_that_fails_costs_nobody_an_answer(rolling_server: Server, collection: Callable[..., str]) -> None:
    """Its collection is deleted under it: the champion answers instead, and it goes back for its errors."""
    old, gone = collection(), collection("")
    rollout = begin(rolling_server, "failing", old, gone, bake_s=30)
    rolling_server.admin.delete(f"/collections/{gone}").raise_for_status()
    searching = Searching(rolling_server, "failing")
    shown = searching.until_over(rollout["id"])
    assert shown["state"] == "rolled_back", shown
    assert shown["reason"].startswith("error_rate: ")
    assert {each.status_code for each in searching.answers} == {200}
    assert all(each.json()["data"] for each in searching.answers)


def test_people_decide_between_ways_to_search(rolling_server: Server, collection: Callable[..., str]) -> None:
    """Two versions of one collection, by the key that asks or by the search; what is said of a search counts for who found it."""
    store = collection()
    admin = rolling_server.admin
    first = admin.post("/retrievers", json={"name": "ways", "collection": store, "search": WORDS})
    assert first.status_code == 201, first.text
    assert first.json()["versions"][0]["search"] == WORDS
    second = admin.post("/retrievers/ways/versions", json={"collection": store, "search": {"max_num_results": 3}})
    assert [one["share"] for one in second.json()["versions"]] == [1.0, 0.0]
    feedback = {"metric": "feedback", "max_regression": 0.1}
    rollout = begin(rolling_server, "ways", "1", "2", gates=[feedback], strategy="ab", sticky="request", steps=None)
    searching = Searching(rolling_server, "ways")

    shown = rollout
    for _ in range(60):
        answers = [searching.ask() for _ in range(20)]
        for each in answers:
            liked = each.headers["x-penstock-retriever"] == "ways@1"
            said = rolling_server.post("/v1/feedback", {"id": each.headers["x-request-id"], "score": int(liked)})
            assert said.status_code in {200, 429}, said.text
        shown = admin.get(f"/rollouts/{rollout['id']}").json()
        if over(shown):
            break

    assert shown["state"] == "rolled_back", shown
    assert shown["reason"].startswith("feedback: ")


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"champion": "vs_none"}, 404, "champion"),
        ({"challenger": "nothing"}, 404, "challenger"),
        ({"strategy": "shadow"}, 400, "strategy"),
        ({"gates": [{"metric": "cost_usd", "max_regression": 0.1}]}, 400, "gates.0.metric"),
    ],
)
def test_what_searches_do_not_have_is_refused(
    rolling_server: Server, collection: Callable[..., str], fields: Json, status: int, param: str
) -> None:
    body = {"target": {"kind": "retriever", "name": "none"}, "champion": collection(""), "challenger": collection("")}
    refused = rolling_server.admin.post("/rollouts", json={**body, **fields})
    assert (refused.status_code, refused.json()["error"]["param"]) == (status, param), refused.text
    assert rolling_server.admin.get("/retrievers/none").status_code == 404
    wrong = rolling_server.admin.post("/retrievers", json={"name": "none", "collection": "vs_none"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (404, "collection")


def test_what_a_search_says_itself_holds() -> None:
    """Settings of a version fill in what is left out, and weights belong together."""
    usual = SearchBody(query="-").question()
    settings = {**WORDS, "max_num_results": 3, "rerank": {"candidates": 20}}

    said = as_set(SearchBody(query="a").question(), usual, settings)
    assert (said.queries, said.k, said.dense, said.lexical, said.fusion) == (("a",), 3, 0, 1, "ranks")
    assert said.rerank is not None
    assert said.rerank.candidates == 20

    weights = {"hybrid_search": {"embedding_weight": 2, "text_weight": 1}}
    own = SearchBody.model_validate({"query": "a", "max_num_results": 7, "ranking_options": weights}).question()
    kept = as_set(own, usual, settings)
    assert (kept.k, kept.dense, kept.lexical) == (7, 2, 1)
    bare = as_set(Question(queries=("a",)), Question(queries=()), {"max_num_results": 3})
    assert (bare.k, bare.rerank) == (3, None)
