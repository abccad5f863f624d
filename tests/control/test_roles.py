"""Who may do what: every route with every role, and nobody beyond their own organisation or team."""

import itertools
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import Engine

from admin.rbac import PERMISSIONS, Principal
from admin.roles import ROLES, Role
from gateway.errors import AccessDenied
from gateway.journal_records import Settled
from gateway.shipping import deliver
from tests.control.role_table import EVERYONE, EXPECTED, ORG, PLATFORM, TEAM, VIEWER, WATCHER
from tests.fixtures.control import ADMIN_KEY
from tests.fixtures.ledger import numbered

A = "/admin/v1"
MONEY: dict[str, Any] = {"limit_usd": 1, "period": "day"}


class Tenant:
    """An organisation with two teams, a user, a key, a budget, limits and tokens; made by the platform."""

    def __init__(self, client: httpx.AsyncClient, name: str) -> None:
        self._client = client
        self.name = name
        self.tokens: dict[str, str] = {}

    async def make(self) -> "Tenant":
        name = self.name
        self.org = (await self.post("orgs", name=name))["id"]
        self.team, self.sister = [
            (await self.post("teams", name=f"{name}-{number}", org_id=self.org))["id"] for number in range(2)
        ]
        self.user = (await self.post("users", email=f"{name}@example.com", org_id=self.org, team_id=self.team))["id"]
        self.key = (await self.post("keys", name=name, team_id=self.team))["id"]
        self.sister_key = (await self.post("keys", name=name, team_id=self.sister))["id"]
        for role, team in ((ORG, None), (TEAM, self.team), (VIEWER, None)):
            token = await self.post("tokens", name=role, role=role, org_id=self.org, team_id=team)
            self.tokens[role], self.token = token["key"], token["id"]
        return self

    async def post(self, noun: str, asker: str | None = None, /, **body: Any) -> dict[str, Any]:
        answer = await self.ask("POST", f"/{noun}", asker, body)
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def ask(self, method: str, path: str, role: str | None = None, body: object = None) -> httpx.Response:
        shown = ADMIN_KEY if role is None else self.tokens[role]
        return await self._client.request(method, f"{A}{path}", json=body, headers={"authorization": f"Bearer {shown}"})

    def paths(self) -> dict[str, str]:
        """One object of each noun."""
        return {"orgs": self.org, "teams": self.team, "users": self.user, "keys": self.key, "tokens": self.token}


@pytest.fixture
async def tenant(anonymous: httpx.AsyncClient) -> Tenant:
    return await Tenant(anonymous, "acme").make()


@pytest.fixture
async def other(anonymous: httpx.AsyncClient) -> Tenant:
    return await Tenant(anonymous, "other").make()


def routes(app: FastAPI) -> set[str]:
    found = set()
    for path, operations in app.openapi()["paths"].items():
        found |= {f"{method.upper()} {path.removeprefix(A)}" for method in operations}
    return found


async def test_every_route_with_every_role(tenant: Tenant, app: FastAPI) -> None:
    """What may, is not refused for its role; everything else is a 403, before the body is judged or anything looked for."""
    assert routes(app) == set(EXPECTED)
    for role in (PLATFORM, WATCHER):
        tenant.tokens[role] = (await tenant.post("tokens", name=role, role=role))["key"]
    for route, role in itertools.product(sorted(EXPECTED), ROLES):
        method, _, path = route.partition(" ")
        concrete = path.replace("{id}", "nothing_0").replace("{name}", "nothing_0")
        concrete = concrete.replace("{version}", "1").replace("{alias}", "nothing")
        answer = await tenant.ask(method, concrete, role, None if method == "GET" else {"unknown": 1})
        refused = answer.status_code == 403 and answer.json()["error"]["code"] == "permission_denied"
        assert refused == (role not in EXPECTED[route]), (route, role, answer.text)
        assert answer.status_code < 500


def test_the_table_has_no_line_for_a_route_that_is_not_there(app: FastAPI) -> None:
    """And every route that others than platform admins may use is in it."""
    assert {f"{method} {path}" for method, path in PERMISSIONS} <= routes(app)


@pytest.mark.parametrize("role", ROLES)
def test_a_route_that_nobody_thought_of_is_for_platform_admins_alone(role: Role) -> None:
    """Whoever adds a route and forgets the table has shut it, not opened it."""
    asker = Principal("token tok_1", role, "org_1", "team_1")
    for method, route in (("GET", "/forgotten"), ("PUT", "/keys/{id}"), ("GET", "")):
        if role == PLATFORM:
            asker.require(method, route)
        else:
            with pytest.raises(AccessDenied):
                asker.require(method, route)


@pytest.mark.parametrize("role", [ORG, TEAM, VIEWER])
async def test_nobody_sees_anything_of_another_organisation(tenant: Tenant, other: Tenant, role: str) -> None:
    """Lists leave it out, also when asked for it by filter; by id it is not there, whatever is to be done with it."""
    budget = (await other.post("budgets", scope={"kind": "key", "id": other.key}, **MONEY))["id"]
    limits = (await other.post("limits", scope={"kind": "team", "id": other.team}, rpm=1))["id"]
    foreign = {**other.paths(), "budgets": budget, "limits": limits}
    for noun, id_ in foreign.items():
        if role not in EXPECTED[f"GET /{noun}"]:
            continue
        for query in ("", f"?org_id={other.org}", f"?team_id={other.team}", f"?user_id={other.user}"):
            listed = (await tenant.ask("GET", f"/{noun}{query}", role)).json()["data"]
            assert id_ not in {each["id"] for each in listed}, (noun, query)
            assert all(each.get("org_id", tenant.org) == tenant.org for each in listed)
        assert (await tenant.ask("GET", f"/{noun}/{id_}", role)).status_code == 404
        for method, tail, body in (
            ("PATCH", "", {}),
            ("DELETE", "", None),
            ("POST", "/revoke", {}),
            ("POST", "/rotate", {}),
            ("POST", "/reset", {}),
            ("POST", "/raise", {"amount_usd": 1, "until": 4e9}),
        ):
            route = f"{method} /{noun}/{{id}}{tail}"
            if route in EXPECTED:
                answer = await tenant.ask(method, f"/{noun}/{id_}{tail}", role, body)
                assert answer.status_code == (404 if role in EXPECTED[route] else 403), route
        if role != ORG:
            continue
        still = await other.ask("GET", f"/{noun}/{id_}")
        assert still.status_code == 200
        assert not still.json().get("revoked_at")


@pytest.mark.parametrize("role", [TEAM, VIEWER])
async def test_a_team_sees_nothing_of_its_sister(tenant: Tenant, role: str) -> None:
    """A viewer of the organisation does, a team's admin does not."""
    listed = {each["id"] for each in (await tenant.ask("GET", "/keys", role)).json()["data"]}
    assert listed == ({tenant.key} if role == TEAM else {tenant.key, tenant.sister_key})
    shown = await tenant.ask("GET", f"/keys/{tenant.sister_key}", role)
    assert shown.status_code == (404 if role == TEAM else 200)


async def test_what_is_made_is_made_in_ones_own(tenant: Tenant, other: Tenant) -> None:
    """Without a word it is one's own; another's team, organisation or user is refused and nothing is made."""
    assert (await tenant.post("teams", ORG, name="x"))["org_id"] == tenant.org
    assert (await tenant.post("keys", ORG, name="x"))["org_id"] == tenant.org
    made = await tenant.post("keys", TEAM, name="x")
    assert (made["org_id"], made["team_id"]) == (tenant.org, tenant.team)
    count = len((await tenant.ask("GET", "/keys")).json()["data"])
    for role, noun, body in (
        (ORG, "teams", {"name": "x", "org_id": other.org}),
        (ORG, "users", {"email": "x@example.com", "org_id": other.org}),
        (ORG, "users", {"email": "x@example.com", "team_id": other.team}),
        (ORG, "keys", {"name": "x", "org_id": other.org}),
        (ORG, "keys", {"name": "x", "team_id": other.team}),
        (ORG, "keys", {"name": "x", "user_id": other.user}),
        (TEAM, "keys", {"name": "x", "team_id": tenant.sister}),
        (TEAM, "keys", {"name": "x", "org_id": other.org}),
        (ORG, "tokens", {"name": "x", "role": ORG, "org_id": other.org}),
    ):
        answer = await tenant.ask("POST", f"/{noun}", role, body)
        assert answer.status_code in {400, 403}, (role, noun, body)
    moved = await tenant.ask("PATCH", f"/keys/{tenant.key}", TEAM, {"team_id": tenant.sister})
    assert moved.status_code == 403
    assert len((await tenant.ask("GET", "/keys")).json()["data"]) == count


@pytest.mark.parametrize("noun", ["users", "tokens"])
async def test_nobody_gives_a_role_above_their_own(tenant: Tenant, noun: str) -> None:
    """Neither at once nor by a change later."""
    for role in (PLATFORM, WATCHER):
        body = {"name": "x", "role": role} | ({"email": "x@example.com"} if noun == "users" else {})
        assert (await tenant.ask("POST", f"/{noun}", ORG, body)).status_code == 403
    if noun == "users":
        for role in (PLATFORM, WATCHER):
            assert (await tenant.ask("PATCH", f"/users/{tenant.user}", ORG, {"role": role})).status_code == 403
        await tenant.ask("PATCH", f"/users/{tenant.user}", None, {"role": PLATFORM})
        for change in ({"role": "member"}, {"blocked": True}):
            assert (await tenant.ask("PATCH", f"/users/{tenant.user}", ORG, change)).status_code == 403
        assert (await tenant.ask("DELETE", f"/users/{tenant.user}", ORG)).status_code == 403


async def test_nobody_sets_budgets_on_what_they_administer(tenant: Tenant, other: Tenant) -> None:
    """Below it, yes; on it, beside it or for the whole platform, no."""
    allowed = [
        (ORG, {"kind": "team", "id": tenant.team}),
        (ORG, {"kind": "user", "id": tenant.user}),
        (ORG, {"kind": "key", "id": tenant.key}),
        (ORG, {"kind": "customer", "id": "*", "within": tenant.org}),
        (ORG, {"kind": "tag", "id": "a", "within": tenant.sister}),
        (TEAM, {"kind": "key", "id": tenant.key}),
        (TEAM, {"kind": "key", "id": "*", "within": tenant.team}),
        (TEAM, {"kind": "model", "id": "m", "within": tenant.team}),
    ]
    refused = [
        (ORG, {"kind": "org", "id": tenant.org}),
        (ORG, {"kind": "customer", "id": "alice"}),
        (ORG, {"kind": "model", "id": "m"}),
        (ORG, {"kind": "key", "id": "*"}),
        (ORG, {"kind": "org", "id": "*"}),
        (ORG, {"kind": "org", "id": "*", "within": tenant.org}),
        (ORG, {"kind": "key", "id": other.key}),
        (ORG, {"kind": "customer", "id": "alice", "within": other.org}),
        (TEAM, {"kind": "team", "id": tenant.team}),
        (TEAM, {"kind": "team", "id": "*", "within": tenant.team}),
        (TEAM, {"kind": "org", "id": tenant.org}),
        (TEAM, {"kind": "key", "id": tenant.sister_key}),
        (TEAM, {"kind": "key", "id": "*", "within": tenant.org}),
        (TEAM, {"kind": "tag", "id": "a", "within": tenant.sister}),
    ]
    for noun, numbers in (("budgets", MONEY), ("limits", {"rpm": 1})):
        for role, scope in allowed:
            answer = await tenant.ask("POST", f"/{noun}", role, {"scope": scope, **numbers})
            assert answer.status_code == 201, (role, scope, answer.text)
        for role, scope in refused:
            answer = await tenant.ask("POST", f"/{noun}", role, {"scope": scope, **numbers})
            assert answer.status_code == 403, (role, scope, answer.text)


async def test_what_was_set_above_is_not_loosened_below(tenant: Tenant) -> None:
    """Seen, but neither changed, raised, reset nor deleted; the same by way of the key."""
    budget = (await tenant.post("budgets", scope={"kind": "key", "id": tenant.key}, **MONEY))["id"]
    org_budget = (await tenant.post("budgets", ORG, scope={"kind": "key", "id": tenant.key}, **MONEY))["id"]
    for role, id_ in ((ORG, budget), (TEAM, budget), (TEAM, org_budget)):
        assert (await tenant.ask("GET", f"/budgets/{id_}", role)).status_code == 200
        for method, tail, body in (
            ("PATCH", "", {"limit_usd": 9}),
            ("DELETE", "", None),
            ("POST", "/reset", None),
            ("POST", "/raise", {"amount_usd": 1, "until": 4e9}),
        ):
            answer = await tenant.ask(method, f"/budgets/{id_}{tail}", role, body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "permission_denied")
        for budget_of_key in ({"limit_usd": 9, "period": "day"}, None):
            answer = await tenant.ask("PATCH", f"/keys/{tenant.key}", role, {"budget": budget_of_key})
            assert answer.status_code == 403
    assert (await tenant.ask("PATCH", f"/budgets/{org_budget}", ORG, {"limit_usd": 9})).status_code == 200


async def test_an_idempotency_key_is_each_callers_own(tenant: Tenant, other: Tenant) -> None:
    """Two tenants that count 1, 2, 3 never get each other's answers, which hold secrets."""
    answers = []
    for each in (tenant, other):
        headers = {"authorization": f"Bearer {each.tokens[ORG]}", "idempotency-key": "1"}
        answers.append(await each._client.post(f"{A}/keys", json={"name": "k"}, headers=headers))
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json()["key"] != answers[1].json()["key"]
    assert [answer.json()["org_id"] for answer in answers] == [tenant.org, other.org]


async def test_a_token_ends_when_it_is_revoked_or_expires(tenant: Tenant) -> None:
    """Its secret is kept as a hash alone and shown once."""
    made = await tenant.post("tokens", name="t", role=VIEWER, org_id=tenant.org)
    tenant.tokens["it"] = made["key"]
    assert (await tenant.ask("GET", "/me", "it")).json() == {
        "actor": f"token {made['id']}",
        "role": VIEWER,
        "org_id": tenant.org,
        "team_id": None,
    }
    assert made["key"] not in (await tenant.ask("GET", f"/tokens/{made['id']}")).text
    assert (await tenant.ask("DELETE", f"/tokens/{made['id']}")).json()["revoked_at"] is not None
    assert (await tenant.ask("GET", "/me", "it")).status_code == 401
    expired = await tenant.post("tokens", name="t", role=VIEWER, org_id=tenant.org, expires_at="2020-01-01T00:00:00Z")
    tenant.tokens["it"] = expired["key"]
    assert (await tenant.ask("GET", "/me", "it")).status_code == 401
    tenant.tokens["it"] = "sk-pa-made-up"
    assert (await tenant.ask("GET", "/me", "it")).status_code == 401


async def test_a_token_has_what_its_role_needs(tenant: Tenant) -> None:
    """A platform role keeps no organisation, a team's admin has a team and so its organisation."""
    for body in (
        {"role": ORG},
        {"role": TEAM, "org_id": tenant.org},
        {"role": VIEWER},
        {"role": "king"},
        {"role": "member"},
    ):
        assert (await tenant.ask("POST", "/tokens", None, {"name": "t", **body})).status_code == 400
    made = await tenant.post("tokens", name="t", role=TEAM, team_id=tenant.team)
    assert (made["org_id"], made["team_id"]) == (tenant.org, tenant.team)
    assert (await tenant.post("tokens", name="t", role=WATCHER, org_id=tenant.org))["org_id"] is None


async def test_the_audit_says_who_changed_what_from_what_to_what(tenant: Tenant, other: Tenant) -> None:
    """Newest first, in pages, by filter; an organisation's admin sees their own; no secret is in it."""
    made = await tenant.post("keys", TEAM, name="before", metadata={"x": 1})
    await tenant.ask("PATCH", f"/keys/{made['id']}", ORG, {"name": "after"})
    rotated = (await tenant.ask("POST", f"/keys/{made['id']}/rotate", ORG, {})).json()
    await tenant.ask("DELETE", f"/teams/{tenant.sister}", ORG)  # refused: nothing happened
    await tenant.ask("DELETE", f"/keys/{made['id']}", ORG)
    answer = await tenant.ask("GET", f"/audit?subject={made['id']}", ORG)
    entries = answer.json()["data"]
    assert [each["action"] for each in entries] == ["key.revoke", "key.rotate", "key.change", "key.create"]
    change = entries[2]
    assert (change["before"], change["after"]) == ({"name": "before"}, {"name": "after"})
    assert change["actor"].startswith("token tok_")
    assert (entries[3]["before"], entries[3]["after"]["name"]) == (None, "before")
    for secret in (made["key"], rotated["key"]):
        assert secret not in answer.text
    every = (await tenant.ask("GET", "/audit?limit=1000", ORG)).json()["data"]
    assert {each["org_id"] for each in every} == {tenant.org}
    whole = (await tenant.ask("GET", "/audit?limit=1000")).json()["data"]
    assert {each["org_id"] for each in whole} == {tenant.org, other.org}
    page = (await tenant.ask("GET", "/audit?limit=3")).json()
    following = (await tenant.ask("GET", f"/audit?limit=3&after={page['next']}")).json()
    assert [each["id"] for each in page["data"] + following["data"]] == [each["id"] for each in whole[:6]]
    deleted = (await tenant.ask("GET", "/audit?action=team.delete")).json()["data"]
    assert deleted == []


async def test_what_is_deleted_stays_in_the_audit(tenant: Tenant) -> None:
    """With all that it was."""
    team = await tenant.post("teams", name="short", org_id=tenant.org)
    await tenant.ask("DELETE", f"/teams/{team['id']}", ORG)
    entry = (await tenant.ask("GET", "/audit?action=team.delete", ORG)).json()["data"][0]
    assert (entry["before"]["name"], entry["after"], entry["subject"]) == ("short", None, team["id"])


def test_a_role_is_one_of_five() -> None:
    """The table above names them all."""
    roles: tuple[Role, ...] = ROLES
    assert set(roles) == EVERYONE


@pytest.mark.parametrize("role", [ORG, TEAM, VIEWER])
async def test_requests_and_spend_are_ones_own(tenant: Tenant, other: Tenant, engine: Engine, role: str) -> None:
    """An organisation's people see its calls and what they cost, a team's admin those of the team; whatever is asked for."""
    owners = [(tenant.org, tenant.team), (tenant.org, tenant.sister), (other.org, other.team), (None, None)]
    calls = [
        Settled(f"req_{n:032x}", 1_795_000_000.0, "chat", 200, "provider", 10**n, org_id=org, team_id=team)
        for n, (org, team) in enumerate(owners)
    ]
    deliver(engine, "ses_a", numbered(*calls))
    seen = calls[:1] if role == TEAM else calls[:2]
    found = (await tenant.ask("GET", "/requests", role)).json()["data"]
    assert {each["id"] for each in found} == {call.id for call in seen}
    for query in ("", "?group_by=team", "?group_by=org"):
        rows = (await tenant.ask("GET", f"/spend{query}", role)).json()["data"]
        assert sum(row["cost_nanousd"] for row in rows) == sum(call.cost_nanousd or 0 for call in seen)
    foreign = await tenant.ask("GET", f"/spend?org_id={other.org}", role)
    assert foreign.status_code == 403
