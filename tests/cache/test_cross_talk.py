"""No request of one tenant is ever answered from another's: every answer carries who it was made for, and everybody asks the same."""

import json
import random
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from http.client import HTTPConnection
from typing import Any, cast

import httpx
import pytest

from tests.cache.conftest import EXACT, Asker, Askers, outcome
from tests.fixtures.deployments import said
from tests.fixtures.server import Json

# Equal ones, and the same in other words.
QUESTIONS = (
    "What is due?", "what is due", "Please tell me what is due.", "What is my balance?", "what's my balance",
    "Please, what is my balance?", "Who am I?",
)  # fmt: skip
BOTH: Json = {**EXACT, "semantic": {"recheck": 0}}


class Line:
    """A connection of one thread's own, for what `Asker` asks of a client."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=60)

    def post(self, path: str, *, json: Any, headers: dict[str, str]) -> httpx.Response:
        self._connection.request("POST", path, dumped(json), {**headers, "content-type": "application/json"})
        answer = self._connection.getresponse()
        return httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())

    def close(self) -> None:
        self._connection.close()


def dumped(body: Any) -> bytes:
    return json.dumps(body).encode()


class Tenants:
    """Keys, some of them in teams. The scripted upstream says `user|question`, and each tenant names itself as the user, which is no
    part of the cache's key here: only the partition keeps them apart."""

    def __init__(self, askers: Askers, count: int, cache: Json) -> None:
        self.keyed = askers(cache={**cache, "scope": "key"})
        self.teamed = askers(cache={**cache, "scope": "team"})
        admin = askers.server.admin
        org = admin.post("/orgs", json={"name": "talk"}).json()["id"]
        teams = [admin.post("/teams", json={"name": f"t{n}", "org_id": org}).json()["id"] for n in range(count // 2)]
        self.keys = [(askers.server.new_key(team_id=teams[n // 2]), n) for n in range(count)]

    def ask(self, random_: random.Random, line: Line) -> str | None:
        key, number = random_.choice(self.keys)
        chosen: Asker = random_.choice((self.keyed, self.teamed))
        canary = f"canary-{number if chosen is self.keyed else f'team-{number // 2}'}"
        asker = copy(chosen)
        asker.server = copy(chosen.server)
        asker.server.http = cast("httpx.Client", line)
        namespace = {"x_penstock_cache_namespace": random_.choice("ab")} if random_.random() < 0.3 else {}
        question = random_.choice(QUESTIONS)
        if random_.random() < 0.2:
            answer = asker.post("/v1/responses", {"input": question, "user": canary}, key=key, **namespace)
            assert answer.json()["output"][0]["content"][0]["text"].partition("|")[0] == canary
        else:
            stream = random_.random() < 0.4
            answer = asker.chat(question, user=canary, stream=stream, key=key, headers=namespace)
            assert said(answer).partition("|")[0] == canary, (canary, said(answer))
        return outcome(answer)


def talk(askers: Askers, requests: int, cache: Json, *, threads: int = 1, tenants: int = 8) -> dict[str | None, int]:
    """What became of so many requests, none of them answered from another tenant's entry."""
    made = Tenants(askers, tenants, cache)

    def some(number: int) -> list[str | None]:
        random_, line = random.Random(number), Line(askers.server.port)
        try:
            return [made.ask(random_, line) for _ in range(requests // threads)]
        finally:
            line.close()

    with ThreadPoolExecutor(threads) as pool:
        every = [one for part in pool.map(some, range(threads)) for one in part]
    return {one: every.count(one) for one in set(every)}


@pytest.mark.parametrize("store", ["comparing", "comparing_redis"])
def test_nobody_gets_the_answer_of_another_tenant(store: str, request: pytest.FixtureRequest) -> None:
    """Equal questions of eight keys in four teams, and such in other words; plain, streamed and as responses."""
    found = talk(request.getfixturevalue(store), 150, BOTH)
    assert found["hit"] > 20
    assert found["semantic"] > 5
    assert found["miss"] > 20


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("store", ["comparing", "comparing_redis"])
def test_nobody_gets_the_answer_of_another_tenant_in_a_hundred_thousand(
    store: str, request: pytest.FixtureRequest
) -> None:
    """The same for long, with more tenants at the same time."""
    found = talk(request.getfixturevalue(store), 100_000, BOTH, threads=8, tenants=40)
    print(store, found)
    assert found["hit"] + found["semantic"] > 90_000
    assert found["semantic"] > 1_000
