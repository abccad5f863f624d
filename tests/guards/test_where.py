"""Which calls a guard is for, how it is managed, and that nothing leads around it: fallbacks, caches, shadows, configuration under way."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from admin.config_file import ConfigError
from admin.settings import load
from gateway.catalog import Deployment, Model, compile_catalog
from gateway.guards.policy import Guard, Guards, Where
from gateway.keys import Key
from tests.fixtures.deployments import said
from tests.fixtures.server import Server
from tests.fixtures.upstream import Upstream
from tests.guards.conftest import Guarded
from tests.upstream.behaviour import Behaviour

EMAIL = "ada@example.com"


def guard(name: str, **where: Any) -> Guard:
    return Guard(name, "pii", ("before",), "block", "fail_closed", 1.0, where=Where(**where))


def model(name: str, **fields: Any) -> Model:
    return Model(name, (Deployment(name, "openai", "http://x/v1", "m"),), **fields)


def test_all_that_is_named_must_hold() -> None:
    catalog = compile_catalog([model("a", groups=("cheap",)), model("b"), model("gpt-x"), model("c", fallbacks=("b",))])
    guards = Guards(
        [
            guard("all", everywhere=True),
            guard("on_b", models=frozenset({"b"})),
            guard("cheap", models=frozenset({"group:cheap", "gpt-*"})),
            guard("team", teams=frozenset({"team_1"})),
            guard("both", teams=frozenset({"team_1"}), models=frozenset({"a"})),
            guard("key", keys=frozenset({"mine"})),
            guard("nowhere"),
        ],
        catalog,
        {"gpt-x": ("nowhere",)},
    )

    def names(key: Key, name: str) -> list[str]:
        chain = guards.of(key, catalog.models[name])
        return [] if chain is None else [one.name for one in chain.guards]

    plain, mate = Key("k1", "mine"), Key("k2", "other", team_id="team_1")
    assert names(plain, "a") == ["all", "cheap", "key"]
    assert names(mate, "a") == ["all", "cheap", "team", "both"]
    assert names(mate, "b") == ["all", "on_b", "team"]
    assert names(Key("k3", "x"), "gpt-x") == ["all", "cheap", "nowhere"]
    assert names(Key("k4", "x", metadata={"guards": ["nowhere"]}), "b") == ["all", "on_b", "nowhere"]
    assert names(Key("k3", "x"), "c") == ["all", "on_b"], "a fallback must not lead around a guard"
    named = guards.among(Key("k3", "x"), catalog.models["a"], ["b"])
    assert named is not None
    assert [one.name for one in named.guards] == ["all", "on_b", "cheap"]


def test_a_snapshot_without_a_guard_for_a_call_says_none() -> None:
    catalog = compile_catalog([model("a")])
    assert Guards([guard("x", models=frozenset({"z"}))], catalog, {}).of(Key("k", "k"), catalog.models["a"]) is None


def test_guards_are_managed_over_rest_and_audited(guarded: Guarded) -> None:
    admin = guarded.server.admin
    name = guarded.guard("pii", entities=["email"], models=["nothing"])
    assert admin.post("/guards", json={"name": name, "kind": "pii"}).status_code == 409
    assert admin.get(f"/guards/{name}").json()["entities"] == ["email"]
    assert any(one["name"] == name for one in admin.get("/guards").json()["data"])
    assert admin.patch(f"/guards/{name}", json={"action": "redact", "entities": None}).json()["action"] == "redact"
    assert admin.get(f"/guards/{name}").json()["entities"] is None
    audited = admin.get("/audit", params={"limit": 20}).json()["data"]
    assert {"guard.create", "guard.change"} <= {
        one["action"] for one in audited if one.get("target") == name or name in json.dumps(one)
    }
    assert admin.delete(f"/guards/{name}").json() == {"name": name, "deleted": True}
    assert admin.get(f"/guards/{name}").status_code == 404


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"kind": "pii", "entities": ["shoe_size"]}, "known here"),
        ({"kind": "patterns", "deny": ["(?=x)"]}, "RE2"),
        ({"kind": "patterns", "deny": ["x*"]}, "empty text"),
        ({"kind": "patterns"}, "deny, allow or words"),
        ({"kind": "pii", "url": "http://x/"}, "not for guards of the kind pii"),
        ({"kind": "http"}, "needs url"),
        ({"kind": "injection", "stage": "stream"}, "stages before, parallel"),
        ({"kind": "pii", "action": "mask_restore", "stage": "stream"}, "mask_restore"),
        ({"kind": "pii", "action": "redact", "stage": "parallel"}, "too late"),
        ({"kind": "injection", "action": "redact"}, "changes no text"),
        ({"kind": "pii", "colour": "red"}, "colour"),
    ],
)
def test_a_guard_that_cannot_work_is_refused(guarded: Guarded, fields: dict[str, Any], told: str) -> None:
    answer = guarded.server.admin.post("/guards", json={"name": "never", **fields})
    assert answer.status_code == 400, answer.text
    assert told in answer.text


def test_a_change_is_in_force_for_the_next_call(guarded: Guarded) -> None:
    name = guarded.guard("pii")
    route = guarded.model(guards=[name])
    assert guarded.routes.ask(route, text=EMAIL).status_code == 400
    assert guarded.server.admin.patch(f"/guards/{name}", json={"enabled": False}).status_code == 200
    assert guarded.routes.ask(route, text=EMAIL).status_code == 200
    guarded.server.admin.patch(f"/guards/{name}", json={"enabled": True, "action": "redact"})
    assert said(guarded.routes.ask(route, text=EMAIL)) == "ann|[EMAIL]"


def test_calls_during_a_change_are_guarded_by_one_or_the_other(guarded: Guarded) -> None:
    name = guarded.guard("pii", action="redact")
    route = guarded.model(guards=[name])
    over = threading.Event()
    answers: list[str] = []

    def ask() -> None:
        while not over.is_set():
            answer = guarded.routes.ask(route, text=EMAIL)
            answers.append(said(answer) if answer.status_code == 200 else answer.json()["error"]["code"])

    asking = threading.Thread(target=ask)
    asking.start()
    for action in ("block", "redact", "block", "redact"):
        assert guarded.server.admin.patch(f"/guards/{name}", json={"action": action}).status_code == 200
        count = len(answers)
        deadline = time.monotonic() + 20
        while len(answers) < count + 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    over.set()
    asking.join(20)
    assert set(answers) == {"ann|[EMAIL]", "content_policy_violation"}


def test_a_fallback_leads_around_no_guard(guarded: Guarded) -> None:
    behind = guarded.model(guards=[guarded.guard("pii")])
    first = guarded.routes(Behaviour(status=500), fallbacks=[behind.name])
    assert guarded.routes.ask(first, text="hello").status_code == 200
    assert guarded.routes.ask(first, text=EMAIL).status_code == 400
    plain = guarded.routes(Behaviour(status=500))
    answer = guarded.routes.ask(plain, text=EMAIL, headers={"x-penstock-fallbacks": behind.name})
    assert answer.status_code != 200
    assert len(behind.places[0].handle.entries()) == 1


def test_a_cached_answer_is_read_again_and_shared_with_nobody_else(guarded: Guarded) -> None:
    name = guarded.guard("pii", stage=["before", "stream"], action="redact")
    cache = {"exact": {"ttl_s": 600}}
    route = guarded.model(Behaviour(text="write to bob@example.org today"), guards=[name], cache=cache)

    def ask(**fields: Any) -> Any:
        return guarded.routes.ask(route, text="hello", **fields)

    first, second, streamed = ask(), ask(), ask(stream=True)
    assert [one.headers["x-penstock-cache"] for one in (first, second, streamed)] == ["miss", "hit", "hit"]
    assert {said(one) for one in (first, second, streamed)} == {"write to [EMAIL] today"}
    assert guarded.server.admin.patch(f"/guards/{name}", json={"action": "flag"}).status_code == 200
    third = ask()
    assert third.headers["x-penstock-cache"] == "miss"
    assert said(third) == "write to bob@example.org today"
    guarded.server.admin.patch(f"/guards/{name}", json={"action": "redact"})
    again = ask()
    assert again.headers["x-penstock-cache"] == "hit"
    assert said(again) == "write to [EMAIL] today"


def test_two_clients_with_the_same_masked_question_get_their_own_values_back(guarded: Guarded) -> None:
    name = guarded.guard("pii", action="mask_restore")
    route = guarded.model(guards=[name], cache={"exact": {"ttl_s": 600}})
    one, other = (
        guarded.routes.ask(route, text=f"who is {email}?") for email in ("ada@example.com", "bob@example.com")
    )
    assert (one.headers["x-penstock-cache"], other.headers["x-penstock-cache"]) == ("miss", "hit")
    assert (said(one), said(other)) == ("ann|who is ada@example.com?", "ann|who is bob@example.com?")


def test_a_shadow_sees_what_the_model_saw(guarded: Guarded) -> None:
    shadow = guarded.routes(Behaviour())
    route = guarded.model(guards=[guarded.guard("pii", action="redact")], shadow={"model": shadow.name, "share": 1.0})
    assert guarded.routes.ask(route, text=f"mail {EMAIL}").status_code == 200
    entry = shadow.places[0].handle.wait(bool)[0]
    assert EMAIL not in entry.body
    assert "[EMAIL]" in entry.body


def test_the_metrics_count_what_guards_did(guarded: Guarded) -> None:
    name = guarded.guard("pii")
    route = guarded.model(guards=[name])
    guarded.routes.ask(route, text=EMAIL)
    guarded.routes.ask(route, text="hello")
    told = guarded.server.http.get("/metrics").text
    for outcome in ("block", "pass"):
        assert f'penstock_guard_calls_total{{guard="{name}",outcome="{outcome}"}} 1.0' in told


def test_a_large_request_is_read_in_time(guarded: Guarded) -> None:
    route = guarded.model(guards=[guarded.guard("pii", action="redact", timeout_s=60)])
    text = "lorem ipsum dolor sit amet 12 34 a@ " * 30_000
    answer = guarded.routes.ask(route, text=f"{text} {EMAIL}")
    assert answer.status_code == 200, answer.text[:300]
    assert said(answer).endswith("[EMAIL]")


def test_guards_of_the_file_are_in_force_and_outlive_a_restart(upstream: Upstream, tmp_path: Path) -> None:
    deployment = {"id": "d", "base_url": upstream.script(Behaviour()).base_url, "model": "scripted", "api_key": "sk-up"}
    config = {
        "models": [{"name": "chat", "deployments": [deployment]}],
        "guards": [{"name": "pii", "kind": "pii", "stage": "before", "action": "mask_restore", "default": True}],
    }
    server = Server(config, tmp_path).start()
    try:
        answer = server.post("/v1/chat/completions", server.ask("chat", f"mail {EMAIL}"))
        assert answer.headers["x-penstock-guards"] == "pii=mask"
        shown = server.admin.get("/guards/pii").json()
        assert shown["origin"].startswith("file")
        assert not shown["edited"]
        assert server.admin.patch("/guards/pii", json={"action": "block"}).status_code == 200
        server.restart()
        assert server.post("/v1/chat/completions", server.ask("chat", EMAIL)).status_code == 400
    finally:
        server.stop()


def test_a_guard_that_is_not_there_lets_nothing_pass(guarded: Guarded) -> None:
    """Who names it counts on it."""
    route = guarded.model(guards=["nobody-made-this"])
    answer = guarded.routes.ask(route)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "guard_unavailable")
    assert guarded.server.admin.patch(f"/models/{route.name}", json={"guards": []}).status_code == 200
    assert guarded.routes.ask(route).status_code == 200


def test_a_mistake_in_the_file_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "penstock.yaml"
    file.write_text(
        "guards:\n  - name: pii\n    kind: pii\n    acton: redact\n  - {name: pii, kind: patterns, deny: ['(?=x)']}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load({"--config": str(file)}, {})
    told = str(caught.value)
    assert "penstock.yaml:4" in told
    assert 'did you mean "action"' in told
    assert "RE2" in told
    assert "already taken" in told
