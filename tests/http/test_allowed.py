"""What a key may do is what its own lists and those above it admit, on the real process."""

from typing import Any

from tests.fixtures.server import Server

CHAT: dict[str, Any] = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}


def made(server: Server, noun: str, **body: object) -> dict[str, Any]:
    answer = server.admin.post(noun, json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def code(server: Server, key: str, path: str = "/v1/chat/completions") -> tuple[int, str | None]:
    answer = server.http.post(path, json=CHAT, headers={"authorization": f"Bearer {key}"})
    return answer.status_code, answer.json().get("error", {}).get("code")


def test_lists_of_a_team_and_routes_of_a_key_are_held(server: Server) -> None:
    """Also where the key itself has no list of models."""
    org = made(server, "/orgs", name="o")["id"]
    team = made(server, "/teams", name="t", org_id=org)["id"]
    key = made(server, "/keys", name="k", team_id=team)
    assert code(server, key["key"])[0] == 200
    server.admin.patch(f"/teams/{team}", json={"models": ["other"]})
    assert code(server, key["key"]) == (403, "model_access_denied")
    server.admin.patch(f"/teams/{team}", json={"models": ["ch*"]})
    assert code(server, key["key"])[0] == 200
    server.admin.patch(f"/keys/{key['id']}", json={"routes": ["/v1/embeddings"]})
    assert code(server, key["key"]) == (403, "route_access_denied")


def test_a_blocked_organisation_is_refused_until_it_is_not(server: Server) -> None:
    """At once, by name, and the key is as it was afterwards."""
    org = made(server, "/orgs", name="o")["id"]
    key = made(server, "/keys", name="k", org_id=org)["key"]
    server.admin.patch(f"/orgs/{org}", json={"blocked": True})
    assert code(server, key) == (403, "blocked")
    server.admin.patch(f"/orgs/{org}", json={"blocked": False})
    assert code(server, key)[0] == 200


def test_both_secrets_of_a_rotated_key_answer_during_its_grace(server: Server) -> None:
    """And without grace the old one is unknown at once."""
    first = made(server, "/keys", name="k")
    second = made(server, f"/keys/{first['id']}/rotate", grace_s=60)["key"]
    assert [code(server, key)[0] for key in (first["key"], second)] == [200, 200]
    third = made(server, f"/keys/{first['id']}/rotate", grace_s=0)["key"]
    assert [code(server, key)[0] for key in (first["key"], second, third)] == [401, 401, 200]
