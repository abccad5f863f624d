"""Organisations, teams, users and the keys below them: what they pass down, and what may not be deleted."""

import asyncio
import time

import httpx
import pytest
from sqlalchemy import Engine

from gateway import key_store, keys
from gateway.database import changing
from gateway.errors import NotFound
from gateway.key_store import NewKey
from gateway.keys import Key
from gateway.reach import Reach
from gateway.snapshot import EMPTY, Current
from gateway.snapshot_store import SnapshotStore

ORGS, TEAMS, USERS, KEYS = (f"/admin/v1/{noun}" for noun in ("orgs", "teams", "users", "keys"))


async def made(admin: httpx.AsyncClient, url: str, **body: object) -> dict[str, str]:
    answer = await admin.post(url, json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, str] = answer.json()
    return found


async def tenant(admin: httpx.AsyncClient) -> tuple[str, str, str, dict[str, str]]:
    """An organisation, a team and a user of it, and a key of all three."""
    org = (await made(admin, ORGS, name="o"))["id"]
    team = (await made(admin, TEAMS, name="t", org_id=org))["id"]
    user = (await made(admin, USERS, email="Ada@Example.com", org_id=org, team_id=team))["id"]
    return org, team, user, await made(admin, KEYS, name="k", team_id=team, user_id=user)


def known(current: Current, secret: str) -> Key | None:
    return current.snapshot.keys.get(keys.digest(secret.encode()))


async def test_a_key_belongs_to_the_organisation_of_its_team(admin: httpx.AsyncClient, current: Current) -> None:
    """Nobody has to name it, and the data plane knows the whole chain."""
    org, team, user, key = await tenant(admin)
    assert (key["org_id"], key["team_id"], key["user_id"]) == (org, team, user)
    found = known(current, key["key"])
    assert found is not None
    assert (found.org_id, found.team_id, found.user_id) == (org, team, user)
    for field, value in (("org_id", org), ("team_id", team), ("user_id", user)):
        listed = (await admin.get(KEYS, params={field: value})).json()["data"]
        assert [each["id"] for each in listed] == [key["id"]]
        assert (await admin.get(KEYS, params={field: "other"})).json()["data"] == []


async def test_what_a_key_refers_to_must_be_there_and_of_one_organisation(admin: httpx.AsyncClient) -> None:
    """A key of one tenant's team and another's user would be paid by nobody knows whom."""
    _, team, _, key = await tenant(admin)
    other = (await made(admin, ORGS, name="other"))["id"]
    stranger = (await made(admin, USERS, email="eve@example.com", org_id=other))["id"]
    for body, param in (
        ({"team_id": "team_0"}, "team_id"),
        ({"user_id": "user_0"}, "user_id"),
        ({"org_id": "org_0"}, "org_id"),
        ({"team_id": team, "user_id": stranger}, "user_id"),
        ({"team_id": team, "org_id": other}, "team_id"),
    ):
        answer = await admin.post(KEYS, json={"name": "k", **body})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    moved = await admin.patch(f"{KEYS}/{key['id']}", json={"user_id": stranger})
    assert (moved.status_code, moved.json()["error"]["param"]) == (400, "user_id")
    answer = await admin.post(USERS, json={"email": "b@example.com", "org_id": other, "team_id": team})
    assert answer.status_code == 400


async def test_allow_lists_above_a_key_bind_it_at_once(admin: httpx.AsyncClient, current: Current) -> None:
    """A key may use what every list admits: its own, its user's, its team's and its organisation's."""
    org, team, user, key = await tenant(admin)
    await admin.patch(f"{KEYS}/{key['id']}", json={"models": ["gpt-*", "chat"], "routes": ["/v1/chat/*"]})
    await admin.patch(f"{ORGS}/{org}", json={"models": ["*"]})
    await admin.patch(f"{TEAMS}/{team}", json={"models": ["gpt-a", "gpt-b", "other"]})
    await admin.patch(f"{USERS}/{user}", json={"models": ["gpt-a", "chat", "other"]})
    found = known(current, key["key"])
    assert found is not None
    assert [name for name in ("gpt-a", "gpt-b", "chat", "other") if found.may_use(name)] == ["gpt-a"]
    assert [found.may_call(path) for path in ("/v1/chat/completions", "/v1/embeddings")] == [True, False]


@pytest.mark.parametrize("level", ["orgs", "teams", "users", "keys"])
async def test_who_is_blocked_blocks_all_keys_below(admin: httpx.AsyncClient, current: Current, level: str) -> None:
    """And unblocking gives them back as they were."""
    org, team, user, key = await tenant(admin)
    id_ = {"orgs": org, "teams": team, "users": user, "keys": key["id"]}[level]
    before = known(current, key["key"])
    await admin.patch(f"/admin/v1/{level}/{id_}", json={"blocked": True})
    blocked = known(current, key["key"])
    assert blocked is not None
    assert blocked.blocked == f"{level.removesuffix('s')} {id_}"
    await admin.patch(f"/admin/v1/{level}/{id_}", json={"blocked": False})
    assert known(current, key["key"]) == before


async def test_what_has_something_below_it_is_not_deleted(admin: httpx.AsyncClient) -> None:
    """From the bottom up it goes: keys are revoked, users, teams and organisations deleted. Revoked keys stay readable."""
    org, team, user, key = await tenant(admin)
    for url in (f"{ORGS}/{org}", f"{TEAMS}/{team}", f"{USERS}/{user}"):
        refused = await admin.delete(url)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "not_empty")
    await admin.delete(f"{KEYS}/{key['id']}")
    for url, id_ in ((USERS, user), (TEAMS, team), (ORGS, org)):
        assert (await admin.delete(f"{url}/{id_}")).json() == {"id": id_, "deleted": True}
        assert (await admin.get(f"{url}/{id_}")).status_code == 404
    assert (await admin.get(f"{KEYS}/{key['id']}")).json()["team_id"] == team


async def test_deleting_a_team_takes_its_budgets_and_limits_along(admin: httpx.AsyncClient, current: Current) -> None:
    """Also those for each key within it; others stay."""
    org = (await made(admin, ORGS, name="o"))["id"]
    team = (await made(admin, TEAMS, name="t", org_id=org))["id"]
    await made(admin, "/admin/v1/budgets", scope={"kind": "team", "id": team}, limit_usd=1, period="day")
    await made(admin, "/admin/v1/budgets", scope={"kind": "key", "id": "*", "within": team}, limit_usd=1, period="day")
    await made(admin, "/admin/v1/limits", scope={"kind": "customer", "id": "*", "within": team}, rpm=5)
    kept = await made(admin, "/admin/v1/budgets", scope={"kind": "org", "id": org}, limit_usd=1, period="day")
    assert len(current.snapshot.rules.budgets) == 3
    await admin.delete(f"{TEAMS}/{team}")
    assert (set(current.snapshot.rules.budgets), dict(current.snapshot.rules.limits)) == ({kept["id"]}, {})


async def test_an_address_is_one_person(admin: httpx.AsyncClient) -> None:
    """Whatever the case, and in whichever organisation."""
    org, *_ = await tenant(admin)
    again = await admin.post(USERS, json={"email": "ADA@example.com", "org_id": org})
    assert (again.status_code, again.json()["error"]["param"]) == (409, "email")
    for email in ("no", "a b@c.de", "@", "a@b@c"):
        assert (await admin.post(USERS, json={"email": email, "org_id": org})).status_code == 400


async def test_a_rotated_key_works_by_both_secrets_until_the_grace_period_ends(
    admin: httpx.AsyncClient, current: Current
) -> None:
    """The old one as long as was said, the new one for good; a second rotation cuts the first one's grace."""
    first = await made(admin, KEYS, name="k")
    second = await made(admin, f"{KEYS}/{first['id']}/rotate", grace_s=100)
    assert second["id"] == first["id"]
    assert second["key"] != first["key"]
    assert second["hint"].endswith(second["key"][-4:])
    old, new = known(current, first["key"]), known(current, second["key"])
    assert old is not None
    assert old.expires_at == pytest.approx(time.time() + 100, abs=20)
    assert new is not None
    assert new.expires_at is None
    third = await made(admin, f"{KEYS}/{first['id']}/rotate", grace_s=0)
    assert [known(current, each["key"]) is None for each in (first, second, third)] == [True, True, False]


async def test_revoking_ends_every_secret_of_a_key(admin: httpx.AsyncClient, current: Current) -> None:
    """Also one that is in its grace period; and what is revoked cannot be rotated back to life."""
    first = await made(admin, KEYS, name="k")
    second = await made(admin, f"{KEYS}/{first['id']}/rotate")
    await admin.delete(f"{KEYS}/{first['id']}")
    assert [known(current, each["key"]) for each in (first, second)] == [None, None]
    refused = await admin.post(f"{KEYS}/{first['id']}/rotate", json={})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "key_revoked")


async def test_a_process_that_starts_later_knows_the_same_secrets(
    admin: httpx.AsyncClient, current: Current, snapshots: SnapshotStore
) -> None:
    """What followed every change and what is loaded at once are equal."""
    org, team, _, key = await tenant(admin)
    await made(admin, f"{KEYS}/{key['id']}/rotate", grace_s=1000)
    await admin.patch(f"{TEAMS}/{team}", json={"models": ["chat"]})
    await made(admin, "/admin/v1/budgets", scope={"kind": "org", "id": org}, limit_usd=1, period="day")
    fresh = await asyncio.to_thread(snapshots.load, EMPTY)
    assert fresh.snapshot.keys == current.snapshot.keys
    assert fresh.snapshot.rules == current.snapshot.rules


def test_stores_show_nothing_beyond_a_reach(engine: Engine) -> None:
    """Not there and not yours are the same answer."""
    with changing(engine) as tx:
        record, _ = key_store.create(tx, NewKey("bare"))
        assert key_store.get(tx, record.id) == record
        with pytest.raises(NotFound):
            key_store.get(tx, record.id, Reach("org_1"))
        assert key_store.listed(tx, 10, None, Reach("org_1")).data == ()
