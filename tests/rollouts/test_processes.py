"""Rollouts over processes: whoever is killed is replaced, and two workers see one rollout."""

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from sqlalchemy import create_engine, text

from tests.fixtures.rollouts import Traffic, begin, over, weights
from tests.fixtures.server import Json, Server, models
from tests.fixtures.upstream import Upstream

Arms = Callable[..., str]

pytestmark = pytest.mark.timeout(150)


def seen(shown: Json) -> int:
    """How many requests the evidence is made of."""
    return sum(one["n_champion"] + one["n_challenger"] for one in shown["evidence"][:1])


def await_all(server: Server, name: str, wanted: Callable[[httpx.Response], bool]) -> None:
    """Until many answers in a row are so, each over a connection of its own: by then both workers have the newest revision."""
    deadline = time.monotonic() + 30
    headers = {"authorization": f"Bearer {server.key}"}

    def asked(number: int) -> httpx.Response:
        body = server.ask(name, user=f"user-{number}")
        return httpx.post(f"{server.url}/v1/chat/completions", json=body, headers=headers, timeout=30)

    while not all(wanted(asked(number)) for number in range(16)):
        assert time.monotonic() < deadline


def test_a_kill_in_the_middle_changes_nothing(upstream: Upstream, arm: Arms, tmp_path: Path) -> None:
    """SIGKILL while requests are counted: the next process goes on where the rollout stands, and counts each request once."""
    server = Server({"models": models(upstream)}, tmp_path).start()
    try:
        gates = [{"metric": "error_rate", "max_regression": 0.02}]
        id_ = begin(server, "killed", arm(), arm(), gates=gates, bake_s=2, steps=[0.3, 0.6])["id"]
        Traffic(server, "killed").until(id_, lambda shown: seen(shown) >= 40)
        server.kill()
        server.start()
        before = server.admin.get(f"/rollouts/{id_}").json()
        assert (before["state"], seen(before) >= 40) == ("running", True)
        share = weights(server, "killed")[2]
        after = server.admin.get(f"/rollouts/{id_}").json()  # it may have moved on between the two looks
        assert share in (pytest.approx(before["share"]), pytest.approx(after["share"]))

        shown = Traffic(server, "killed").until(id_, over)

        assert shown["state"] == "promoted", shown
        assert weights(server, "killed") == {1: 0, 2: 1}
    finally:
        server.stop()
    engine = create_engine(f"sqlite:///{server.data / 'penstock.db'}")
    with engine.connect() as tx:
        outcomes = tx.execute(text("SELECT count(*), sum(counted) FROM rollout_outcomes")).one()
    engine.dispose()
    assert outcomes == (seen(shown), seen(shown))


def test_two_workers_see_one_rollout(upstream: Upstream, arm: Arms, tmp_path: Path) -> None:
    """Requests at either are counted, one of them decides, and both give the challenger everything from then on."""
    server = Server({"server": {"workers": 2}, "models": models(upstream)}, tmp_path).start()
    try:
        challenger = arm()
        id_ = begin(server, "two", arm(), challenger)["id"]
        await_all(server, "two", lambda answer: answer.status_code == 200)
        traffic = Traffic(server, "two")

        shown = traffic.until(id_, over)

        assert shown["state"] == "promoted", shown
        assert set(traffic.statuses) == {200}
        await_all(server, "two", lambda answer: answer.headers["x-penstock-model"] == challenger)
        audit = server.admin.get("/audit", params={"subject": id_, "limit": 100}).json()["data"]
        moves = [one["after"] for one in audit if one["action"] == "rollout.move"]  # what is other after each
        steps = [move["step"] for move in moves if "step" in move]
        assert sorted(steps) == list(range(1, len(shown["steps"])))
        assert sum("state" in move for move in moves) == 1, moves
    finally:
        server.stop()
