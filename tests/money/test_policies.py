"""What happens around a budget on the real process: blocked, edited, exceeded."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fixtures.server import Server
from tests.fixtures.upstream import ScriptHandle, Upstream
from tests.upstream.behaviour import Behaviour

ONE = {"input": 1, "output": 1}  # USD per million tokens: a token costs 1000 nano-dollars
TOKEN_USD = 1e-6


class House:
    """A server with a dear and a cheap model behind one upstream."""

    def __init__(self, server: Server, script: ScriptHandle) -> None:
        self.server = server
        self.script = script
        self.before = 0  # answers of another status, in the last wait for one

    def key(self, **fields: object) -> tuple[str, str]:
        """Secret and id."""
        made = self.server.admin.post("/keys", json={"name": "k", **fields})
        assert made.status_code == 201, made.text
        self.server.await_key(made.json()["key"], known=True)
        shown: dict[str, str] = made.json()
        return shown["key"], shown["id"]

    def budget(self, key_id: str, limit_usd: float, **fields: object) -> str:
        scope = {"kind": "key", "id": key_id}
        made = self.server.admin.post(
            "/budgets", json={"scope": scope, "limit_usd": round(limit_usd, 9), "period": "total", **fields}
        )
        assert made.status_code == 201, made.text
        self.server.new_key()  # made after the budget, so the budget is in force where the key is known
        return str(made.json()["id"])

    def call(self, key: str, model: str = "dear", **fields: Any) -> httpx.Response:
        return self.server.post("/v1/chat/completions", self.server.ask(model, **fields), key=key)

    def becomes(self, key: str, status: int, **fields: Any) -> httpx.Response:
        """The answer, once it has this status; within a second of a change, on a quiet machine."""
        deadline, self.before = time.monotonic() + 10, 0
        while (answer := self.call(key, **fields)).status_code != status:
            assert time.monotonic() < deadline, answer.text
            self.before += 1
            time.sleep(0.05)
        return answer


@pytest.fixture(scope="module")
def house(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    script = upstream.script(Behaviour(prompt_tokens=100, completion_tokens=100))

    def model(name: str, **price: float) -> dict[str, Any]:
        where = {"id": name, "base_url": script.base_url, "model": f"{name}-up", "api_key": "sk-up"}
        return {"name": name, "deployments": [{**where, "price": {**ONE, **price}, "max_output_tokens": 100_000}]}

    config = {"models": [model("dear"), model("cheap", input=0.01, output=0.01)]}
    server = Server(config, tmp_path_factory.mktemp("policies")).start()
    yield House(server, script)
    server.stop()


def test_a_blocked_budget_stops_its_key_within_a_second_and_lets_it_go_on(house: House) -> None:
    """The message says that it is blocked, not that it is spent."""
    key, id_ = house.key()
    budget = house.budget(id_, 10)
    assert house.call(key, max_tokens=100).status_code == 200
    house.server.admin.patch(f"/budgets/{budget}", json={"blocked": True})
    denied = house.becomes(key, 429, max_tokens=100)
    assert denied.json()["error"]["code"] == "budget_exceeded"
    assert "is blocked" in denied.json()["error"]["message"]
    house.server.admin.patch(f"/budgets/{budget}", json={"blocked": False})
    house.becomes(key, 200, max_tokens=100)


def test_a_lowered_limit_is_in_force_within_a_second_and_a_raised_one_too(house: House) -> None:
    """Also for what this process had borrowed under the higher one."""
    key, id_ = house.key()
    budget = house.budget(id_, 1)
    for _ in range(5):
        assert house.call(key, max_tokens=1000).status_code == 200
    house.server.admin.patch(f"/budgets/{budget}", json={"limit_usd": 0.0012})  # 0.001 of it are spent
    house.becomes(key, 429, max_tokens=1000)
    left = "0" if house.before else "0.0002"  # calls that were quicker than the new limit spent the rest
    deadline = time.monotonic() + 20
    while f"(0.0012 USD in total) has {left} USD left" not in (said := house.call(key, max_tokens=1000).text):
        assert time.monotonic() < deadline, said  # what is left is known with the store's next answer
        time.sleep(0.1)
    house.server.admin.patch(f"/budgets/{budget}", json={"limit_usd": 1})
    house.becomes(key, 200, max_tokens=1000)


def test_a_raise_ends_by_itself_and_a_reset_begins_again(house: House) -> None:
    """The moment at which a raise ends is no change of any rule, and is kept all the same."""
    key, id_ = house.key()
    budget = house.budget(id_, 0.0001)
    assert house.call(key, max_tokens=1000).status_code == 429
    served = 0
    for lasts_s in (1.5, 6, 24):  # the first is enough, unless the machine has other things to do meanwhile
        until = time.time() + lasts_s
        raised = house.server.admin.post(f"/budgets/{budget}/raise", json={"amount_usd": 1, "until": until})
        assert raised.status_code == 200, raised.text
        while not served and time.time() < until:
            served += house.call(key, max_tokens=1000).status_code == 200
        time.sleep(max(0, until + 0.1 - time.time()))
        if served:
            break
    assert served == 1
    assert house.call(key, max_tokens=1000).status_code == 429
    house.server.admin.patch(f"/budgets/{budget}", json={"limit_usd": 0.0019})
    house.becomes(key, 200, max_tokens=1000)  # 0.0004 are spent now, and 0.0017 may be needed
    assert house.call(key, max_tokens=1000).status_code == 429
    assert house.server.admin.post(f"/budgets/{budget}/reset").status_code == 200
    house.becomes(key, 200, max_tokens=1000)


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens", None])
def test_a_call_is_cut_to_what_fits(house: House, field: str | None) -> None:
    """Under the name that the client used, and as long as the budget allows: what is held is what is left."""
    key, id_ = house.key()
    house.budget(id_, 2000 * TOKEN_USD, on_exceeded="cut")
    asked: dict[str, Any] = {} if field is None else {field: 50_000}
    answer = house.call(key, **asked)
    assert answer.status_code == 200, answer.text
    cut = int(answer.headers["x-penstock-max-tokens"])
    sent = json.loads(house.script.entries()[-1].body)
    assert sent[field or "max_tokens"] == cut
    prompt = len(json.dumps(house.server.ask("dear"))) + 512
    assert 2000 - prompt - 60 <= cut <= 2000 - prompt + 60
    assert "x-penstock-budget-remaining-usd" in answer.headers


def test_a_call_that_fits_is_not_cut(house: House) -> None:
    """Neither its body nor its headers."""
    key, id_ = house.key()
    house.budget(id_, 1, on_exceeded="cut")
    answer = house.call(key, max_tokens=50)
    assert answer.status_code == 200
    assert "x-penstock-max-tokens" not in answer.headers


def test_an_answer_below_sixteen_tokens_is_denied_instead_of_cut(house: House) -> None:
    """It is of no use to anybody."""
    key, id_ = house.key()
    house.budget(id_, 620 * TOKEN_USD, on_exceeded="cut")
    answer = house.call(key, max_tokens=500)
    assert answer.status_code == 429
    assert answer.json()["error"]["code"] == "budget_exceeded"


def test_a_call_falls_back_to_the_budgets_model(house: House) -> None:
    """Once it does not fit, and the headers tell who answered."""
    key, id_ = house.key()
    house.budget(id_, 800 * TOKEN_USD, on_exceeded="fallback", fallback_model="cheap")
    answer = house.call(key, max_tokens=5000)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-penstock-model"] == "cheap"
    assert answer.headers["x-penstock-fallback"] == "budget"
    assert answer.headers["x-penstock-attempts"] == "1"
    assert answer.headers["x-penstock-cost-usd"] == "0.000002000"


def test_a_stream_falls_back_as_well(house: House) -> None:
    """One path for both."""
    key, id_ = house.key()
    house.budget(id_, 800 * TOKEN_USD, on_exceeded="fallback", fallback_model="cheap")
    answer = house.call(key, max_tokens=5000, stream=True)
    assert answer.status_code == 200
    assert answer.headers["x-penstock-model"] == "cheap"
    assert answer.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("fields", "name", "max_tokens"),
    [({"models": ["dear"]}, "cheap", 5000), ({}, "nowhere", 5000), ({}, "cheap", 500_000), ({}, "dear", 5000)],
    ids=["not this key", "no such model", "does not fit either", "itself"],
)
def test_a_fallback_that_cannot_be_is_the_first_denial(
    house: House, fields: dict[str, object], name: str, max_tokens: int
) -> None:
    """One step, no loops, and the message is about the model that was asked for."""
    key, id_ = house.key(**fields)
    house.budget(id_, 800 * TOKEN_USD, on_exceeded="fallback", fallback_model=name)
    answer = house.call(key, max_tokens=max_tokens)
    assert answer.status_code == 429
    assert answer.json()["error"]["code"] == "budget_exceeded"
    assert answer.headers["x-penstock-model"] == "dear"
    assert "x-penstock-fallback" not in answer.headers


def test_limits_always_deny(house: House) -> None:
    """A budget that cuts does not soften a limit on tokens."""
    key, id_ = house.key()
    made = house.server.admin.post("/limits", json={"scope": {"kind": "key", "id": id_}, "rpm": 1})
    assert made.status_code == 201, made.text
    house.budget(id_, 2000 * TOKEN_USD, on_exceeded="cut")
    assert house.call(key, max_tokens=50_000).status_code == 200
    answer = house.call(key, max_tokens=100)
    assert answer.status_code == 429
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"


def test_metrics_tell_of_money(house: House) -> None:
    """Nothing is held between calls, the store answers, and what calls cost is counted by model."""
    key, id_ = house.key()
    house.budget(id_, 1)
    assert house.call(key, max_tokens=100).status_code == 200
    deadline = time.monotonic() + 20
    while True:
        lines = house.server.http.get("/metrics").text.splitlines()
        found = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        if (float(found["penstock_leases_healthy"]), float(found["penstock_open_holds"])) == (1, 0):
            break
        assert time.monotonic() < deadline, found  # a busy disk may have been late with an answer just before
        time.sleep(0.05)
    assert float(found['penstock_cost_usd_total{endpoint="chat",model="dear"}']) >= 0.0002
    assert {"penstock_ledger_lag_records", "penstock_ledger_lag_seconds"} <= set(found)
