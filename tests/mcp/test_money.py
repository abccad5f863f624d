"""What calls of tools cost: held, settled, limited and shown as everything else is."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.mcp.conftest import Gateway


def test_a_budget_is_never_passed_by_calls_at_the_same_time(gateway: Gateway) -> None:
    """Ten calls at a cent each, and five cents: five are served, the others are told why, and spend is five cents."""
    secret = gateway.key("remote", name="five cents", budget={"limit_usd": 0.05, "period": "total"})

    def one(_: int) -> Any:
        return gateway.call(secret, "remote__who")

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(one, range(10)))
    errors = [answer["error"] for answer in answers if "error" in answer]
    assert len(errors) == 5
    assert {error["data"]["code"] for error in errors} == {"budget_exceeded"}
    rows = gateway.records("five cents", 10)
    assert sum(row["cost_usd"] or 0 for row in rows) == 0.05
    assert sorted({row["status"] for row in rows}) == [200, 429]
    budget = gateway.server.admin.get(f"/keys/{rows[0]['key_id']}").json()["budget"]
    shown = gateway.server.admin.get(f"/budgets/{budget['id']}").json()
    assert (shown["settled_usd"], shown["held_usd"], shown["remaining_usd"]) == (0.05, 0.0, 0.0)


def test_limits_of_requests_hold_for_tools(gateway: Gateway) -> None:
    """Two a minute are two a minute."""
    secret = gateway.key("remote", limits={"rpm": 2})
    answers = [gateway.call(secret, "remote__who") for _ in range(3)]
    assert [("error" in answer) for answer in answers] == [False, False, True]
    assert answers[2]["error"]["data"]["code"] == "rate_limit_exceeded"
    assert int(answers[2]["error"]["data"]["retry_after"]) >= 1


def test_spend_names_the_tool_and_its_server(gateway: Gateway) -> None:
    """A tool's own price before its server's; the tool as the model, the server as the provider; the answer says what it cost."""
    secret = gateway.key("remote", "local", name="shown")
    answer = gateway.post(
        secret, "tools/call", {"name": "remote__add", "arguments": {"a": 1, "b": 2}}, headers={"x-penstock-tags": "t1"}
    )
    assert answer.headers["x-penstock-cost-usd"] == "0.002000000"
    gateway.call(secret, "remote__who")
    gateway.call(secret, "local__who")
    rows = gateway.records("shown", 3)
    key_id = rows[0]["key_id"]
    assert answer.headers["x-request-id"] in {row["id"] for row in rows}

    def spend(by: str) -> dict[str, float]:
        found = gateway.server.admin.get("/spend", params={"group_by": by, "key_id": key_id}).json()["data"]
        return {row["group"]: row["cost_usd"] for row in found}

    assert spend("model") == {"mcp/remote/add": 0.002, "mcp/remote/who": 0.01, "mcp/local/who": 0}
    assert spend("provider") == {"mcp/remote": 0.012, "mcp/local": 0}
    assert spend("tag") == {"t1": 0.002}


def test_a_budget_can_stand_on_a_tool(gateway: Gateway) -> None:
    """By the names that spend shows."""
    made = gateway.server.admin.post(
        "/budgets", json={"scope": {"kind": "model", "id": "mcp/remote/counting"}, "limit_usd": 0.01, "period": "total"}
    )
    assert made.status_code == 201, made.text
    secret = gateway.key("remote")
    assert "result" in gateway.call(secret, "remote__counting", to=1)
    assert gateway.call(secret, "remote__counting", to=1)["error"]["data"]["code"] == "budget_exceeded"
    assert "result" in gateway.call(secret, "remote__add", a=1, b=1)
    gateway.server.admin.delete(f"/budgets/{made.json()['id']}")
