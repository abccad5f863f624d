"""Shadows: the client notices nothing and pays nothing, the copy is a call of its own, and too many are dropped."""

import time
from collections.abc import Callable

from tests.fixtures.deployments import Route, Routes, said, whole
from tests.fixtures.server import Json
from tests.upstream.behaviour import Behaviour

GOOD = Behaviour(text="fine", prompt_tokens=7, completion_tokens=3)


def until(condition: Callable[[], bool], what: str, wait_s: float = 15) -> None:
    deadline = time.monotonic() + wait_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def copies(routes: Routes, of: str) -> list[Json]:
    found = routes.server.admin.get("/requests", params={"limit": 200, "key_id": "shadow"}).json()["data"]
    return [one for one in found if one["shadow_of"] == of]


def shadowed(routes: Routes, copy: Behaviour, **spec: object) -> tuple[Route, Route]:
    behind = routes(copy)
    return routes(GOOD, shadow={"model": behind.name, "share": 1, **spec}), behind


def outcomes(routes: Routes) -> dict[str, float]:
    lines = routes.server.http.get("/metrics").text.splitlines()
    prefix = 'penstock_shadow_calls_total{outcome="'
    return {line[len(prefix) :].split('"')[0]: float(line.split()[-1]) for line in lines if line.startswith(prefix)}


def test_a_copy_goes_to_the_other_model_and_nobody_pays(routes: Routes) -> None:
    """It has a record of its own that names its original, and costs no organisation, key or user anything."""
    route, behind = shadowed(routes, GOOD)
    key = routes.server.new_key(budget={"limit_usd": 51, "period": "total"})
    answer = routes.ask(route, key=key)
    assert (said(answer), answer.headers["x-penstock-model"]) == ("fine", route.name)
    id_ = answer.headers["x-request-id"]
    until(lambda: bool(copies(routes, id_)), "the copy was never recorded")
    (copy,) = copies(routes, id_)
    assert (copy["model"], copy["key_id"], copy["org_id"], copy["user"]) == (behind.name, "shadow", None, None)
    assert (copy["status"], copy["tags"], copy["cost_nanousd"]) == (200, ["shadow"], 13_000_000)
    assert '"user":' not in behind.places[0].handle.entries()[0].body
    assert routes.record(answer)["shadow_of"] is None
    budgets = routes.server.admin.get("/budgets", params={"limit": 1000}).json()["data"]
    (budget,) = (one["id"] for one in budgets if one["limit_usd"] == 51)
    assert routes.server.admin.get(f"/budgets/{budget}").json()["settled_usd"] == 0.013


def test_a_slow_or_broken_copy_delays_and_breaks_nothing(routes: Routes) -> None:
    """The answer is there long before the copy's; a stream is copied as a stream."""
    slow, behind = shadowed(routes, Behaviour(held_after=-1))
    answer = routes.ask(slow, stream=True)
    assert (said(answer), whole(answer)) == ("fine", True)
    until(lambda: behind.asked == [1], "no copy was sent")
    assert behind.places[0].handle.entries()[0].outcome == "open"
    behind.places[0].handle.let_go()
    until(lambda: bool(copies(routes, answer.headers["x-request-id"])), "the copy was never recorded")
    broken, behind = shadowed(routes, Behaviour(status=500))
    answer = routes.ask(broken)
    assert said(answer) == "fine"
    until(lambda: bool(copies(routes, answer.headers["x-request-id"])), "the copy was never recorded")
    assert said(routes.ask(broken)) == "fine"


def test_copies_are_few_small_and_only_of_what_was_answered(routes: Routes) -> None:
    """What is too large is counted, not sent; a call that failed has nothing to compare with; a copy has no copy."""
    second = routes(GOOD)
    behind = routes(GOOD, shadow={"model": second.name, "share": 1})
    route = routes((Behaviour(status=400), GOOD), shadow={"model": behind.name, "share": 1})
    before = outcomes(routes)
    assert routes.ask(route).status_code == 400
    assert said(routes.ask(route, text="x" * 300_000)) == "fine"
    answer = routes.ask(route)
    until(lambda: bool(copies(routes, answer.headers["x-request-id"])), "the copy was never recorded")
    after = outcomes(routes)
    assert (after["sent"] - before["sent"], after["too_large"] - before["too_large"]) == (1, 1)
    assert (behind.asked, second.asked) == ([1], [0])


def test_a_copy_stays_in_the_region_of_its_original(routes: Routes) -> None:
    """What may not leave the EU is not copied out of it either."""
    behind = routes(GOOD)
    route = routes(GOOD, shadow={"model": behind.name, "share": 1}, deployment={"region": "eu"})
    key = routes.server.new_key(metadata={"region": "eu"})
    answer = routes.ask(route, key=key)
    assert said(answer) == "fine"
    until(lambda: bool(copies(routes, answer.headers["x-request-id"])), "the copy was never recorded")
    (copy,) = copies(routes, answer.headers["x-request-id"])
    assert (copy["status"], copy["error_code"]) == (404, "no_matching_deployment")
    assert behind.asked == [0]
