"""A model that is full, on the real process: whose turn it is, who is sent away, and that nothing is billed to who was not served."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest

from tests.fixtures import batches
from tests.fixtures.deployments import Routes, said, whole
from tests.fixtures.queues import ALONE, ENDLESS, GOOD, Busy, block, busy, most_at_once
from tests.fixtures.raw import Raw, chat, head
from tests.fixtures.server import Server
from tests.fixtures.upstream import Upstream
from tests.upstream.behaviour import Behaviour


def shed(answer: httpx.Response) -> str:
    """Why a call was sent away."""
    assert answer.status_code == 503, answer.text
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("overloaded", "overloaded")
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    return str(answer.headers["x-penstock-shed"])


def open_holds(server: Server) -> str:
    return next(
        line for line in server.http.get("/metrics").text.splitlines() if line.startswith("penstock_open_holds")
    )


def until_nothing_is_held(server: Server) -> None:
    deadline = time.monotonic() + 20
    while open_holds(server) != "penstock_open_holds 0.0":
        assert time.monotonic() < deadline, "a hold stayed open"
        time.sleep(0.02)


def test_places_go_by_class_and_then_by_arrival(routes: Routes) -> None:
    """One place becomes free while seven calls wait; the record says how long each did, and as what."""
    high = routes.server.new_key(metadata={"max_priority": "high"})
    with busy(routes) as model:
        calls = [
            model.ask_and_wait("lines", priority="batch"),
            model.ask_and_wait("low", priority="low"),
            model.ask_and_wait("flex", service_tier="flex"),
            model.ask_and_wait("first"),
            model.ask_and_wait("second", priority="normal"),
            model.ask_and_wait("high", priority="high", key=high),
            model.ask_and_wait("tier", service_tier="priority", key=high),
        ]
        model.free()
        answers = [call.result() for call in calls]
        assert model.served() == ["high", "tier", "first", "second", "low", "flex", "lines"]
        assert [answer.status_code for answer in answers] == [200] * 7
        assert most_at_once(model.stayed) == 2
        assert model.outcomes() == {"served": 7}
        assert "ms as high" in routes.record(answers[5])["route"]
        assert 'priority="batch"' in str(model.metric("penstock_queue_wait_seconds_count"))


def test_a_wait_counts_as_the_gateways_own_time(routes: Routes) -> None:
    """`x-penstock-overhead-ms` is what a client would not have waited for without a gateway, and the queue is the gateway's."""
    with busy(routes) as model:
        call = model.ask_and_wait("later")
        time.sleep(1.0)
        model.free()
        assert float(call.result().headers["x-penstock-overhead-ms"]) >= 1000


def test_keys_take_turns(routes: Routes) -> None:
    """One that has brought many calls does not keep another waiting for all of them."""
    many, few = routes.server.new_key(), routes.server.new_key()
    with busy(routes) as model:
        calls = [model.ask_and_wait(f"many{number}", key=many) for number in range(4)]
        calls += [model.ask_and_wait("few", key=few)]
        model.free()
        assert [call.result().status_code for call in calls] == [200] * 5
        assert model.served().index("few") <= 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_limit_holds_exactly_and_everybody_is_served(routes: Routes, stream: bool) -> None:
    """Twelve clients at once, two places; and each call is settled once, at what the upstream says."""
    route = routes(
        Behaviour(text="a b c d", chunks=4, gap_s=0.01, headers_after_s=0.02, prompt_tokens=7, completion_tokens=3),
        deployment={"limits": {"parallel": 2}},
        queue={},
        **ALONE,
    )
    with ThreadPoolExecutor(12) as pool:
        calls = [pool.submit(routes.ask, route, stream=stream) for _ in range(12)]
        answers = [call.result() for call in calls]
    assert [said(answer) for answer in answers] == ["a b c d"] * 12
    assert all(whole(answer) is stream for answer in answers)
    entries = route.places[0].handle.wait(lambda found: all(entry.ended_at is not None for entry in found))
    assert len(entries) == 12
    assert most_at_once(entries) == 2
    for answer in answers[:3]:
        assert [one["cost_nanousd"] for one in routes.records(answer)] == [13_000_000]
    until_nothing_is_held(routes.server)


def test_a_call_that_cannot_be_answered_in_time_is_refused_at_once(routes: Routes) -> None:
    """Calls there take half a second, and it has less; nothing is sent, held or billed."""
    slow = Behaviour(headers_after_s=0.5, prompt_tokens=7, completion_tokens=3)
    with busy(routes, slow, ENDLESS, GOOD) as model:
        first = model.ask_and_wait("first")
        model.free()
        assert first.result().status_code == 200
        model.take()
        late = model.ask("late", headers={"x-penstock-timeout-s": "0.3"}).result()
        assert shed(late) == "deadline"
        record = routes.record(late)
        assert (record["status"], record["error_code"], record["cost_nanousd"]) == (503, "overloaded", None)
        assert "late" not in model.served()
        assert model.outcomes()["deadline"] == 1


def test_nobody_waits_longer_than_may_be(routes: Routes) -> None:
    """`wait_s` is a promise, whatever the clients' patience."""
    with busy(routes, queue={"wait_s": 0.2}) as model:
        assert shed(model.ask("hello").result()) == "timeout"
        assert shed(model.ask("hello", headers={"x-penstock-timeout-s": "0.1"}).result()) == "deadline"
        assert model.depth() == 0
        assert model.served() == []


def test_a_full_queue_refuses_and_higher_classes_push_lower_ones_out(routes: Routes) -> None:
    """The place in the queue is the least important one's."""
    with busy(routes, queue={"length": 2}) as model:
        calls = [model.ask_and_wait("low", priority="low"), model.ask_and_wait("batch", priority="batch")]
        assert shed(model.ask("another", priority="batch").result()) == "full"
        normal = model.ask("normal")
        assert shed(calls[1].result()) == "displaced"
        model.free()
        assert [call.result().status_code for call in (normal, calls[0])] == [200, 200]
        assert model.served() == ["normal", "low"]
        assert model.outcomes() == {"served": 2, "full": 1, "displaced": 1}


def test_a_client_that_leaves_is_out_of_the_queue(routes: Routes) -> None:
    """Nobody waits behind it, and nothing is settled for it."""
    with busy(routes) as model:
        with Raw(routes.server) as raw:
            body = chat(routes.server, model.route.name, "gone", stream=True)
            raw.send(head(routes.server, f"content-length: {len(body)}"), body)
            model.until_depth(1)
            behind = model.ask("behind")
            model.until_depth(2)
        model.until_depth(1)
        model.free()
        assert behind.result().status_code == 200
        assert model.served() == ["behind"]
        assert model.outcomes() == {"served": 1, "left": 1}
    until_nothing_is_held(routes.server)


def test_another_model_stands_in_for_one_that_cannot_be_waited_for(routes: Routes) -> None:
    """The queue comes before the fallbacks; what is refused there goes on."""
    spare = routes(GOOD)
    with busy(routes, queue={"wait_s": 0.1}, fallbacks=[spare.name]) as model:
        answer = model.ask("hello").result()
        assert said(answer) == "ann|hello"
        assert answer.headers["x-penstock-model"] == spare.name
        assert answer.headers["x-penstock-fallback"] == "busy"


def test_another_deployment_is_taken_before_anybody_waits(routes: Routes) -> None:
    """Only a model that is full as a whole has a queue."""
    route = routes(ENDLESS, GOOD, deployment={"limits": {"parallel": 1}}, queue={}, **ALONE)
    with block(routes.server, route):
        assert routes.ask(route).headers["x-penstock-deployment"] == route.places[1].id


def test_who_waits_for_one_place_holds_nobody_up_who_can_go_to_another(routes: Routes) -> None:
    """Not even who has little time."""
    slow = Behaviour(headers_after_s=1.5)
    route = routes((slow, ENDLESS, GOOD), GOOD, deployment={"limits": {"parallel": 1}}, queue={}, **ALONE)
    east, west = (place.id for place in route.places)
    for id_, tag in ((east, "east"), (west, "west")):
        changed = routes.server.admin.patch(f"/deployments/{id_}", json={"when": {"tags": [tag]}})
        assert changed.status_code == 200, changed.text
    to_east, to_west = {"x-penstock-tags": "east"}, {"x-penstock-tags": "west", "x-penstock-timeout-s": "1.4"}
    assert routes.ask(route, headers=to_east).status_code == 200
    with ThreadPoolExecutor(1) as pool, block(routes.server, route, "x-penstock-tags: east") as blocker:
        model = Busy(routes, route, [blocker], pool)
        waiting = model.ask_and_wait("waiting", headers=to_east)
        assert routes.ask(route, headers=to_west).headers["x-penstock-deployment"] == west
        model.free()
        assert waiting.result().status_code == 200


def test_who_waits_hears_a_heartbeat(routes: Routes) -> None:
    """Where the model has one: a stream's client is told that somebody is there."""
    with busy(routes, heartbeat_s=0.05) as model, Raw(routes.server) as raw:
        body = chat(routes.server, model.route.name, "later", stream=True)
        raw.send(head(routes.server, f"content-length: {len(body)}"), body)
        model.until_depth(1)
        raw.until(b"\n: ")
        model.free()
        raw.until(b"[DONE]")


def test_a_retry_waits_as_well(routes: Routes) -> None:
    """Its place may be somebody else's by then."""
    failing = Behaviour(status=500)
    with busy(routes, failing, GOOD, retries={"attempts": 2, "base_s": 0.01, "max_s": 0.02}) as model:
        calls = [model.ask_and_wait("first"), model.ask_and_wait("second")]
        model.free()
        assert [call.result().status_code for call in calls] == [200, 200]
        assert most_at_once(model.stayed) == 2
        assert len(model.served()) == 3


def test_without_a_queue_a_full_model_refuses_at_once(routes: Routes) -> None:
    """The default, as ever."""
    route = routes(ENDLESS, deployment={"limits": {"parallel": 1}}, **ALONE)
    with block(routes.server, route):
        refused = routes.ask(route, headers={"x-penstock-priority": "nonsense"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "deployment_limit")


def test_a_priority_that_the_key_may_not_have_is_refused(routes: Routes) -> None:
    """By header; and what is no class at all is named."""
    with busy(routes) as model:
        denied = model.ask("x", priority="high").result()
        assert (denied.status_code, denied.json()["error"]["code"]) == (403, "priority_denied")
        wrong = model.ask("x", priority="urgent").result()
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "x-penstock-priority")


def test_declarations_are_checked_and_follow_what_a_key_belongs_to(routes: Routes) -> None:
    """An organisation's class is its keys', and its `max_priority` is above what they say."""
    admin = routes.server.admin
    wrong = admin.post("/keys", json={"name": "x", "metadata": {"priority": "urgent"}})
    assert (wrong.status_code, "high, normal, low, batch" in wrong.text) == (400, True)
    org = admin.post("/orgs", json={"name": "o", "metadata": {"priority": "low", "max_priority": "normal"}}).json()[
        "id"
    ]
    key = routes.server.new_key(org_id=org, metadata={"priority": "high"})
    with busy(routes) as model:
        calls = [model.ask_and_wait("low", priority="low"), model.ask_and_wait("capped", key=key)]
        assert model.ask("no", priority="high", key=key).result().status_code == 403
        model.free()
        assert [call.result().status_code for call in calls] == [200, 200]
        assert model.served() == ["capped", "low"]


def test_lines_of_batches_wait_behind_live_calls(routes: Routes) -> None:
    """They are calls of the class `batch`, and one that is pushed out comes again for as long as its batch lasts."""
    client = openai.OpenAI(base_url=routes.server.base_url, api_key=routes.server.key, max_retries=0)
    with busy(routes, queue={"length": 2}) as model:
        batch = batches.start(client, [batches.chat_line("one", model.route.name, "line")])
        model.until_depth(1)
        calls = [model.ask_and_wait("live")]
        calls.append(model.ask("more"))
        deadline = time.monotonic() + 15
        while "displaced" not in model.outcomes():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        model.free()
        assert [call.result().status_code for call in calls] == [200, 200]
        done = batches.wait(client, batch.id)
        assert done.request_counts is not None
        assert done.request_counts.completed == 1
        assert model.served() == ["live", "more", "line"]
    client.close()


def test_active_keys_share_a_deployments_tokens(routes: Routes) -> None:
    """One has used most of them; from the moment that another one was turned away, only that one may have more."""
    answer = Behaviour(prompt_tokens=20, completion_tokens=40)
    limits = {"tpm": 1000, "fair_share": True}
    route = routes(answer, deployment={"limits": limits}, **ALONE)
    greedy, modest = routes.server.new_key(), routes.server.new_key()

    def ask(key: str, tokens: int) -> int:
        return routes.ask(route, key=key, max_tokens=tokens).status_code

    assert [ask(greedy, 100) for _ in range(10)] == [200] * 10  # 600 used
    assert ask(modest, 500) == 503
    assert ask(greedy, 100) == 503
    assert [ask(modest, 100) for _ in range(3)] == [200] * 3


def test_a_server_that_ends_serves_whom_it_can_and_tells_the_others(upstream: Upstream, tmp_path: Path) -> None:
    """SIGTERM while six wait for the only place: the last ones hear at once that it cannot be, the first ones are served."""
    server = Server({"server": {"limits": {"drain_s": 4}}, "models": []}, tmp_path).start()
    try:
        routes = Routes(server, upstream)
        usual = Behaviour(headers_after_s=1.2, prompt_tokens=7, completion_tokens=3)
        route = routes((usual, ENDLESS, GOOD), deployment={"limits": {"parallel": 1}}, queue={}, **ALONE)
        assert routes.ask(route).status_code == 200  # so that it is known how long calls take
        with ThreadPoolExecutor(6) as pool, block(server, route) as blocker:
            model = Busy(routes, route, [blocker], pool)
            waiting = [model.ask_and_wait(f"call{number}") for number in range(6)]
            server.terminate()
            assert shed(waiting[-1].result()) == "draining"
            model.free()
            answers = [call.result() for call in waiting]
        assert server.wait() == 0
        served = [answer for answer in answers if answer.status_code == 200]
        assert served
        assert {shed(answer) for answer in answers if answer.status_code != 200} == {"draining"}
        assert len(route.places[0].handle.entries()) == 2 + len(served)
    finally:
        server.stop()
