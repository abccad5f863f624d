"""Routing in the real server: what was decided is what happened, and stands in the record."""

import asyncio
import time
from collections import Counter

import httpx
import pytest

from tests.fixtures.deployments import Route, Routes, said
from tests.upstream.behaviour import Behaviour

GOOD = Behaviour(text="fine")
HELD = Behaviour(text="held", held_after=-1)
LEVEL = {"order": 1}


def places(
    routes: Routes, route: Route, *, calls: int, headers: dict[str, str] | None = None, **fields: str
) -> Counter[str]:
    """Which deployments answered, one call after another."""
    answers = [routes.ask(route, headers=headers, key=None, **fields) for _ in range(calls)]
    assert [answer.status_code for answer in answers] == [200] * calls, answers[-1].text
    return Counter(answer.headers["x-penstock-deployment"] for answer in answers)


async def at_once(routes: Routes, route: Route, calls: int) -> list[httpx.Response]:
    """None of them is answered before all of them have come."""
    headers = {"authorization": f"Bearer {routes.server.key}"}
    async with httpx.AsyncClient(base_url=routes.server.url, timeout=30, trust_env=False) as client:
        body = routes.server.ask(route.name)
        asks = [client.post("/v1/chat/completions", json=body, headers=headers) for _ in range(calls)]
        answers = asyncio.gather(*asks)
        deadline = time.monotonic() + 20
        while sum(route.asked) < calls:
            assert time.monotonic() < deadline, route.asked
            await asyncio.sleep(0.01)
        for place in route.places:
            place.handle.let_go()
        return await answers


def test_a_slow_deployment_is_left_for_a_faster_one(routes: Routes) -> None:
    """After its first slow answer; the record says why."""
    slow = Behaviour(text="slow", headers_after_s=0.8)
    route = routes(slow, GOOD, strategy="latency", deployment=LEVEL)
    places(routes, route, calls=4)
    assert places(routes, route, calls=6) == {route.places[1].id: 6}
    reason = routes.record(routes.ask(route))["route"]
    assert reason.startswith(f"latency: {route.places[1].id} ")
    assert f"ms < {route.places[0].id} " in reason


async def test_calls_in_flight_are_spread(routes: Routes) -> None:
    """Least busy: twelve at once on three deployments are four each."""
    route = routes(HELD, HELD, HELD, strategy="least_busy", deployment=LEVEL)
    answers = await at_once(routes, route, 12)
    assert {answer.status_code for answer in answers} == {200}
    assert route.asked == [4, 4, 4]


def test_the_first_in_the_list_answers(routes: Routes) -> None:
    """`order`: as the model's deployments are listed, whatever they are called; the next one where the first fails."""
    made = routes(GOOD, Behaviour(text="spare"))
    ids = ["zebra-of-the-list", "ant-of-the-list"]
    deployments = [
        {"id": id_, "base_url": place.handle.base_url, "model": "scripted"}
        for id_, place in zip(ids, made.places, strict=True)
    ]
    spec = {"name": "as-listed", "strategy": "order", "deployments": deployments}
    answer = routes.server.admin.post("/models", json=spec)
    assert [each["id"] for each in answer.json()["deployments"]] == ids
    routes.server.admin.patch(f"/deployments/{ids[0]}", json={"region": "eu"}).raise_for_status()  # it keeps its place
    asked = routes.ask("as-listed")
    assert asked.headers["x-penstock-deployment"] == ids[0]
    assert routes.record(asked)["route"] == f"order: {ids[0]} is first"
    made.places[0].handle.becomes(Behaviour(status=500))
    assert routes.ask("as-listed").headers["x-penstock-deployment"] == ids[1]


async def test_a_deployment_at_its_limit_is_passed_over(routes: Routes) -> None:
    """Two at the same time there and no more; the others go elsewhere, whatever the order says."""
    route = routes(HELD, HELD, deployment={"limits": {"parallel": 2}})
    answers = await at_once(routes, route, 4)
    assert {answer.status_code for answer in answers} == {200}
    assert route.asked == [2, 2]


def test_where_every_deployment_is_at_its_limit_the_call_says_when_to_come_back(routes: Routes) -> None:
    """503 with `retry-after`: it is not the client's limit, and nothing was sent."""
    route = routes(GOOD, deployment={"limits": {"rpm": 2}})
    assert [routes.ask(route).status_code for _ in range(3)] == [200, 200, 503]
    answer = routes.ask(route)
    assert answer.json()["error"]["code"] == "deployment_limit"
    assert 50 < int(answer.headers["retry-after"]) <= 66
    assert route.asked == [2]
    record = routes.record(answer)
    assert (record["cost_nanousd"], record["usage_source"], record["attempts"]) == (None, None, 0)


def test_a_fallback_stands_in_for_a_model_at_its_limit(routes: Routes) -> None:
    """As for any failure that another model can mend."""
    spare = routes(GOOD)
    route = routes(Behaviour(text="first"), deployment={"limits": {"rpm": 1}}, fallbacks=[spare.name])
    assert [said(routes.ask(route)) for _ in range(2)] == ["first", "fine"]
    assert routes.ask(route).headers["x-penstock-fallback"] == "busy"


def test_a_session_stays_at_one_deployment(routes: Routes) -> None:
    """By header or `prompt_cache_key`, streamed or not, over connections."""
    route = routes(GOOD, GOOD, GOOD, deployment=LEVEL)
    for number in range(4):
        by_header = places(routes, route, calls=3, headers={"x-penstock-session": f"s{number}"})
        by_field = places(routes, route, calls=3, prompt_cache_key=f"s{number}")
        assert by_header == by_field
        assert len(by_header) == 1
    assert routes.record(routes.ask(route, headers={"x-penstock-session": "s0"}))["route"].startswith("session: ")


def test_the_cheapest_deployment_answers(routes: Routes) -> None:
    """By the price in force for this call."""
    route = routes(GOOD, GOOD, strategy="cost", deployment=LEVEL)
    dear, cheap = route.places
    routes.server.admin.patch(f"/deployments/{cheap.id}", json={"price": {"input": 1, "output": 2}}).raise_for_status()
    assert places(routes, route, calls=5) == {cheap.id: 5}
    assert "$" in routes.record(routes.ask(route))["route"]
    assert dear.asked == 0


def test_a_key_of_a_region_stays_in_it(routes: Routes) -> None:
    """A deployment that does not say where it is gets nothing of it, and no header takes it elsewhere."""
    route = routes(GOOD, GOOD)
    anywhere, eu = route.places
    key = routes.server.new_key(metadata={"region": "eu"})
    refused = routes.ask(route, key=key)
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "no_matching_deployment")
    routes.server.admin.patch(f"/deployments/{eu.id}", json={"region": "eu"}).raise_for_status()
    for _ in range(3):
        assert routes.ask(route, key=key).headers["x-penstock-deployment"] == eu.id
    assert routes.ask(route).headers["x-penstock-deployment"] == anywhere.id
    bound = {"x-penstock-region": "eu"}
    assert routes.ask(route, headers=bound).headers["x-penstock-deployment"] == eu.id
    assert routes.ask(route, key=key, headers={"x-penstock-region": "us"}).status_code == 404


def test_tags_choose_a_deployment(routes: Routes) -> None:
    """`when.tags` keeps everything else away from it."""
    route = routes(GOOD, GOOD)
    batch, plain = route.places
    routes.server.admin.patch(f"/deployments/{batch.id}", json={"when": {"tags": ["batch"]}}).raise_for_status()
    assert places(routes, route, calls=3) == {plain.id: 3}
    assert places(routes, route, calls=3, headers={"x-penstock-tags": "x,batch"}) == {batch.id: 3}


@pytest.mark.parametrize("allowed", ["m", "group"])
def test_an_alias_is_the_model_and_a_group_admits_it(routes: Routes, allowed: str) -> None:
    """A key may name the model or one of its groups, and ask for either name; `g*` is no group."""
    name = f"alias-of-{allowed}"
    route = routes(GOOD, aliases=[name], groups=[f"good-{allowed}"])
    key = routes.server.new_key(models=[route.name if allowed == "m" else f"group:good-{allowed}"])
    assert {routes.ask(asked, key=key).status_code for asked in (name, route.name)} == {200}
    listed = routes.server.http.get("/v1/models", headers={"authorization": f"Bearer {key}"}).json()["data"]
    assert [one["id"] for one in listed] == sorted([name, route.name])
    for models in (["g*"], ["group:other"]):
        assert routes.ask(name, key=routes.server.new_key(models=models)).status_code == 403
