"""What a client may ask for by header, for one request."""

import time

import pytest

from tests.fixtures.deployments import Routes, said
from tests.fixtures.server import ADMIN_KEY
from tests.upstream.behaviour import Behaviour

GOOD = Behaviour(text="fine")
DOWN = Behaviour(status=500)


def test_retries_may_be_switched_off(routes: Routes) -> None:
    """By a client that retries itself."""
    route = routes(DOWN)
    assert routes.ask(route, headers={"x-penstock-retries": "0"}).status_code == 502
    assert route.asked == [1]


def test_a_shorter_time_may_be_asked_for_but_no_longer_one(routes: Routes) -> None:
    """The model's own total stays the most."""
    route = routes(Behaviour(fault="silence"), timeouts={"total_s": 0.6})
    for asked, least in (("0.2", 0.2), ("500", 0.6)):
        began = time.monotonic()
        assert routes.ask(route, headers={"x-penstock-timeout-s": asked, "x-penstock-retries": "0"}).status_code == 504
        assert least <= time.monotonic() - began < least + 10


def test_an_impatient_client_takes_nothing_from_the_others(routes: Routes) -> None:
    """Its own limit ran out, not the model's: the deployments are as well as they were."""
    slow = Behaviour(text="slow", headers_after_s=0.4)
    route = routes(slow, slow, breaker={"failures": 1, "open_s": 600})
    for stream in (False, True):
        asked = routes.ask(route, headers={"x-penstock-timeout-s": "0.05"}, stream=stream)
        assert (asked.status_code, asked.json()["error"]["code"]) == (504, "upstream_timeout")
    for place in route.places:
        assert routes.server.admin.get(f"/deployments/{place.id}").json()["health"] is None
    mine = routes(slow, timeouts={"total_s": 0.1}, retries={"attempts": 0}, breaker={"failures": 1, "open_s": 600})
    assert routes.ask(mine, headers={"x-penstock-timeout-s": "500"}).status_code == 504
    assert routes.server.admin.get(f"/deployments/{mine.places[0].id}").json()["health"]["state"] == "open"


def test_fallbacks_may_be_named_or_refused(routes: Routes) -> None:
    """Named ones stand in instead of the configured ones; `none` means none."""
    configured, named = routes(GOOD), routes(Behaviour(text="named"))
    route = routes(DOWN, retries={"attempts": 0}, fallbacks=[configured.name])
    answer = routes.ask(route, headers={"x-penstock-fallbacks": f"{named.name}, {configured.name}"})
    assert said(answer) == "named"
    assert routes.ask(route, headers={"x-penstock-fallbacks": "none"}).status_code == 502
    assert (configured.asked, named.asked) == ([0], [1])


def test_a_named_fallback_needs_the_keys_permission(routes: Routes) -> None:
    """Unlike a configured one: it is the client's own choice."""
    other, route = routes(GOOD), routes(GOOD)
    key = routes.server.new_key(models=[route.name])
    answer = routes.ask(route, key=key, headers={"x-penstock-fallbacks": other.name})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "model_access_denied")
    assert routes.ask(route, headers={"x-penstock-fallbacks": "no-such-model"}).status_code == 404


def test_named_fallbacks_do_not_mend_a_wrong_request(routes: Routes) -> None:
    """A 400 is a 400."""
    other, route = routes(GOOD), routes(Behaviour(status=400))
    assert routes.ask(route, headers={"x-penstock-fallbacks": other.name}).status_code == 400
    assert other.asked == [0]


def test_the_admin_may_pin_a_deployment(routes: Routes) -> None:
    """Whatever weights and health say; nobody else may."""
    route = routes(GOOD, Behaviour(text="second"))
    pin = {"x-penstock-deployment": route.places[1].id}
    assert said(routes.ask(route, key=ADMIN_KEY, headers=pin)) == "second"
    assert routes.ask(route, headers=pin).json()["error"]["code"] == "pin_denied"
    missing = routes.ask(route, key=ADMIN_KEY, headers={"x-penstock-deployment": "nowhere"})
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "deployment_not_found")


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-penstock-retries", "eleven"),
        ("x-penstock-retries", "11"),
        ("x-penstock-retries", "-1"),
        ("x-penstock-timeout-s", "0"),
        ("x-penstock-timeout-s", "nan"),
        ("x-penstock-timeout-s", "soon"),
        ("x-penstock-fallbacks", ""),
        ("x-penstock-fallbacks", "a,,b"),
        ("x-penstock-fallbacks", "a,b,c,d,e,f"),
    ],
)
def test_nonsense_is_refused(routes: Routes, header: str, value: str) -> None:
    """Before anything is sent, with the header's name."""
    route = routes(GOOD)
    answer = routes.ask(route, headers={header: value})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == header
    assert route.asked == [0]
