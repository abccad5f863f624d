"""A store that declares tenancy, through every door: each names one tenant, or is told how to, and nobody hears what is another's."""

import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import openai
import pytest
from mcp.shared.exceptions import MCPError

from tests.answers.conftest import Grounded, heard, searching
from tests.answers.test_doors import connected, said
from tests.upstream.behaviour import Behaviour

TENANCY = {"tenancy": {"attribute": "tenant", "promote_at": 5000}}
PINS = {"acme": "The pin of the gate is 4711.", "north/south": "The pin of the gate is 8888."}
SAYS = Behaviour(text="It is as it stands there [1].", prompt_tokens=20, completion_tokens=3)
QUESTION: Any = [{"role": "user", "content": "What is the pin of the gate?"}]


def of(tenant: str) -> dict[str, Any]:
    return {"type": "eq", "key": "tenant", "value": tenant}


class House:
    """One store, and clients of it: one that names tenants, and one bound to each of them."""

    def __init__(self, grounded: Grounded) -> None:
        self.grounded = grounded
        admin = grounded.server.admin
        org = admin.post("/orgs", json={"name": f"org {time.monotonic_ns()}"}).json()["id"]
        team = admin.post("/teams", json={"name": "tenants", "org_id": org}).json()["id"]
        self.owner = grounded.client(team_id=team)
        self.bound = {name: grounded.client(team_id=team, metadata={"access_tenant": name}) for name in PINS}
        self.store = self.owner.vector_stores.create(name="pins", extra_body=TENANCY).id
        self.files = {name: self.put(name, text) for name, text in PINS.items()}

    def put(self, tenant: str, text: str) -> str:
        file = self.owner.files.create(file=("pin.txt", text.encode()), purpose="assistants")
        done = self.owner.vector_stores.files.create_and_poll(
            file.id, vector_store_id=self.store, attributes={"tenant": tenant}
        )
        assert done.status == "completed", done
        return file.id

    def request(self, method: str, path: str, client: openai.OpenAI | None = None, body: Any = None) -> httpx.Response:
        headers = {"authorization": f"Bearer {(client or self.owner).api_key}"}
        where = f"/v1/vector_stores/{self.store}{path}"
        return self.grounded.server.http.request(method, where, json=body, headers=headers)

    def close(self) -> None:
        for each in (self.owner, *self.bound.values()):
            each.close()


@pytest.fixture(scope="module")
def house(grounded: Grounded) -> Iterator[House]:
    house = House(grounded)
    yield house
    house.close()


def refused(call: Any, status: int = 400, code: str = "tenant_required") -> Any:
    with pytest.raises(openai.APIStatusError) as caught:
        call()
    assert (caught.value.status_code, caught.value.code) == (status, code), caught.value
    return caught.value


def test_what_is_declared_is_shown_and_stays(house: House) -> None:
    shown: Any = house.owner.vector_stores.retrieve(house.store)
    assert shown.tenancy == TENANCY["tenancy"]
    plain: Any = house.owner.vector_stores.create(name="plain")
    assert plain.tenancy is None
    for wrong, param in (
        ({"attribute": ""}, "tenancy.attribute"),
        ({"attribute": "t", "promote_at": 10}, "tenancy.promote_at"),
        ({"promote_at": 5000}, "tenancy.attribute"),
        ({"attribute": "t", "more": 1}, "tenancy.more"),
    ):
        answer = house.grounded.server.post("/v1/vector_stores", {"tenancy": wrong}, key=house.owner.api_key)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
    asked = {"tenancy": {"attribute": "t"}, "engine": "qdrant_edge"}
    engine = house.grounded.server.post("/v1/vector_stores", asked, key=house.owner.api_key)
    assert engine.json()["error"]["param"] == "engine"
    changed = house.request("POST", "", body={"tenancy": None})
    assert (changed.status_code, changed.json()["error"]["param"]) == (400, "tenancy")
    empty: Any = house.owner.vector_stores.update(plain.id, extra_body=TENANCY)
    assert empty.tenancy == TENANCY["tenancy"]


def test_a_file_names_its_tenant(house: House) -> None:
    """Alone, among others, with a new store, and when its attributes change."""
    file = house.owner.files.create(file=("b.txt", b"nothing"), purpose="assistants").id
    for attributes in (None, {}, {"tenant": ""}, {"tenant": 5}):
        answer = house.request("POST", "/files", body={"file_id": file, "attributes": attributes})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "tenant_required")
        assert answer.json()["error"]["param"] == "attributes.tenant"
    batch = {"files": [{"file_id": house.files["acme"], "attributes": {"tenant": "acme"}}, {"file_id": file}]}
    answer = house.request("POST", "/file_batches", body=batch)
    assert answer.json()["error"]["param"] == "files.1.attributes.tenant"
    made = house.grounded.server.post("/v1/vector_stores", {"file_ids": [file], **TENANCY}, key=house.owner.api_key)
    assert (made.status_code, made.json()["error"]["code"]) == (400, "tenant_required")
    changed = house.request("POST", f"/files/{house.files['acme']}", body={"attributes": {"year": 2024}})
    assert (changed.status_code, changed.json()["error"]["code"]) == (400, "tenant_required")
    acme = house.bound["acme"]
    mine = acme.files.create(file=("b.txt", b"nothing"), purpose="assistants").id
    foreign = house.request("POST", "/files", acme, {"file_id": mine, "attributes": {"tenant": "north/south"}})
    acme.files.delete(mine)
    assert (foreign.status_code, foreign.json()["error"]["code"]) == (403, "tenant_denied")


def test_a_search_names_its_tenant(house: House) -> None:
    """By a filter, by a field, or by its key; the page says whose partition it was."""

    def search(client: openai.OpenAI, **fields: Any) -> Any:
        extra = {"tenant": fields.pop("tenant")} if "tenant" in fields else {}
        return client.vector_stores.search(house.store, query="pin of the gate", extra_body=extra, **fields)

    for name, text in PINS.items():
        for page in (
            search(house.owner, filters=of(name)),
            search(house.owner, filters={"type": "and", "filters": [of(name)]}),
            search(house.owner, tenant=name),
            search(house.bound[name]),
        ):
            assert [one.content[0].text for one in page.data] == [text]
            assert page.plan["partition"] == {"tenant": name, "promoted": False}
    error = refused(lambda: search(house.owner))
    assert error.param == "filters"
    assert "`tenant`" in error.message
    refused(lambda: search(house.owner, filters={"type": "or", "filters": [of("acme")]}))
    refused(lambda: search(house.owner, tenant="acme", filters=of("north/south")))
    refused(lambda: search(house.bound["acme"], tenant="north/south"), 403, "tenant_denied")
    refused(lambda: search(house.bound["acme"], filters=of("north/south")), 403, "tenant_denied")
    assert search(house.owner, tenant="Acme").data == []


def test_file_search_names_its_tenant(house: House) -> None:
    """In responses and in chats, before the model is asked."""
    ask = searching("pin of the gate")
    for name, text in PINS.items():
        other = next(each for each in PINS.values() if each != text)
        for client, fields in ((house.owner, {"filters": of(name)}), (house.bound[name], {})):
            tool: Any = {"type": "file_search", "vector_store_ids": [house.store], **fields}
            model, handle = house.grounded.model(ask, SAYS)
            client.responses.create(model=model, input="What is the pin?", tools=[tool])
            told = json.dumps(heard(handle, 1))
            assert text in told
            assert other not in told
            model, handle = house.grounded.model(SAYS)
            client.chat.completions.create(model=model, messages=QUESTION, tools=[tool])
            told = json.dumps(heard(handle, 0))
            assert text in told
            assert other not in told
    bare: Any = {"type": "file_search", "vector_store_ids": [house.store]}
    model, handle = house.grounded.model(ask, SAYS)
    for call in (
        lambda: house.owner.responses.create(model=model, input="What is the pin?", tools=[bare]),
        lambda: house.owner.chat.completions.create(model=model, messages=QUESTION, tools=[bare]),
    ):
        assert refused(call).param == "tools[0].filters"
    wrong: Any = {**bare, "filters": of("north/south")}
    refused(lambda: house.bound["acme"].responses.create(model=model, input="?", tools=[wrong]), 403, "tenant_denied")
    assert handle.entries() == []


def test_an_attached_collection_is_for_keys_of_a_tenant(house: House) -> None:
    """Also from the cache: an answer is of who asks."""
    model, handle = house.grounded.model(SAYS, retrieval={"collections": [house.store]}, cache={"exact": {}})
    outcomes = []
    for name in (*PINS, *PINS):
        raw = house.bound[name].chat.completions.with_raw_response.create(model=model, messages=QUESTION)
        outcomes.append(raw.headers["x-penstock-cache"])
    assert outcomes == ["miss", "miss", "hit", "hit"]
    for number, (name, text) in enumerate(PINS.items()):
        told = json.dumps(heard(handle, number))
        assert text in told, name
        assert next(each for each in PINS.values() if each != text) not in told
    refused(lambda: house.owner.chat.completions.create(model=model, messages=QUESTION))
    assert len(handle.entries()) == 2


async def test_agents_need_a_key_of_a_tenant(house: House) -> None:
    """MCP names no tenant: without one in its key, a search leaves the store out, and who asks for it by name is told."""
    ids = {name: f"{house.store}/{file}" for name, file in house.files.items()}
    for name, client in house.bound.items():
        async with connected(house.grounded, client.api_key) as mcp:
            (found,) = said(await mcp.call_tool("search", {"query": "pin of the gate"}))["results"]
            assert found["id"] == ids[name]
            assert said(await mcp.call_tool("fetch", {"id": ids[name]}))["text"] == PINS[name]
            other = next(each for each in PINS if each != name)
            with pytest.raises(MCPError) as caught:
                await mcp.call_tool("fetch", {"id": ids[other]})
            assert PINS[other] not in str(caught.value)
    async with connected(house.grounded, house.owner.api_key) as mcp:
        assert said(await mcp.call_tool("search", {"query": "pin of the gate"}))["results"] == []
        with pytest.raises(MCPError, match="tenant"):
            await mcp.call_tool("fetch", {"id": ids["acme"]})
    async with connected(house.grounded, house.owner.api_key, f"/mcp/retrieval/{house.store}") as mcp:
        with pytest.raises(MCPError, match="tenant"):
            await mcp.call_tool("search", {"query": "pin of the gate"})


def test_dify_names_its_tenant(house: House) -> None:
    def asked(client: openai.OpenAI, *conditions: Any) -> httpx.Response:
        body: dict[str, Any] = {"knowledge_id": house.store, "query": "pin of the gate"}
        body |= (
            {"metadata_condition": {"logical_operator": "and", "conditions": list(conditions)}} if conditions else {}
        )
        headers = {"authorization": f"Bearer {client.api_key}"}
        return house.grounded.server.http.post("/retrieval", json=body, headers=headers)

    is_acme = {"name": ["tenant"], "comparison_operator": "is", "value": "acme"}
    for answer in (asked(house.owner, is_acme), asked(house.bound["acme"])):
        assert [one["content"] for one in answer.json()["records"]] == [PINS["acme"]]
    for answer, status in (
        (asked(house.owner), 400),
        (asked(house.owner, {**is_acme, "comparison_operator": "start with"}), 400),
        (asked(house.bound["north/south"], is_acme), 403),
    ):
        assert answer.status_code == status, answer.text
        assert "tenant" in answer.json()["error_msg"]


def test_a_retriever_hands_the_tenant_on(house: House) -> None:
    made = house.grounded.server.admin.post(
        "/retrievers", json={"name": "pins", "collection": house.store, "search": {"max_num_results": 3}}
    )
    assert made.status_code == 201, made.text
    headers = {"authorization": f"Bearer {house.owner.api_key}"}
    deadline = time.monotonic() + 20
    while True:
        answer = house.grounded.server.http.post(
            "/v1/vector_stores/pins/search", json={"query": "pin", "tenant": "acme"}, headers=headers
        )
        if answer.status_code == 200 or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    assert [one["content"][0]["text"] for one in answer.json()["data"]] == [PINS["acme"]]
    bare = house.grounded.server.http.post("/v1/vector_stores/pins/search", json={"query": "pin"}, headers=headers)
    assert bare.json()["error"]["code"] == "tenant_required"


def test_a_bound_key_has_no_say_in_the_store_nor_a_look_at_others_files(house: House) -> None:
    """Neither where they are kept before anything is read, nor in batches, nor by taking them for its own."""
    acme = house.bound["acme"]
    for method, body in (("POST", {"name": "mine"}), ("DELETE", None)):
        answer = house.request(method, "", acme, body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "tenant_denied")
    mine = acme.files.create(file=("mine.txt", b"of acme"), purpose="assistants").id
    assert [each.id for each in acme.files.list()] == [mine]
    theirs = house.files["north/south"]
    for call in (
        lambda: acme.files.retrieve(theirs),
        lambda: acme.files.content(theirs),
        lambda: acme.files.delete(theirs),
    ):
        refused(call, 404, "file_not_found")
    loose = house.owner.files.create(file=("loose.txt", b"of nobody yet"), purpose="assistants").id
    taken = house.request("POST", "/files", acme, {"file_id": loose, "attributes": {"tenant": "acme"}})
    assert taken.status_code == 404
    files = [{"file_id": loose, "attributes": {"tenant": "north/south"}}]
    batch = house.request("POST", "/file_batches", body={"files": files}).json()["id"]
    for method, path in (("GET", ""), ("POST", "/cancel"), ("GET", "/files")):
        assert house.request(method, f"/file_batches/{batch}{path}", acme).status_code == 404
    assert house.request("GET", f"/file_batches/{batch}").status_code == 200
    house.owner.files.delete(loose)
    acme.files.delete(mine)


def test_tenants_are_listed_and_deleted(house: House) -> None:
    """Page by page, as SDKs walk; a name is taken as it is."""
    house.put("a b/ü%", "The pin of the well is 1.")
    first = house.request("GET", "/tenants?limit=2").json()
    assert [each["id"] for each in first["data"]] == ["a b/ü%", "acme"]
    assert (first["has_more"], first["last_id"]) == (True, "acme")
    last = house.request("GET", "/tenants?limit=2&after=acme").json()
    assert last["data"] == [
        {
            "id": "north/south",
            "object": "vector_store.tenant",
            "files": 1,
            "passages": 1,
            "usage_bytes": last["data"][0]["usage_bytes"],
            "promoted": False,
        }
    ]
    mine = house.request("GET", "/tenants", house.bound["acme"]).json()
    assert [each["id"] for each in mine["data"]] == ["acme"]
    path = f"/tenants/{quote('a b/ü%', safe='')}"
    assert house.request("DELETE", path, house.bound["acme"]).status_code == 404
    gone = house.request("DELETE", path)
    assert gone.json() == {"id": "a b/ü%", "object": "vector_store.tenant.deleted", "deleted": True, "files": 1}
    again = house.request("DELETE", path)
    assert (again.status_code, again.json()["error"]["code"]) == (404, "tenant_not_found")
    assert [each["id"] for each in house.request("GET", "/tenants").json()["data"]] == list(PINS)
    plain = house.owner.vector_stores.create(name="plain")
    headers = {"authorization": f"Bearer {house.owner.api_key}"}
    answer = house.grounded.server.http.get(f"/v1/vector_stores/{plain.id}/tenants", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "no_tenancy")
