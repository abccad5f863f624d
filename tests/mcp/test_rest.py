"""MCP servers and rights on the admin plane: sealed, audited, and in force at once; the file as the seed."""

import sqlite3
from contextlib import closing

import pytest

from tests.mcp.conftest import Gateway

URL = "http://127.0.0.1:1/mcp"


def test_a_server_is_made_shown_changed_and_deleted(gateway: Gateway) -> None:
    """With what it said kept, its secrets sealed and never shown, and every change in the audit."""
    admin = gateway.server.admin
    body = {"name": "crm", "url": URL, "headers": {"x-key": "very-secret-1"}, "price": {"per_call": 0.5}}
    made = admin.post("/mcp/servers", json=body)
    assert (made.status_code, made.json()["headers"], made.json()["origin"]) == (201, {"x-key": "set"}, "rest")
    assert admin.post("/mcp/servers", json=body).status_code == 409
    changed = admin.patch(
        "/mcp/servers/crm",
        json={"price": None, "timeout_s": 5, "oauth": {"client_id": "c", "client_secret": "very-secret-2"}},
    )
    assert (changed.json()["price"]["per_call"], changed.json()["timeout_s"]) == (0, 5)
    assert changed.json()["oauth"]["client_secret"] == "set"
    shown_back = admin.patch("/mcp/servers/crm", json={"headers": {"x-key": "set"}})
    assert (shown_back.status_code, shown_back.json()["error"]["param"]) == (400, "headers.x-key")
    assert [row["name"] for row in admin.get("/mcp/servers", params={"limit": 1}).json()["data"]] == ["crm"]
    assert admin.delete("/mcp/servers/crm").json() == {"name": "crm", "deleted": True}
    assert admin.get("/mcp/servers/crm").json()["error"]["code"] == "mcp_server_not_found"
    actions = [row["action"] for row in admin.get("/audit", params={"subject": "crm"}).json()["data"]]
    assert actions == ["mcp_server.delete", "mcp_server.change", "mcp_server.create"]
    with closing(sqlite3.connect(gateway.server.data / "penstock.db")) as database:
        everything = "\n".join(database.iterdump())
    assert "very-secret" not in everything + gateway.server.output


def test_servers_of_the_file_are_there_with_their_origin(gateway: Gateway) -> None:
    """As models are."""
    origin = gateway.server.admin.get("/mcp/servers/remote").json()["origin"]
    assert origin.startswith("file ")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": "a__b", "url": URL}, "name"),
        ({"name": "A", "url": URL}, "name"),
        ({"name": "x"}, None),
        ({"name": "x", "url": "ftp://x"}, "url"),
        ({"name": "x", "url": "http://u:p@x/mcp"}, None),
        ({"name": "x", "url": URL, "command": "/bin/sh"}, None),
        ({"name": "x", "kind": "stdio", "url": URL}, None),
        ({"name": "x", "kind": "openapi", "url": URL}, None),
        ({"name": "x", "url": URL, "api_key": "k", "oauth": {"client_id": "c", "client_secret": "s"}}, None),
        ({"name": "x", "url": URL, "oauth": {"client_id": "c"}}, "oauth"),
        ({"name": "x", "url": URL, "headers": {"a b": "c"}}, None),
        ({"name": "x", "url": URL, "headers": {"a": "b\r\nc: d"}}, "headers.a"),
        ({"name": "x", "url": URL, "price": {"per_call": -1}}, "price.per_call"),
        ({"name": "x", "url": URL, "nonsense": 1}, "nonsense"),
    ],
    ids=range(14),
)
def test_a_server_that_cannot_be_one_is_refused(gateway: Gateway, body: dict[str, object], param: str | None) -> None:
    """By the field, where it is one."""
    answer = gateway.server.admin.post("/mcp/servers", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"
    if param is not None:
        assert answer.json()["error"]["param"] == param


def test_rights_of_keys_and_teams_hold_at_once(gateway: Gateway) -> None:
    """A key's own list and its team's: both have to admit; what is taken away is gone within a moment."""
    admin = gateway.server.admin
    org = admin.post("/orgs", json={"name": "o"}).json()["id"]
    team = admin.post("/teams", json={"name": "t", "org_id": org, "mcp": {"servers": ["remote"]}}).json()
    assert team["mcp"] == {"servers": ["remote"], "tools": None}
    member = gateway.server.new_key(team_id=team["id"])
    narrow = gateway.server.new_key(team_id=team["id"], mcp={"tools": ["*__add", "local__*"]})
    assert "remote__who" in gateway.tools(member)
    assert gateway.tools(narrow) == ["remote__add"]
    assert gateway.call(narrow, "remote__who")["error"]["message"] == "Unknown tool: remote__who"
    assert admin.patch(f"/teams/{team['id']}", json={"mcp": {"servers": []}}).status_code == 200
    gateway.await_tools(narrow, lambda found: found == [])
    made = admin.post("/keys", json={"name": "k", "mcp": {"servers": ["remote"]}}).json()
    assert made["mcp"] == {"servers": ["remote"], "tools": None}
    assert admin.patch(f"/keys/{made['id']}", json={"mcp": None}).json()["mcp"] is None
    gateway.await_tools(made["key"], lambda found: found == [])
    for wrong in ({}, {"servers": ["a b"]}, {"tool": ["x"]}):
        assert admin.post("/keys", json={"name": "k", "mcp": wrong}).status_code == 400
