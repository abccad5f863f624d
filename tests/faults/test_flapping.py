"""A deployment that is well and ill by turns: nobody notices, nothing is said twice, and it is left alone before long."""

import pytest

from tests.fixtures.deployments import Routes, chunks, price, said, whole
from tests.upstream.behaviour import Behaviour

CALLS = 24
OPENS_AT = 10  # the first failure is call 2, the first one of eight calls or more is call 10
GOOD = Behaviour(text="water turns the wheel")
BREAKER = {"failures": 3, "share": 0.5, "calls": 8, "open_s": 600, "max_open_s": 600}
ILL = {
    "500": Behaviour(status=500),
    "a cut": Behaviour(fault="rst"),
    "an error event": Behaviour(fault="error_event", fault_after=1),
}


@pytest.mark.parametrize(("ill", "stream"), [("500", False), ("a cut", False), ("500", True), ("an error event", True)])
def test_a_flapping_deployment_is_nobodys_business(routes: Routes, ill: str, stream: bool) -> None:
    """Never three failures in a row: it is their share of eight calls, counted from the first one, that opens the breaker."""
    route = routes(tuple([GOOD, ILL[ill]] * CALLS), GOOD, breaker=BREAKER)
    answers = [routes.ask(route, stream=stream, max_tokens=50) for _ in range(CALLS)]
    assert {said(answer) for answer in answers} == {"water turns the wheel"}
    if stream:
        assert all(whole(answer) for answer in answers)
        assert {sum("role" in c["choices"][0]["delta"] for c in chunks(answer)) for answer in answers} == {1}
    assert [answer.headers["x-penstock-attempts"] for answer in answers[:OPENS_AT]] == ["1", "2"] * (OPENS_AT // 2)
    assert {answer.headers["x-penstock-attempts"] for answer in answers[OPENS_AT:]} == {"1"}
    assert route.asked == [OPENS_AT, CALLS - OPENS_AT // 2]
    for answer in answers[:2]:
        assert routes.records(answer)[-1]["cost_nanousd"] == price(route.places[1].handle.entries()[0])


def test_one_that_recovers_is_used_again(routes: Routes) -> None:
    """Three failures, an opening, a probe that is answered: from then on everything goes there."""
    ill = Behaviour(status=503)
    brief = {"failures": 3, "open_s": 0.2, "max_open_s": 0.2}
    route = routes((ill, ill, ill, GOOD), GOOD, breaker=brief)
    asked = 0
    while route.asked[0] < 5:
        assert said(routes.ask(route)) == "water turns the wheel"
        asked += 1
        assert asked < 3000, "it never came back"
    assert routes.ask(route).headers["x-penstock-deployment"] == route.places[0].id
