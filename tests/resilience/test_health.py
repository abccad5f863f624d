"""Deployments that fail are left alone for a while, come back by one probe, and are never the reason that nothing is tried."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice

import pytest

from tests.fixtures.deployments import Route, Routes, said
from tests.fixtures.server import Json
from tests.upstream.behaviour import Behaviour

GOOD = Behaviour(text="fine")
DOWN = Behaviour(status=500)
BREAKER = {"failures": 3, "open_s": 0.6, "max_open_s": 0.6}  # open for 0.3 to 0.6 s


def health(routes: Routes, route: Route, number: int = 0) -> Json:
    view: Json = routes.server.admin.get(f"/deployments/{route.places[number].id}").json()
    found: Json = view["health"]
    return found


def test_a_deployment_that_keeps_failing_is_left_alone(routes: Routes) -> None:
    """Three failures open it, and while it is open nothing goes there."""
    long = {**BREAKER, "open_s": 60, "max_open_s": 60}
    route = routes(DOWN, GOOD, breaker=long)
    for _ in range(8):
        assert said(routes.ask(route)) == "fine"
    assert route.asked == [3, 8]
    seen = health(routes, route)
    assert (seen["state"], seen["reason"]) == ("open", "server")
    assert "scripted failure" in seen["last_error"]
    metrics = routes.server.http.get("/metrics").text
    assert f'penstock_breaker_state{{deployment="{route.places[0].id}",state="open"}} 1.0' in metrics
    assert f'penstock_attempt_failures_total{{deployment="{route.places[0].id}",failure="server"}} 3.0' in metrics


def test_a_deployment_comes_back_by_one_probe(routes: Routes) -> None:
    """When its time is over, one call goes there, however many come at once; if that is answered, all do."""
    route = routes(DOWN, GOOD, breaker=BREAKER)
    place = route.places[0].handle
    for _ in range(3):
        assert said(routes.ask(route)) == "fine"
    place.becomes(Behaviour(text="back", held_after=-1))
    deadline = time.monotonic() + 10
    while health(routes, route)["state"] != "half_open":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(routes.ask, route) for _ in range(6)]
        early = [said(answer.result()) for answer in islice(as_completed(answers), 5)]
        assert route.asked[0] == 4
        place.let_go()
        assert sorted(said(answer.result()) for answer in answers) == ["back", *early]
    assert early == ["fine"] * 5
    assert health(routes, route)["state"] == "closed"
    assert said(routes.ask(route)) == "back"


def test_a_probe_that_fails_opens_it_again(routes: Routes) -> None:
    """At most one call per opening finds out that nothing has changed."""
    route = routes(DOWN, GOOD, breaker=BREAKER)
    began = time.monotonic()
    while (lasted := time.monotonic() - began) < 1.2 or route.asked[0] < 5:
        assert lasted < 20
        assert said(routes.ask(route)) == "fine"
    assert route.asked[0] <= 3 + lasted / 0.3 + 2


def test_the_last_deployment_is_always_tried(routes: Routes) -> None:
    """Where nothing else is left, a breaker stops nobody: it may be well by now."""
    route = routes((*[DOWN] * 6, GOOD), breaker=BREAKER, retries={"attempts": 0})
    assert [routes.ask(route).status_code for _ in range(7)] == [502] * 6 + [200]
    assert health(routes, route)["state"] == "closed"


def test_an_open_deployment_sends_its_calls_to_the_model_that_stands_in(routes: Routes) -> None:
    """Without a try: the client does not wait for what is known to be down."""
    second = routes(GOOD)
    route = routes(
        DOWN, breaker={**BREAKER, "open_s": 60, "max_open_s": 60}, retries={"attempts": 0}, fallbacks=[second.name]
    )
    for _ in range(3):
        assert routes.ask(route).headers["x-penstock-fallback"] == "server"
    answer = routes.ask(route)
    assert answer.headers["x-penstock-fallback"] == "unhealthy"
    assert answer.headers["x-penstock-attempts"] == "1"
    assert route.asked == [3]


def test_a_wrong_request_says_nothing_about_health(routes: Routes) -> None:
    """Ten 400s, and the deployment is as well as before."""
    route = routes(Behaviour(status=400), GOOD, breaker=BREAKER)
    for _ in range(10):
        assert routes.ask(route).status_code == 400
    assert health(routes, route) is None


def test_a_rate_limit_cools_and_a_shorter_one_does_not_shorten_it(routes: Routes) -> None:
    """After retry-after 30 it is left alone, also when a call that was under way hears of one second."""
    route = routes(Behaviour(status=429, headers=(("retry-after", "30"),)), GOOD)
    for _ in range(5):
        assert said(routes.ask(route)) == "fine"
    assert route.asked == [1, 5]
    seen = health(routes, route)
    assert (seen["state"], seen["reason"]) == ("cooling", "rate_limited")


def test_health_outlives_a_change_of_the_configuration_but_not_a_new_key(routes: Routes) -> None:
    """Another weight says nothing about a refused key; another key does."""
    route = routes((Behaviour(status=401), GOOD), GOOD)
    assert said(routes.ask(route)) == "fine"
    id_ = route.places[0].id
    routes.server.admin.patch(f"/deployments/{id_}", json={"weight": 7})
    assert health(routes, route)["state"] == "credentials_refused"
    assert routes.ask(route).headers["x-penstock-deployment"] == route.places[1].id
    routes.server.admin.patch(f"/deployments/{id_}", json={"api_key": "sk-new"})
    assert health(routes, route) is None
    assert routes.ask(route).headers["x-penstock-deployment"] == id_


@pytest.fixture
def probed(routes: Routes) -> Iterator[Route]:
    """Down for a while, with one in reserve. Forgotten afterwards: the server lives on, and would go on probing."""
    route = routes(
        (*[Behaviour(status=503)] * 4, Behaviour(text="back")),
        GOOD,
        breaker={"failures": 2, "open_s": 0.4, "max_open_s": 0.4},
        health={"interval_s": 0.1},
    )
    yield route
    routes.forget(route)


def test_a_dead_deployment_is_known_before_a_client_waits_for_it(routes: Routes, probed: Route) -> None:
    """Probes alone open its breaker, and no call is spent on it; when it lists its models again, calls go there."""
    deadline = time.monotonic() + 15
    while (seen := health(routes, probed)) is None or seen["state"] == "closed":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    while said(routes.ask(probed)) != "back":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    asked = probed.places[0].handle.entries()
    first_call = next(number for number, entry in enumerate(asked) if entry.method == "POST")
    assert first_call >= 2  # once it has opened, a call may find out as well as a probe
    assert all(entry.path.endswith("/models") for entry in asked if entry.method == "GET")
    assert asked[0].header("authorization") == f"Bearer sk-{probed.places[0].id}"
