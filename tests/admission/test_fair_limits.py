"""A limit on a scope that its active keys share, on the real process."""

from tests.fixtures.deployments import Routes
from tests.fixtures.queues import ALONE
from tests.upstream.behaviour import Behaviour

ANSWER = Behaviour(prompt_tokens=200, completion_tokens=400)


def test_active_keys_share_a_models_tokens(routes: Routes) -> None:
    """One has used most of them; from the moment that another one was turned away, only that one may have more."""
    route = routes(ANSWER, **ALONE)
    admin = routes.server.admin
    scope = {"kind": "model", "id": route.name}
    made = admin.post("/limits", json={"scope": scope, "tpm": 10_000, "fair_share": True})
    assert made.status_code == 201, made.text
    assert made.json()["fair_share"] is True
    greedy, modest = routes.server.new_key(), routes.server.new_key()

    assert [routes.ask(route, key=greedy, max_tokens=400).status_code for _ in range(10)] == [200] * 10  # 6000 used
    refused = routes.ask(route, key=modest, max_tokens=9000)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    had = routes.ask(route, key=greedy, max_tokens=10)
    assert had.status_code == 429
    assert "has its share" in had.json()["error"]["message"]
    assert had.headers["retry-after"] == "5"
    assert [routes.ask(route, key=modest, max_tokens=400).status_code for _ in range(3)] == [200] * 3

    changed = admin.patch(f"/limits/{made.json()['id']}", json={"fair_share": False})
    assert changed.json()["fair_share"] is False


def test_one_key_alone_has_all_of_it(routes: Routes) -> None:
    """Sharing costs nobody anything who is alone."""
    route = routes(ANSWER, **ALONE)
    limits = {"scope": {"kind": "model", "id": route.name}, "tpm": 10_000, "fair_share": True}
    assert routes.server.admin.post("/limits", json=limits).status_code == 201
    key = routes.server.new_key()
    assert [routes.ask(route, key=key, max_tokens=400).status_code for _ in range(12)] == [200] * 12
