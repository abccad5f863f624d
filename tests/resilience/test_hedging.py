"""A second attempt for a slow first one: one answer, both settled, and never more than the model allows."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.fixtures.deployments import Route, Routes, price, said, whole
from tests.fixtures.raw import Raw, chat, head
from tests.fixtures.server import Json
from tests.upstream.behaviour import Behaviour

HELD = Behaviour(text="slow", held_after=-1, prompt_tokens=7, completion_tokens=3)
GOOD = Behaviour(text="quick", prompt_tokens=7, completion_tokens=3)
HEDGE: Json = {"hedge": {"after_s": 0.15, "max_share": 1}}


def ask(routes: Routes, route: Route, let_go: Sequence[int]) -> httpx.Response:
    """Both attempts are under way before the deployments with these numbers go on."""
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(routes.ask, route)
        for place in route.places:
            place.handle.wait(bool)
        for number in let_go:
            route.places[number].handle.let_go()
        return answer.result()


@pytest.mark.parametrize("stream", [False, True])
def test_the_faster_one_answers_and_the_other_is_cancelled_and_billed(routes: Routes, stream: bool) -> None:
    """Nobody can know what the slow one did: it is settled at its worst case, under an id of its own."""
    route = routes(HELD, GOOD, **HEDGE)
    answer = routes.ask(route, stream=stream, max_tokens=50)
    assert said(answer) == "quick"
    assert whole(answer) is stream
    assert answer.headers["x-penstock-deployment"] == route.places[1].id
    assert answer.headers["x-penstock-attempts"] == "2"
    lost, won = routes.records(answer)
    assert (lost["id"], lost["error_code"], lost["usage_source"]) == (f"{won['id']}-1", "hedge_lost", "estimated")
    assert (won["deployment"], won["usage_source"]) == (route.places[1].id, "provider")
    assert won["cost_nanousd"] == 13_000_000  # seven tokens in, three out
    assert {one["failure"] for one in won["trail"]} == {"hedge_lost", None}
    assert route.places[0].handle.ended().outcome == "client_left"


def test_the_first_may_still_win(routes: Routes) -> None:
    """Then the second one is the one that is cancelled."""
    route = routes(HELD, HELD, **HEDGE)
    answer = ask(routes, route, let_go=[0])
    assert answer.headers["x-penstock-deployment"] == route.places[0].id
    lost, won = routes.records(answer)
    assert (lost["id"], lost["deployment"]) == (f"{won['id']}-2", route.places[1].id)
    assert route.asked == [1, 1]


def test_an_answer_in_time_needs_no_second_attempt(routes: Routes) -> None:
    """Nothing but the usual is paid or recorded."""
    route = routes(GOOD, GOOD, hedge={"after_s": 30, "max_share": 1})
    answer = routes.ask(route)
    assert answer.headers["x-penstock-attempts"] == "1"
    assert route.asked == [1, 0]
    assert len(routes.records(answer)) == 1


def test_a_failure_before_that_is_an_ordinary_one(routes: Routes) -> None:
    """The next deployment is tried at once, as ever."""
    route = routes(Behaviour(status=500), GOOD, hedge={"after_s": 30})
    answer = routes.ask(route)
    assert said(answer) == "quick"
    assert [one["failure"] for one in routes.record(answer)["trail"]] == ["server", None]


def test_when_both_fail_the_call_goes_on_and_both_are_settled(routes: Routes) -> None:
    """Three attempts, three settlements with ids of their own."""
    late = Behaviour(status=500, held_after=-1)
    third = routes(GOOD)
    route = routes(late, late, retries={"attempts": 0}, fallbacks=[third.name], **HEDGE)
    answer = ask(routes, route, let_go=[0, 1])
    assert said(answer) == "quick"
    records = routes.records(answer)
    assert [one["id"].partition("-")[2] for one in records] == ["1", "2", ""]
    assert [one["cost_nanousd"] for one in records] == [0, 0, price(third.places[0].handle.entries()[0])]
    assert answer.headers["x-penstock-attempts"] == "3"


def test_no_more_than_a_share_of_the_calls_is_helped(routes: Routes) -> None:
    """One to begin with, then one for every ten calls."""
    slow = Behaviour(text="slow", headers_after_s=0.2)
    route = routes((HELD, slow), GOOD, hedge={"after_s": 0.05, "max_share": 0.1})
    assert [said(routes.ask(route)) for _ in range(5)] == ["quick", *["slow"] * 4]


def test_without_the_money_for_both_there_is_no_second_attempt(routes: Routes) -> None:
    """Hedging never waits for a budget, and never takes what the first attempt needs."""
    route = routes(Behaviour(text="slow", headers_after_s=0.4), GOOD, **HEDGE)
    key = routes.server.new_key(budget={"limit_usd": 1.2, "period": "total"})  # one worst case is about 0.8
    assert said(routes.ask(route, key=key, max_tokens=50)) == "slow"
    assert route.asked == [1, 0]


def test_a_client_that_leaves_ends_both(routes: Routes) -> None:
    """Neither upstream works on for nobody, and no hold stays open."""
    forever = Behaviour(headers_after_s=30)
    route = routes(forever, forever, **HEDGE)
    with Raw(routes.server) as raw:
        body = chat(routes.server, route.name)
        raw.send(head(routes.server, f"content-length: {len(body)}"), body)
        for place in route.places:
            place.handle.wait(bool)
    for place in route.places:
        assert place.handle.ended().outcome == "client_left"
    deadline = time.monotonic() + 20  # calls of other tests may still be on their way, as copies that a shadow gets
    while "penstock_open_holds 0.0" not in routes.server.http.get("/metrics").text:
        assert time.monotonic() < deadline, "a hold stayed open"
        time.sleep(0.05)


def test_a_call_slower_than_most_is_helped(routes: Routes) -> None:
    """`after_p95`: twenty quick calls tell what is usual, and the next one is not; until then nobody is helped."""
    usual = Behaviour(text="usual", headers_after_s=0.05, prompt_tokens=7, completion_tokens=3)
    stuck = Behaviour(text="stuck", headers_after_s=20.0)
    route = routes((*[usual] * 20, stuck), GOOD, hedge={"after_p95": True, "max_share": 1})
    assert [said(routes.ask(route)) for _ in range(20)] == ["usual"] * 20
    assert route.asked == [20, 0]
    answer = routes.ask(route)
    assert said(answer) == "quick"
    assert answer.headers["x-penstock-attempts"] == "2"
    lost, won = routes.records(answer)
    assert (lost["error_code"], won["deployment"]) == ("hedge_lost", route.places[1].id)
    route.places[0].handle.wait(lambda entries: entries[-1].outcome == "client_left")


def test_streams_are_measured_by_themselves_and_a_fixed_time_counts_until_then(routes: Routes) -> None:
    """What answers that do not stream take says nothing of a first token."""
    slow = Behaviour(text="slow", headers_after_s=0.4)
    route = routes((*[GOOD] * 20, slow), GOOD, hedge={"after_p95": True, "after_s": 20, "max_share": 1})
    assert [said(routes.ask(route)) for _ in range(20)] == ["quick"] * 20
    assert said(routes.ask(route, stream=True)) == "slow"
    assert route.asked == [21, 0]


def test_a_hedge_without_a_time_is_refused(routes: Routes) -> None:
    """Nobody could say when."""
    body = {"name": "timeless", "hedge": {"max_share": 0.5}}
    refused = routes.server.admin.post("/models", json=body)
    assert refused.status_code == 400
    assert "after_p95" in refused.text
