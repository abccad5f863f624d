"""The admin plane over HTTP: contracts of DESIGN section 5, on SQLite and PostgreSQL."""

import asyncio
import json

import httpx
import pytest
from fastapi import FastAPI
from msgspec import msgpack
from sqlalchemy import Engine, func, select, update

from admin.tables import audit, idempotency
from gateway import keys, request_store
from gateway.database import appending, changing, reading, record_revision
from gateway.ids import new_id
from gateway.journal_records import Settled
from gateway.ledger_blocks import Part
from gateway.snapshot import Current
from gateway.tables import deployments as deployment_table
from gateway.tables import keys as key_table

KEYS, MODELS, DEPLOYMENTS = "/admin/v1/keys", "/admin/v1/models", "/admin/v1/deployments"
CHAT = {"name": "chat", "deployments": [{"id": "chat-a", "base_url": "http://127.0.0.1:8000/v1", "model": "llama"}]}


def error(answer: httpx.Response) -> tuple[int, str, str | None, str | None]:
    """Status, type, code and param, after a check that the shape is exactly OpenAI's."""
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"]
    return answer.status_code, body["error"]["type"], body["error"]["code"], body["error"]["param"]


async def make_team(admin: httpx.AsyncClient) -> str:
    org = (await admin.post("/admin/v1/orgs", json={"name": "o"})).json()["id"]
    return str((await admin.post("/admin/v1/teams", json={"name": "t", "org_id": org})).json()["id"])


async def test_a_new_key_is_shown_once_and_known_to_the_data_plane_at_once(
    admin: httpx.AsyncClient, current: Current
) -> None:
    """The answer to POST is the only place that ever has the secret; the writer's process knows the key right away."""
    team = await make_team(admin)
    made = await admin.post(
        KEYS,
        json={
            "name": "ci",
            "team_id": team,
            "models": ["chat", "gpt-*"],
            "expires_at": "2031-01-01T00:00:00Z",
            "metadata": {"purpose": ["tests", 1, None]},
        },
    )
    assert made.status_code == 201
    body = made.json()
    assert body["key"].startswith("sk-ps-")
    assert body["expires_at"] == "2031-01-01T00:00:00Z"
    known = current.snapshot.keys[keys.digest(body["key"].encode())]
    assert (known.id, known.team_id, known.metadata) == (body["id"], team, {"purpose": ["tests", 1, None]})
    assert known.may_use("gpt-5")
    assert not known.may_use("claude")
    shown = (await admin.get(f"{KEYS}/{body['id']}")).json()
    assert shown == {name: value for name, value in body.items() if name != "key"}
    assert body["key"] not in (await admin.get(KEYS)).text


async def test_what_is_shown_is_in_force_whoever_changed_it(
    admin: httpx.AsyncClient, engine: Engine, current: Current
) -> None:
    """Another process has changed something, and this one has not looked since."""
    (await admin.post(MODELS, json=CHAT)).raise_for_status()
    with changing(engine) as tx:
        tx.execute(update(deployment_table).values(deleted_at=1.0))
        newest = record_revision(tx, "another process")
    assert current.snapshot.revision < newest
    assert (await admin.get(f"{DEPLOYMENTS}/chat-a")).status_code == 404
    assert current.snapshot.revision == newest


async def test_the_secret_is_nowhere_in_the_database(admin: httpx.AsyncClient, engine: Engine) -> None:
    """Neither in the key's row nor in the answer kept for an Idempotency-Key."""
    secret = (await admin.post(KEYS, json={"name": "a"}, headers={"idempotency-key": "one"})).json()["key"]
    with reading(engine) as tx:
        for table in (key_table, idempotency):
            for row in tx.execute(select(table)):
                assert secret not in str(tuple(row))


@pytest.mark.parametrize("way", ["delete", "post"])
async def test_a_revoked_key_is_gone_from_the_data_plane_and_stays_listed(
    admin: httpx.AsyncClient, current: Current, way: str
) -> None:
    """Revoking is for good, may be repeated, and leaves the row for the records that name it."""
    made = (await admin.post(KEYS, json={"name": "a"})).json()
    url = f"{KEYS}/{made['id']}"
    for _ in range(2):
        revoked = await (admin.delete(url) if way == "delete" else admin.post(f"{url}/revoke"))
        assert revoked.status_code == 200
        assert revoked.json()["revoked_at"] is not None
    assert current.snapshot.keys == {}
    assert [key["id"] for key in (await admin.get(KEYS)).json()["data"]] == [made["id"]]


async def test_patch_changes_what_is_given_and_null_takes_it_away(admin: httpx.AsyncClient, current: Current) -> None:
    """What a PATCH leaves out stays as it is."""
    team = await make_team(admin)
    made = (await admin.post(KEYS, json={"name": "a", "models": ["chat"], "team_id": team})).json()
    changed = await admin.patch(f"{KEYS}/{made['id']}", json={"models": None, "name": "b"})
    assert changed.status_code == 200
    assert (changed.json()["name"], changed.json()["models"], changed.json()["team_id"]) == ("b", None, team)
    assert current.snapshot.keys[keys.digest(made["key"].encode())].models is None
    assert error(await admin.patch(f"{KEYS}/{made['id']}", json={"name": None}))[3] == "name"


async def test_lists_come_in_pages_that_neither_repeat_nor_lose_an_object(admin: httpx.AsyncClient) -> None:
    """`next` of one page is `after` of the following."""
    made = [(await admin.post(KEYS, json={"name": str(number)})).json()["id"] for number in range(5)]
    seen: list[str] = []
    params: dict[str, str | int] = {"limit": 2}
    while True:
        page = (await admin.get(KEYS, params=params)).json()
        seen += [key["id"] for key in page["data"]]
        assert page["has_more"] == (page["next"] is not None)
        if not page["has_more"]:
            break
        params["after"] = page["next"]
    assert sorted(made) == seen
    for limit in ("0", "1001", "x", "-1", "9" * 5000):
        assert error(await admin.get(KEYS, params={"limit": limit}))[0::3] == (400, "limit")


async def test_an_idempotency_key_makes_one_object_and_repeats_its_answer(admin: httpx.AsyncClient) -> None:
    """Also when the duplicates arrive together; the secret is in every answer, for the client that lost the first."""
    headers = {"idempotency-key": "once"}
    answers = await asyncio.gather(*(admin.post(KEYS, json={"name": "a"}, headers=headers) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 7
    assert len((await admin.get(KEYS)).json()["data"]) == 1


async def test_an_idempotency_key_is_for_one_request_only(admin: httpx.AsyncClient) -> None:
    """Another body, or the same body elsewhere, is another request; spacing and order are not."""
    headers = {"idempotency-key": "once", "content-type": "application/json"}
    first = await admin.post(KEYS, content='{"name": "a", "expires_at": null}', headers=headers)
    again = await admin.post(KEYS, content='{"expires_at":null,"name":"a"}', headers=headers)
    assert first.text == again.text
    other = await admin.post(KEYS, json={"name": "b"}, headers=headers)
    assert error(other) == (409, "invalid_request_error", "idempotency_key_reused", "Idempotency-Key")
    assert error(await admin.post(KEYS, json={"name": "c"}, headers={"idempotency-key": "a b"}))[0] == 400


async def test_a_refused_request_does_not_use_up_its_idempotency_key(admin: httpx.AsyncClient) -> None:
    """The client may correct what was wrong and try again."""
    headers = {"idempotency-key": "retry"}
    body = {"id": "d", "model_name": "chat", "base_url": "http://127.0.0.1:1/v1"}
    assert (await admin.post(DEPLOYMENTS, json=body, headers=headers)).status_code == 404
    await admin.post(MODELS, json={"name": "chat"})
    assert (await admin.post(DEPLOYMENTS, json=body, headers=headers)).status_code == 201


async def test_models_and_deployments_are_made_changed_and_deleted(admin: httpx.AsyncClient, current: Current) -> None:
    """Each step is in the snapshot when its answer arrives."""
    made = await admin.post(MODELS, json=CHAT)
    assert made.status_code == 201
    assert made.json()["origin"] == "rest"
    assert [below["id"] for below in made.json()["deployments"]] == ["chat-a"]
    extra = {"id": "org/chat-b", "model_name": "chat", "provider": "openai", "api_key": "${UPSTREAM_KEY}", "weight": 2}
    added = await admin.post(DEPLOYMENTS, json=extra)
    assert added.status_code == 201
    assert added.json()["api_key"] == "${UPSTREAM_KEY}"
    found = current.snapshot.catalog.find("chat")
    assert found is not None
    assert [(d.id, d.base_url, d.api_key, d.weight) for d in found[0].deployments] == [
        ("chat-a", "http://127.0.0.1:8000/v1", None, 1.0),
        ("org/chat-b", "https://api.openai.com/v1", "sk-from-the-environment", 2.0),
    ]
    changed = await admin.patch(f"{DEPLOYMENTS}/org/chat-b", json={"weight": 5, "order": 2})
    assert (changed.json()["weight"], changed.json()["order"], changed.json()["model"]) == (5, 2, "*")
    timeouts = {"connect_s": 1, "first_token_s": 2, "stall_s": 3, "total_s": 4}
    await admin.patch(f"{MODELS}/chat", json={"strategy": "order", "timeouts": timeouts, "fallbacks": ["other"]})
    found = current.snapshot.catalog.find("chat")
    assert found is not None
    assert (found[0].strategy, found[0].timeouts.total_s, found[0].fallbacks) == ("order", 4, ("other",))
    assert (await admin.patch(f"{MODELS}/chat", json={"timeouts": None})).json()["timeouts"]["total_s"] == 600
    assert (await admin.delete(f"{DEPLOYMENTS}/org/chat-b")).json() == {"id": "org/chat-b", "deleted": True}
    assert (await admin.delete(f"{MODELS}/chat")).json() == {"name": "chat", "deleted": True}
    assert current.snapshot.catalog.find("chat") is None
    assert (await admin.get(f"{DEPLOYMENTS}/chat-a")).status_code == 404


async def test_names_that_are_taken_or_unknown_are_told_apart(admin: httpx.AsyncClient) -> None:
    """409 for a second object of a name, 404 for one that is not there; nothing is half made."""
    await admin.post(MODELS, json=CHAT)
    assert error(await admin.post(MODELS, json=CHAT)) == (409, "invalid_request_error", "conflict", "name")
    second = {"name": "second", "deployments": CHAT["deployments"]}
    assert error(await admin.post(MODELS, json=second))[0::3] == (409, "id")
    assert error(await admin.get(f"{MODELS}/second"))[:3] == (404, "invalid_request_error", "model_not_found")
    assert error(await admin.get(f"{KEYS}/key_0"))[2] == "key_not_found"
    for method, url in (("GET", f"{DEPLOYMENTS}/x"), ("PATCH", f"{MODELS}/x"), ("DELETE", f"{KEYS}/x")):
        assert error(await admin.request(method, url, json={} if method == "PATCH" else None))[0] == 404


async def test_a_provider_key_is_sealed_and_never_shown(
    admin: httpx.AsyncClient, current: Current, engine: Engine
) -> None:
    """Raw keys and header values are readable neither over REST nor in the database, yet they reach the upstream."""
    deployment = {
        "id": "a",
        "model_name": "chat",
        "base_url": "http://127.0.0.1:1/v1",
        "api_key": "sk-very-secret",
        "headers": {"x-extra": "also-very-secret"},
    }
    await admin.post(MODELS, json={"name": "chat"})
    answers = [await admin.post(DEPLOYMENTS, json=deployment, headers={"idempotency-key": "i"})]
    answers += [await admin.get(url) for url in (f"{DEPLOYMENTS}/a", DEPLOYMENTS, MODELS, "/admin/v1/config")]
    answers += [await admin.patch(f"{DEPLOYMENTS}/a", json={"weight": 2})]
    for answer in answers:
        assert answer.status_code < 300
        assert "very-secret" not in answer.text
    assert answers[0].json()["api_key"] == "set"
    assert answers[0].json()["headers"] == {"x-extra": "set"}
    with reading(engine) as tx:
        assert "very-secret" not in str(tx.execute(select(deployment_table.c.spec)).all())
    found = current.snapshot.catalog.find("chat")
    assert found is not None
    ready = found[0].deployments[0]
    assert (ready.api_key, ready.headers) == ("sk-very-secret", (("x-extra", "also-very-secret"),))
    assert error(await admin.patch(f"{DEPLOYMENTS}/a", json={"api_key": "set"}))[3] == "api_key"
    assert (await admin.patch(f"{DEPLOYMENTS}/a", json={"api_key": None})).json()["api_key"] is None


async def test_a_deployment_without_an_address_is_refused(admin: httpx.AsyncClient) -> None:
    """Only known providers have an address of their own, and no address takes a password, as it is shown."""
    model = {"name": "m", "deployments": [{"id": "m-a", "provider": "made-up"}]}
    assert error(await admin.post(MODELS, json=model))[0::3] == (400, "deployments.0.base_url")
    await admin.post(MODELS, json=CHAT)
    body = {"id": "x", "model_name": "chat", "base_url": "http://user:secret@127.0.0.1/v1"}
    assert error(await admin.post(DEPLOYMENTS, json=body))[0::3] == (400, "base_url")
    await admin.patch(f"{DEPLOYMENTS}/chat-a", json={"provider": "made-up"})
    assert error(await admin.patch(f"{DEPLOYMENTS}/chat-a", json={"base_url": None}))[0::3] == (400, "base_url")


async def test_config_shows_what_is_in_force_and_what_had_to_be_left_out(admin: httpx.AsyncClient) -> None:
    """An object that cannot be used does not take the others down, and says why."""
    await admin.post(MODELS, json=CHAT)
    await admin.post(
        DEPLOYMENTS,
        json={"id": "b", "model_name": "chat", "base_url": "http://127.0.0.1:1/v1", "api_key": "${NOT_SET}"},
    )
    shown = (await admin.get("/admin/v1/config")).json()
    assert [(model["name"], model["origin"]) for model in shown["models"]] == [("chat", "rest")]
    assert [(each["kind"], each["id"]) for each in shown["skipped"]] == [("deployment", "b")]
    assert "NOT_SET" in shown["skipped"][0]["reason"]


async def test_requests_are_listed_newest_first_and_filtered(admin: httpx.AsyncClient, engine: Engine) -> None:
    """By key, model, status and time, in pages."""
    ids = [new_id("req") for _ in range(6)]
    records = [
        Settled(
            id=id_,
            at=1000.0 + number,
            endpoint="chat",
            status=200 if number < 5 else 502,
            source="provider",
            cost_nanousd=2_000_000_000 if number == 0 else None,
            key_id=f"key_{number % 2}",
            model="chat",
            tags=("a", "b"),
            latency_ms=1.5,
        )
        for number, id_ in enumerate(sorted(ids))
    ]
    with appending(engine) as tx:  # the blocks of two sessions overlap
        for session, some in (("ses_a", records[0:4:3]), ("ses_b", records[1:3]), *(2 * [("ses_a", records[4:])])):
            part = Part()
            part.take(some, [msgpack.encode(one) for one in some])
            part.keys.update([one.key_id for one in some])
            request_store.add(tx, session, part)

    async def found(**params: str) -> list[str]:
        return [each["id"] for each in (await admin.get("/admin/v1/requests", params=params)).json()["data"]]

    newest_first = sorted(ids, reverse=True)
    assert await found() == newest_first
    assert await found(limit="2", after=newest_first[1]) == newest_first[2:4]
    assert await found(key_id="key_1") == newest_first[0::2]
    assert await found(status="502") == newest_first[:1]
    assert await found(model="other") == []
    assert await found(since="1970-01-01T00:16:44Z") == newest_first[:2]
    first = (await admin.get("/admin/v1/requests", params={"after": newest_first[4]})).json()["data"][0]
    assert (first["cost_usd"], first["tags"], first["at"]) == (2.0, ["a", "b"], "1970-01-01T00:16:40Z")


async def test_every_admin_route_asks_for_the_admin_key(anonymous: httpx.AsyncClient, app: FastAPI) -> None:
    """Missing, wrong, or a body that is not even read: 401, and unknown routes do not tell themselves apart."""
    paths = list(app.openapi()["paths"])
    assert len(paths) > 8
    for path in [*paths, "/admin/v1", "/admin/v1/nothing"]:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"x-api-key": "wrong"}, {"api-key": ""}):
            answer = await anonymous.post(path, content=b"not json", headers=headers)
            assert error(answer)[:3] == (401, "authentication_error", "invalid_api_key"), path


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "api-key"])
async def test_the_admin_key_is_taken_from_three_headers(anonymous: httpx.AsyncClient, header: str) -> None:
    """The same three as on the data plane."""
    value = "Bearer sk-admin-for-tests" if header == "authorization" else "sk-admin-for-tests"
    assert (await anonymous.get(KEYS, headers={header: value})).status_code == 200


BAD_BODIES = [
    (b"", None),
    (b"{", None),
    (b"[]", None),
    (b"null", None),
    (b'"text"', None),
    (b"\xff\xfe", None),
    (b'{"name": NaN}', None),
    (b'{"name": "\\u0000"}', None),
    (b'{"name": "\\ud800"}', None),
    (b'{"name": "a", "metadata": {"\\u0000": 1}}', None),
    (b'{"name": "a", "metadata": {"x": 1e999}}', None),
    (b'{"name": "a", "metadata": {"x": ' + b"9" * 6000 + b"}}", None),
    (b'{"name": "a", "metadata": {"x": ' + b"[" * 5000 + b"]" * 5000 + b"}}", None),
    (b'{"name": 1}', "name"),
    (b'{"name": ""}', "name"),
    (b'{"name": null}', "name"),
    (b'{"name": "a", "nmae": 1}', "nmae"),
    (b'{"name": "a", "models": "chat"}', "models"),
    (b'{"name": "a", "models": [1]}', "models.0"),
    (b'{"name": "a", "expires_at": "soon"}', "expires_at"),
    (b'{"name": "a", "expires_at": "0001-01-01T00:00:00+14:00"}', "expires_at"),
    (b'{"name": "a", "expires_at": 1e300}', "expires_at"),
    (b'{"name": "a", "expires_at": "2030-01-01T00:00:00"}', "expires_at"),
    (b'{"name": "a", "metadata": {"x": "' + b"x" * 20_000 + b'"}}', "metadata"),
]


async def test_a_bad_body_is_refused_and_the_field_named(admin: httpx.AsyncClient) -> None:
    """Never a 500, always 400 in the error shape."""
    for body, param in BAD_BODIES:
        answer = await admin.post(KEYS, content=body, headers={"content-type": "application/json"})
        assert error(answer)[0::3] == (400, param), body[:80]


async def test_big_whole_numbers_and_any_text_survive_the_database(admin: httpx.AsyncClient) -> None:
    """What JSON allows in metadata comes back as it was sent."""
    metadata = {"big": 10**40, "text": "日本 \U0001f600 \x7f", "": [True, None, 0.1]}
    made = (await admin.post(KEYS, content=json.dumps({"name": "a", "metadata": metadata}))).json()
    assert (await admin.get(f"{KEYS}/{made['id']}")).json()["metadata"] == metadata


async def test_unknown_routes_methods_and_identifiers_have_the_error_shape(admin: httpx.AsyncClient) -> None:
    """Also outside of the admin plane, where what nobody else serves ends up."""
    assert error(await admin.get("/admin/v1/nothing")) == (404, "invalid_request_error", "model_not_found", None)
    assert error(await admin.get("/v1/nothing"))[0] == 404
    wrong = await admin.put(KEYS, json={})
    assert error(wrong)[:3] == (405, "invalid_request_error", "method_not_allowed")
    assert set(wrong.headers["allow"].replace(" ", "").split(",")) <= {"GET", "POST", "HEAD"}
    for url in (f"{KEYS}/%00", f"{MODELS}/%00", f"{DEPLOYMENTS}/{'x' * 300}", f"{MODELS}/", f"{KEYS}?after=%00"):
        assert error(await admin.get(url))[0] in {400, 404}


async def test_what_breaks_inside_is_told_by_id_without_the_reason(admin: httpx.AsyncClient, app: FastAPI) -> None:
    """The log has the frames; neither the answer nor the log has the message, which may quote values."""

    async def broken() -> None:
        raise RuntimeError("quotes sk-secret")

    app.add_api_route("/admin/v1/broken", broken)
    answer = await admin.get("/admin/v1/broken")
    assert error(answer)[:3] == (500, "internal_error", "internal_error")
    assert "error_" in answer.text
    assert "sk-secret" not in answer.text


async def test_changes_are_audited_in_their_own_transaction(admin: httpx.AsyncClient, engine: Engine) -> None:
    """A change without its audit row, or a row without its change, cannot be."""
    id_ = (await admin.post(KEYS, json={"name": "a"})).json()["id"]
    await admin.delete(f"{KEYS}/{id_}")
    await admin.delete(f"{KEYS}/key_unknown")
    with reading(engine) as tx:
        rows = tx.execute(select(audit.c.action, audit.c.subject).order_by(audit.c.id)).all()
        count = tx.execute(select(func.count()).select_from(audit)).scalar_one()
    assert sorted(map(tuple, rows)) == [("key.create", id_), ("key.revoke", id_)]
    assert count == 2


async def test_the_documentation_names_every_error(app: FastAPI) -> None:
    """Nothing is documented in the framework's own shape."""
    text = json.dumps(app.openapi())
    assert "HTTPValidationError" not in text
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], (method, path)
            assert {"400", "401", "default"} <= set(operation["responses"]), (method, path)


async def test_the_documentation_needs_no_network(anonymous: httpx.AsyncClient, app: FastAPI) -> None:
    """One page without scripts and without anything of other people's servers; the document itself is there for tools."""
    page = await anonymous.get("/docs")
    assert page.status_code == 200
    assert "://" not in page.text.replace("http://penstock", "")
    assert "<script" not in page.text
    for path in app.openapi()["paths"]:
        assert path in page.text
    assert (await anonymous.get("/openapi.json")).json()["openapi"].startswith("3.")
    assert (await anonymous.get("/redoc")).status_code == 404
