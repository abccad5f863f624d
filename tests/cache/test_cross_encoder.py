"""A model that reranks reads both questions before an answer is given again; whatever goes wrong with it, the call is asked."""

import json
import time

import httpx
import pytest

from tests.cache.conftest import Asker, Askers, outcome
from tests.fixtures.deployments import said
from tests.fixtures.server import Json
from tests.upstream.behaviour import Behaviour

FIRST, AGAIN = "How do I reset my password?", "how can I reset my password"


def scores(*each: float) -> Behaviour:
    rows = [{"index": index, "relevance_score": score} for index, score in enumerate(each)]
    return Behaviour(body=json.dumps({"results": rows, "usage": {"total_tokens": 20}}))


def pair(comparing: Askers, *ranked: Behaviour, **terms: object) -> tuple[Asker, Asker]:
    """A model with a cache by meaning, and the one that it asks."""
    ranker = comparing(*ranked, cache=False)
    terms = {"timeout_s": 30, **terms}
    semantic: Json = {"recheck": 0, "cross_encoder": {"model": ranker.model, **terms}}
    return comparing(cache={"exact": {}, "semantic": semantic}), ranker


def outcomes(asker: Asker, *texts: str) -> list[str | None]:
    return [outcome(asker.chat(text)) for text in texts]


def verdicts(asker: Asker) -> dict[str, float]:
    prefix = f'penstock_cache_checked_total{{model="{asker.model}",verdict="'
    lines = asker.server.http.get("/metrics").text.splitlines()
    return {line[len(prefix) :].split('"')[0]: float(line.split()[-1]) for line in lines if line.startswith(prefix)}


def records(ranker: Asker, count: int) -> list[Json]:
    """Of the model that was asked, once there are so many."""
    deadline = time.monotonic() + 30
    while True:
        rows: list[Json] = ranker.server.admin.get("/requests", params={"model": ranker.model}).json()["data"]
        if len(rows) >= count:
            return rows
        assert time.monotonic() < deadline, rows
        time.sleep(0.05)


def test_an_answer_is_given_again_where_the_model_agrees(comparing: Askers) -> None:
    """It reads both questions. That costs the client nothing, and stands under the key `cache` with what it cost."""
    asker, ranker = pair(comparing, scores(0.9))
    assert outcomes(asker, FIRST) == ["miss"]
    assert ranker.asked == 0
    again = asker.chat(AGAIN)
    assert (outcome(again), said(again).partition("|")[2]) == ("semantic", FIRST)
    assert again.headers["x-penstock-cost-usd"] == "0.000000000"
    (entry,) = ranker.handle.entries()
    body = json.loads(entry.body)
    assert (entry.path.rpartition("/")[2], body["query"], body["documents"]) == ("rerank", AGAIN, [FIRST])
    assert verdicts(asker) == {"same": 1}
    (record,) = records(ranker, 1)
    assert (record["key_id"], record["endpoint"], record["status"]) == ("cache", "rerank", 200)
    assert record["cost_nanousd"] == 20_000_000
    assert asker.asked == 1


def test_what_the_model_puts_below_the_threshold_is_asked(comparing: Askers) -> None:
    """And kept: the next question is compared with both, in one call, and has the answer to the one that is most alike."""
    asker, ranker = pair(comparing, scores(0.69), scores(0.71, 0.8), scores(0.1, 0.2, 0.3), threshold=0.7)
    assert outcomes(asker, FIRST, AGAIN) == ["miss", "miss"]
    third = asker.chat("Please, how can I reset my password?")
    known = json.loads(ranker.handle.entries()[1].body)["documents"]
    assert sorted(known) == sorted([FIRST, AGAIN])
    assert (outcome(third), said(third).partition("|")[2]) == ("semantic", known[1])
    assert (ranker.asked, asker.asked) == (2, 2)
    assert verdicts(asker) == {"other": 1, "same": 1}


def test_the_same_words_ask_nobody(comparing: Askers) -> None:
    """Nor does what the first check tells apart."""
    asker, ranker = pair(comparing, scores(0.9))
    assert outcomes(asker, FIRST, FIRST, "How do I not reset my password?") == ["miss", "hit", "miss"]
    assert ranker.asked == 0


@pytest.mark.parametrize(
    "broken",
    [
        Behaviour(status=500),
        Behaviour(status=401),
        Behaviour(body='{"results": []}'),
        Behaviour(body='{"results": [{"index": 3, "relevance_score": 1}]}'),
        Behaviour(body='{"results": [{"index": 0, "relevance_score": 1}'),
        Behaviour(fault="rst"),
    ],
)
def test_a_model_that_fails_agrees_to_nothing(comparing: Askers, broken: Behaviour) -> None:
    """The call is asked, as if there were no other words for it; and once the model is back, it is asked again."""
    asker, ranker = pair(comparing, broken)
    assert outcomes(asker, FIRST, AGAIN) == ["miss", "miss"]
    assert verdicts(asker) == {"failed": 1}
    assert asker.asked == 2
    assert ranker.asked > 0


def test_a_model_that_is_not_there_agrees_to_nothing(comparing: Askers) -> None:
    semantic: Json = {"recheck": 0, "cross_encoder": {"model": "nobody"}}
    asker = comparing(cache={"exact": {}, "semantic": semantic})
    assert outcomes(asker, FIRST, AGAIN, AGAIN) == ["miss", "miss", "hit"]
    assert verdicts(asker) == {"failed": 1}


def test_nobody_waits_for_it_beyond_its_time(comparing: Askers) -> None:
    """The answer comes from upstream then, while the model is still silent."""
    asker, ranker = pair(comparing, Behaviour(headers_after_s=50), timeout_s=0.2)
    assert outcomes(asker, FIRST, AGAIN) == ["miss", "miss"]
    assert verdicts(asker) == {"failed": 1}
    (record,) = records(ranker, 1)
    assert record["status"] == 499


def test_what_cannot_be_is_refused(comparing: Askers) -> None:
    """With the place of what is wrong."""

    def made(**semantic: object) -> httpx.Response:
        place = {"id": "d", "base_url": "http://127.0.0.1:1/v1"}
        body = {"name": "odd-cache", "deployments": [place], "cache": {"semantic": semantic}}
        return comparing.server.admin.post("/models", json=body)

    wrongs: tuple[Json, ...] = (
        {"cross_encoder": {}},
        {"cross_encoder": {"model": "r", "timeout_s": 0}},
        {"cross_encoder": {"model": "r", "threshold": "high"}},
        {"max_entries": 0},
        {"max_entries": 2_000_000},
    )
    for wrong in wrongs:
        answer = made(**wrong)
        assert answer.status_code == 400, answer.text
        assert next(iter(wrong)) in answer.text
