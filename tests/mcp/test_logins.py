"""OAuth towards a server, against a real little authorization server; and APIs that an OpenAPI document describes."""

import json
import time
from typing import Any

import pytest

from tests.mcp.conftest import Gateway, Oddity, official

CLIENT = {"grant": "client_credentials", "client_id": "me", "client_secret": "s3cret/+"}


def test_the_gateway_logs_in_by_what_the_server_says_of_itself(gateway: Gateway, oddity: Oddity) -> None:
    """From the challenge to the resource's metadata, to the authorization server's, to a token, which is used until it ends."""
    name = gateway.register(url=f"{oddity.strange.url}/guarded", oauth={**CLIENT, "scope": "tools"})
    key = gateway.key(name)
    for _ in range(3):
        assert gateway.call(key, f"{name}__echo")["result"]["content"][0]["text"] == "done"
    (login,) = _logins(oddity)
    assert login[1] == {
        "grant_type": "client_credentials",
        "resource": f"{oddity.strange.url}/guarded",
        "scope": "tools",
    }
    assert login[0]["authorization"] == "Basic bWU6czNjcmV0JTJGJTJC"  # RFC 6749 2.3.1: form-encoded, then base64
    oddity.strange.tokens.append("revoked-by-the-server")
    assert gateway.call(key, f"{name}__echo")["result"]["content"][0]["text"] == "done"
    assert len(_logins(oddity)) == 2
    shown = gateway.server.admin.get(f"/mcp/servers/{name}").text
    assert "s3cret" not in shown
    assert '"client_secret":"set"' in shown
    gateway.forget(name)


def test_a_token_that_ends_is_asked_for_before(gateway: Gateway, oddity: Oddity) -> None:
    """And a refresh token that was replaced survives a restart: the new one is kept, sealed."""
    oddity.strange.token_life_s = 1
    oauth = {
        "grant": "refresh_token",
        "client_id": "me",
        "refresh_token": "refresh-1",
        "token_url": f"{oddity.strange.url}/token",
    }
    name = gateway.register(url=f"{oddity.strange.url}/guarded", oauth=oauth)
    key = gateway.key(name)
    assert gateway.call(key, f"{name}__echo")["result"]["content"][0]["text"] == "done"
    time.sleep(1.2)
    assert gateway.call(key, f"{name}__echo")["result"]["content"][0]["text"] == "done"
    used = [form["refresh_token"] for _, form in _logins(oddity)]
    assert len(used) == len(set(used)) >= 2
    assert gateway.server.admin.patch(f"/mcp/servers/{name}", json={"timeout_s": 30}).status_code == 200
    assert gateway.call(key, f"{name}__echo")["result"]["content"][0]["text"] == "done"
    gateway.forget(name)


def test_a_login_that_fails_is_the_servers_trouble(gateway: Gateway, oddity: Oddity) -> None:
    """Said clearly, without a word of the secret."""
    oauth = {
        "grant": "refresh_token",
        "client_id": "me",
        "refresh_token": "wrong-0123",
        "token_url": f"{oddity.strange.url}/token",
    }
    name = gateway.register(url=f"{oddity.strange.url}/guarded", oauth=oauth)
    error = gateway.call(gateway.key(name), f"{name}__echo")["error"]
    assert "could not log in" in error["message"]
    assert "invalid_grant" in error["message"]
    assert "wrong-0123" not in gateway.server.output + json.dumps(error)
    gateway.forget(name)


def test_a_static_token_is_shown_to_an_official_server(gateway: Gateway) -> None:
    """With it the server answers; without it the gateway says whose credentials are refused."""
    with official("guarded", "--token", "t0ken-of-the-server") as url:
        name = gateway.register(url=url, api_key="t0ken-of-the-server")
        assert gateway.call(gateway.key(name), f"{name}__add", a=1, b=2)["result"]["content"][0]["text"] == "3"
        other = gateway.register(url=url, headers={"authorization": "Bearer wrong"})
        assert (
            "refuses the gateway's credentials (401)"
            in gateway.call(gateway.key(other), f"{other}__add")["error"]["message"]
        )
        gateway.forget(name)
        gateway.forget(other)


DOCUMENT: dict[str, Any] = {
    "openapi": "3.0.3",
    "info": {"title": "t", "version": "1"},
    "servers": [{"url": "http://169.254.169.254/"}],
    "paths": {
        "/pets/{id}": {
            "parameters": [{"$ref": "#/components/parameters/Id"}],
            "get": {
                "operationId": "getPet",
                "summary": "One pet",
                "parameters": [
                    {"name": "tag", "in": "query", "schema": {"type": "array", "items": {"type": "string"}}},
                    {"name": "X-Trace", "in": "header", "schema": {"type": "string"}},
                    {"name": "Authorization", "in": "header", "schema": {"type": "string"}},
                ],
            },
            "put": {
                "operationId": "put pet",
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Pet"}}},
                },
            },
        },
        "/gone": {"get": {"operationId": "gone"}},
        "/moved": {"get": {"operationId": "moved"}},
        "/upload": {
            "post": {"operationId": "upload", "requestBody": {"required": True, "content": {"multipart/form-data": {}}}}
        },
        "/far": {"get": {"operationId": "far", "parameters": [{"$ref": "https://evil.example/p.json"}]}},
    },
    "components": {
        "parameters": {"Id": {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}},
        "schemas": {
            "Pet": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string", "nullable": True},
                    "parent": {"$ref": "#/components/schemas/Pet"},
                },
            }
        },
    },
}


@pytest.fixture
def api(gateway: Gateway, oddity: Oddity) -> Any:
    name = gateway.register(
        kind="openapi",
        url=f"{oddity.strange.url}/api",
        document=DOCUMENT,
        headers={"x-key": "k3y"},
        query={"token": "t/1"},
        price={"per_call": 0.1, "tools": {"getPet": 0.3}},
    )
    yield name, gateway.key(name, name=f"api {name}"), oddity.strange
    gateway.forget(name)


def test_operations_of_a_document_are_tools(gateway: Gateway, api: Any) -> None:
    """Those that speak JSON, with references followed; what contains itself keeps a reference of its own."""
    name, key, _ = api
    tools = {tool["name"]: tool for tool in gateway.post(key, "tools/list").json()["result"]["tools"]}
    assert set(tools) == {f"{name}__getPet", f"{name}__put_pet", f"{name}__gone", f"{name}__moved"}
    got = tools[f"{name}__getPet"]["inputSchema"]
    assert set(got["properties"]) == {"id", "tag", "X-Trace"}
    assert got["required"] == ["id"]
    put = tools[f"{name}__put_pet"]["inputSchema"]
    assert put["properties"]["body"]["properties"]["name"] == {"type": ["string", "null"]}
    assert put["properties"]["body"]["properties"]["parent"] == {"$ref": "#/$defs/Pet"}
    assert put["$defs"]["Pet"]["properties"]["parent"] == {"$ref": "#/$defs/Pet"}
    assert tools[f"{name}__getPet"]["annotations"]["readOnlyHint"] is True


def test_a_call_goes_below_the_declared_address_and_nowhere_else(gateway: Gateway, api: Any) -> None:
    """Whatever an argument says; with the declared credentials, which no argument replaces; and its price is its own."""
    name, key, strange = api
    asked: dict[str, Any] = {"id": "../../admin?x=1#y", "tag": ["a b", "c"], "X-Trace": "t"}
    done = gateway.call(key, f"{name}__getPet", **asked)
    assert done["result"]["structuredContent"]["path"] == "/api/pets/..%2F..%2Fadmin%3Fx%3D1%23y"
    assert done["result"]["structuredContent"]["query"] == "tag=a+b&tag=c&token=t%2F1"
    _, _, headers, _ = strange.asked[-1]
    assert (headers["x-key"], headers["x-trace"], headers["host"]) == ("k3y", "t", f"127.0.0.1:{strange.port}")
    put = gateway.call(key, f"{name}__put_pet", id="7", body={"name": "x"})
    assert json.loads(put["result"]["structuredContent"]["body"]) == {"name": "x"}
    before = len(strange.asked)
    wrong: list[dict[str, Any]] = [{"id": ".."}, {}, {"id": "1", "Authorization": "Bearer mine"}]
    for bad in (*wrong, {"id": "1", "X-Trace": "a\r\nhost: evil"}):
        assert gateway.call(key, f"{name}__getPet", **bad)["error"]["code"] == -32602
    assert len(strange.asked) == before
    gone = gateway.call(key, f"{name}__gone")["result"]
    assert (gone["isError"], gone["content"][0]["text"].startswith("HTTP 410: ")) == (True, True)
    assert "redirects" in gateway.call(key, f"{name}__moved")["error"]["message"]
    costs = [row["cost_usd"] or 0.0 for row in gateway.records(f"api {name}", 8)]
    assert sorted(costs) == [0.0, 0.0, 0.0, 0.0, 0.1, 0.1, 0.1, 0.3]


def test_a_document_is_fetched_from_where_it_is_declared(gateway: Gateway, oddity: Oddity) -> None:
    """One that is no document is said to be none."""
    name = gateway.register(
        kind="openapi", url=f"{oddity.strange.url}/api", document_url=f"{oddity.strange.url}/api/doc"
    )
    assert "no OpenAPI 3 document" in gateway.call(gateway.key(name), f"{name}__x")["error"]["message"]
    gateway.forget(name)


def _logins(oddity: Oddity) -> list[tuple[dict[str, str], dict[str, Any]]]:
    return [(headers, form) for _, path, headers, form in oddity.strange.asked if path == "/token"]
