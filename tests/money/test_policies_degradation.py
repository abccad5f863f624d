"""What calls get while the place where limits are shared is silent: as declared, soon, and well again soon after."""

import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from gateway.leases.accounts import Account
from gateway.local_share import lend, room
from gateway.scopes import Bound, Budget, Limits, Scope, bind
from gateway.shares import Share, Shares
from tests.fixtures.fleet import known_new
from tests.fixtures.redis import RedisServer
from tests.fixtures.server import Server
from tests.fixtures.upstream import Upstream
from tests.upstream.behaviour import Behaviour

USD = 1_000_000_000
CALL_USD = 0.0006  # an upstream bills 600 tokens at 1 USD per million


class Shop:
    """One server on a Redis of its own."""

    def __init__(self, server: Server, redis: RedisServer) -> None:
        self.server = server
        self.redis = redis

    def key(self, limit_usd: float, **limits: int) -> tuple[str, str]:
        """A key with a budget, and the budget's id."""
        made = self.server.admin.post("/keys", json={"name": "k"}).json()
        scope = {"kind": "key", "id": made["id"]}
        budget = self.server.admin.post("/budgets", json={"scope": scope, "limit_usd": limit_usd, "period": "total"})
        assert budget.status_code == 201, budget.text
        if limits:
            assert self.server.admin.post("/limits", json={"scope": scope, **limits}).status_code == 201
        self.server.await_key(made["key"], known=True)
        self.server.new_key()  # made after the budget, so the budget is in force where the key is known
        return made["key"], budget.json()["id"]

    def call(self, key: str) -> httpx.Response:
        """Within a second, and four more for a busy machine, whatever happens."""
        began = time.monotonic()
        answer = self.server.post("/v1/chat/completions", self.server.ask("m", max_tokens=400), key=key)
        assert time.monotonic() - began < 5
        return answer

    def recovers(self, key: str) -> None:
        """Within two seconds, on a quiet machine."""
        began = time.monotonic()
        while self.call(key).status_code != 200:
            assert time.monotonic() - began < 15
            time.sleep(0.05)

    def settles(self, budget: str, settled_usd: float, held_usd: float | None = None) -> bool:
        """Whether the place where limits are shared hears of it."""
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            state = self.server.admin.get(f"/budgets/{budget}").json()
            if state["settled_usd"] == pytest.approx(settled_usd) and held_usd in {None, state["held_usd"]}:
                return True
            time.sleep(0.05)
        return False


@pytest.fixture
async def shop(
    upstream: Upstream, tmp_path: Path, new_redis: Callable[..., RedisServer]
) -> AsyncIterator[Callable[..., Shop]]:
    """`shop(store_failure=…, local_share=…)`."""
    redis = new_redis()
    await known_new(redis)
    made: list[Server] = []

    def start(**limits: object) -> Shop:
        script = upstream.script(Behaviour(prompt_tokens=500, completion_tokens=100))
        where = {"id": "m", "base_url": script.base_url, "model": "m", "price": {"input": 1, "output": 1}}
        config = {"redis_url": redis.url, "limits": limits, "models": [{"name": "m", "deployments": [where]}]}
        made.append(Server(config, tmp_path).start())
        return Shop(made[-1], redis)

    yield start
    redis.resume()
    for server in made:
        server.stop()


def test_calls_are_refused_while_redis_is_paused_if_nothing_else_is_said(shop: Callable[..., Shop]) -> None:
    """503 with the time to wait, for those beyond what is leased; a key without limits does not notice; then all is well."""
    one = shop()
    key, budget = one.key(1)
    assert one.call(key).status_code == 200
    one.redis.pause()
    answers = [one.call(key) for _ in range(20)]
    refused = answers[-1]
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "limits_unavailable"
    assert int(refused.headers["retry-after"]) >= 1
    assert one.call(one.server.key).status_code == 200
    metrics = one.server.http.get("/metrics").text
    assert "penstock_leases_healthy 0.0" in metrics
    one.redis.resume()
    one.recovers(key)
    served = 2 + sum(answer.status_code == 200 for answer in answers)
    assert one.settles(budget, served * CALL_USD)


def test_a_local_share_goes_on_serving_up_to_its_part_and_all_of_it_is_counted(shop: Callable[..., Shop]) -> None:
    """A tenth of the budget for each process, once; then 503. When Redis answers, it hears what was spent without it."""
    one = shop(store_failure="local_share", local_share=0.1)
    key, budget = one.key(0.1)
    assert one.call(key).status_code == 200
    assert one.settles(budget, CALL_USD, held_usd=0)  # what was leased goes back
    one.redis.pause()
    served = 1
    while (answer := one.call(key)).status_code == 200:
        served += 1
    assert answer.status_code == 503
    assert served - 1 >= 8  # 0.01 USD are 16 calls, and the last ones need room for their worst case
    assert (served - 1) * CALL_USD <= 0.01 + 2 * 0.0011  # what was leased still counts on top
    time.sleep(1.2)
    assert one.call(key).status_code == 503  # once per window, however long it takes
    one.redis.resume()
    one.recovers(key)
    assert one.settles(budget, (served + 1) * CALL_USD)


def test_limits_have_a_local_share_too(shop: Callable[..., Shop]) -> None:
    """Half of ten requests a minute, and of four at the same time."""
    one = shop(store_failure="local_share", local_share=0.5)
    key, _ = one.key(100, rpm=10, parallel=4)
    one.redis.pause()
    answers = [one.call(key).status_code for _ in range(8)]
    assert answers == [200] * 5 + [503] * 3
    one.redis.resume()
    one.recovers(key)


def shared(rule: Bound) -> Share:
    return Shares().of(rule, 1_000_000.0)


def test_a_local_share_is_lent_once_per_window_and_never_more_than_was_left() -> None:
    """Of money; what the store had said is gone stays gone."""
    one = shared(bind(Budget("b", Scope("key", "k"), USD, "day"), "k"))
    lend(one, 0.1, 0.0)
    assert one.free == USD // 10
    assert room(one, 0.1, 1e6) == 0
    poor = shared(bind(Budget("b", Scope("key", "k"), USD, "day"), "k"))
    poor.remaining = USD // 50
    lend(poor, 0.1, 0.0)
    assert poor.free == USD // 50


def test_a_bucket_is_lent_from_once_per_minute_of_silence() -> None:
    """As it would have refilled."""
    (limit,) = (bind(limit, "k") for limit in Limits("l", Scope("key", "k"), tpm=1000).each())
    one = shared(limit)
    lend(one, 0.1, 1000.0)
    lend(one, 0.1, 1059.0)
    assert (one.free, one.account) == (100, Account(one.account.id, 1000, 1000 / 60))
    lend(one, 0.1, 1061.0)
    assert one.free == 200
