"""Rollouts of routes on the real process: what is broken goes back, what is well goes on, whoever dies meanwhile."""

from collections.abc import Callable

import pytest

from tests.fixtures.rollouts import ERRORS, LATENCY, Traffic, begin, over, weights
from tests.fixtures.server import Server
from tests.upstream.behaviour import Behaviour

Arms = Callable[..., str]

pytestmark = pytest.mark.timeout(120)


def test_a_healthy_challenger_is_promoted(rolling_server: Server, arm: Arms) -> None:
    """Step by step, up to all of the requests."""
    server = rolling_server
    rollout = begin(server, "healthy", arm(), arm(), gates=[ERRORS, LATENCY])
    assert rollout["state"] == "running"
    assert weights(server, "healthy") == pytest.approx({1: 0.8, 2: 0.2})

    traffic = Traffic(server, "healthy")
    shown = traffic.until(rollout["id"], over)

    assert shown["state"] == "promoted", shown
    assert all(one["passed"] for one in shown["evidence"])
    assert weights(server, "healthy") == {1: 0.0, 2: 1.0}
    assert set(traffic.statuses) == {200}


@pytest.mark.parametrize(
    ("broken", "gate"),
    [
        (Behaviour(status=500), "error_rate"),
        (Behaviour(body='{"choices": [{"mess'), "error_rate"),
        (Behaviour(headers_after_s=0.5), "latency_p95_ms"),
    ],
    ids=["5xx", "broken JSON", "500 ms"],
)
def test_a_broken_challenger_is_rolled_back(rolling_server: Server, arm: Arms, broken: Behaviour, gate: str) -> None:
    """Before it is asked for more than its first step, with the gate that saw it as the reason; the weight is back where it was."""
    name = f"broken-{broken.status}-{broken.body is None}-{gate}"
    server = rolling_server
    rollout = begin(server, name, arm(), arm(broken), gates=[ERRORS, LATENCY], bake_s=30)

    shown = Traffic(server, name).until(rollout["id"], over)

    assert shown["state"] == "rolled_back", shown
    assert shown["reason"].startswith(f"{gate}: ")
    assert weights(server, name) == {1: 1.0, 2: 0.0}
    assert shown["step"] == 0
