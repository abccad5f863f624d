"""Batches in the real process: what goes wrong in a line, in a file, in a purse, and what comes of it."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from tests.fixtures.batches import CHAT, ENDED, chat_line, results, start, wait
from tests.fixtures.fleet import INPUT, OUTPUT, USD
from tests.fixtures.server import ONCE, Json, Scripted, Scripts, Server
from tests.fixtures.upstream import Upstream
from tests.upstream.behaviour import Behaviour

ROOM = 12
PRICE = {"input": INPUT / 1000, "output": OUTPUT / 1000, "service_tiers": {"flex": 0.5}}
SMALL: Json = {"max_tokens": 10}


def config(upstream: Upstream, **batches: object) -> Json:
    priced = {"id": "s", "base_url": upstream.base_url, "model": "*", "api_key": "sk-up", "price": PRICE}
    return {
        "models": [{"name": "s/*", "deployments": [priced], "retries": ONCE}],
        "batches": {"concurrency": 8, "room": ROOM, **batches},
    }


@pytest.fixture(scope="module")
def paid(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(config(upstream), tmp_path_factory.mktemp("batches")).start(with_key=False)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def strict(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A batch that meets the end of a budget ends; lines ask for a cheaper service tier."""
    settings = config(upstream, on_budget="fail", service_tiers={"s/*": "flex"})
    server = Server(settings, tmp_path_factory.mktemp("strict-batches")).start(with_key=False)
    yield server
    server.stop()


def client_of(server: Server, **fields: object) -> openai.OpenAI:
    return openai.OpenAI(api_key=server.new_key(**fields), base_url=server.base_url, max_retries=0, timeout=20)


def sizes(batch: openai.types.Batch) -> tuple[int, int, int]:
    counts = batch.request_counts
    assert counts is not None
    return counts.total, counts.completed, counts.failed


def test_a_file_with_bad_lines_fails_and_names_each(paid: Server, scripts: Scripts) -> None:
    """Nothing of it is sent, and nothing is owed."""
    script = scripts(Behaviour())
    good = chat_line("good", script.model)
    with client_of(paid) as client:
        batch = wait(client, start(client, [good, "{", {**good, "method": "GET"}, good, "[]"]).id)
        assert batch.status == "failed"
        assert batch.failed_at is not None
        assert batch.errors is not None
        told = [(error.line, error.code) for error in batch.errors.data or ()]
        assert told == [
            (2, "invalid_json_line"), (3, "invalid_method"), (4, "duplicate_custom_id"), (5, "invalid_type")
        ]  # fmt: skip
        assert all(error.message for error in batch.errors.data or ())
        assert (batch.output_file_id, batch.error_file_id) == (None, None)
    assert script.upstream.entries() == []


def test_lines_that_fail_are_told_apart_from_those_that_do_not(paid: Server, scripts: Scripts) -> None:
    """Refused by the upstream, by the gateway, or unknown to it: each line's own error, and the batch is completed."""
    fine, broken = scripts(Behaviour()), scripts(Behaviour(status=400, error_code="bad_idea"))
    lines = [
        chat_line("fine", fine.model), chat_line("refused", broken.model), chat_line("unknown", "nobody-has-this"),
        chat_line("invalid", fine.model, messages="none"), chat_line("hot", fine.model, temperature=9),
    ]  # fmt: skip
    with client_of(paid) as client:
        batch = wait(client, start(client, lines).id)
        assert batch.status == "completed"
        assert sizes(batch) == (5, 1, 4)
        assert results(client, batch.output_file_id).keys() == {"fine"}
        errors = results(client, batch.error_file_id)
        told = {
            name: (line["response"]["status_code"], line["response"]["body"]["error"]["code"])
            for name, line in errors.items()
        }
        assert told["refused"] == (400, "bad_idea")
        assert told["unknown"] == (404, "model_not_found")
        assert told["invalid"][0] == told["hot"][0] == 400


@pytest.mark.parametrize(
    ("endpoint", "fields", "kind"),
    [
        ("/v1/responses", {"input": "hello", "max_output_tokens": 10}, "output"),
        ("/v1/moderations", {"input": "hello"}, "results"),
        ("/v1/images/generations", {"prompt": "a gate", "background": "opaque"}, "data"),
        ("/v1/rerank", {"query": "a gate", "documents": ["a gate", "a river"]}, "results"),
    ],
)
def test_every_endpoint_of_json_is_one_of_batches(
    paid: Server, scripts: Scripts, endpoint: str, fields: Json, kind: str
) -> None:
    """Each line is answered as its call would be, under its id; a response that a line made can be retrieved."""
    script = scripts(Behaviour())
    with client_of(paid) as client:
        lines = [
            {"custom_id": f"{n}", "method": "POST", "url": endpoint, "body": {"model": script.model, **fields}}
            for n in range(3)
        ]
        batch = wait(client, start(client, lines, endpoint=endpoint).id)
        assert (batch.status, sizes(batch)) == ("completed", (3, 3, 0))
        found = results(client, batch.output_file_id)
        assert found.keys() == {"0", "1", "2"}
        bodies = [line["response"]["body"] for line in found.values()]
        assert all(body[kind] for body in bodies)
        assert all(line["response"]["request_id"].startswith("req_") for line in found.values())
        if endpoint == "/v1/responses":
            assert [client.responses.retrieve(body["id"]).status for body in bodies] == ["completed"] * 3
    assert len(script.upstream.entries()) == 3


def test_a_batch_is_requests_of_its_key(paid: Server, scripts: Scripts) -> None:
    """Each with a record, the tag `batch` and what it cost; the id in the result leads there."""
    script = scripts(Behaviour(prompt_tokens=11, completion_tokens=5))
    with client_of(paid, name="who") as client:
        batch = wait(client, start(client, [chat_line(f"{n}", script.model, **SMALL) for n in range(4)]).id)
        ids = {line["response"]["request_id"] for line in results(client, batch.output_file_id).values()}
    deadline = time.monotonic() + 10
    while True:
        found = {row["id"]: row for row in paid.admin.get("/requests?limit=100").json()["data"] if row["id"] in ids}
        if len(found) == 4:
            break
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert {(row["cost_nanousd"], *row["tags"]) for row in found.values()} == {(11 * INPUT + 5 * OUTPUT, "batch")}
    assert {entry.header("x-request-id") for entry in script.upstream.entries()} == ids
    assert len({row["key_id"] for row in found.values()}) == 1


def test_a_batch_that_is_not_done_in_time_expires(paid: Server, scripts: Scripts) -> None:
    """What was served is there, what was not is named, and each line is one or the other."""
    with client_of(paid) as client:
        script, batch = in_time(client, scripts)
        time.sleep(max(0.0, (batch.expires_at or 0) + 1 - time.time()))
        script.upstream.let_go()
        batch = wait(client, batch.id)
        assert batch.status == "expired"
        assert batch.expired_at is not None
        served, left = results(client, batch.output_file_id), results(client, batch.error_file_id)
        assert {line["error"]["code"] for line in left.values()} == {"batch_expired"}
        assert len(served) + len(left) == 60
        assert 8 <= len(served) < 60
        assert sizes(batch) == (60, len(served), len(left))
        assert len(script.upstream.entries()) == len(served)


def in_time(client: openai.OpenAI, scripts: Scripts) -> tuple[Scripted, openai.types.Batch]:
    """A batch of 60 lines of which eight are served before it expires, and the others wait."""
    for window in ("1s", "5s", "25s"):  # the first is enough, unless the machine has other things to do meanwhile
        script = scripts(*[Behaviour()] * 8, Behaviour(held_after=-1))
        batch = start(client, [chat_line(f"{n}", script.model) for n in range(60)], window=window)
        while batch.status not in ENDED:
            if len(script.upstream.entries()) > 8:
                return script, batch
            batch = client.batches.retrieve(batch.id)
    raise AssertionError("no line was served in time")


def test_a_batch_without_money_waits_and_says_so(paid: Server, scripts: Scripts) -> None:
    """Somebody raises the budget, and it goes on where it was."""
    script = scripts(Behaviour(prompt_tokens=50, completion_tokens=10))
    one = 50 * INPUT + 10 * OUTPUT
    made = paid.admin.post(
        "/keys", json={"name": "poor", "budget": {"limit_usd": 20 * one / USD, "period": "total"}}
    ).json()
    paid.await_key(made["key"], known=True)
    with openai.OpenAI(api_key=made["key"], base_url=paid.base_url, max_retries=0) as client:
        id_ = start(client, [chat_line(f"{n}", script.model, **SMALL) for n in range(40)]).id
        batch = wait(client, id_, lambda batch: batch.errors is not None)
        assert batch.status == "in_progress"
        assert batch.errors is not None
        note = (batch.errors.data or [])[0]
        assert note.code == "budget_exceeded"
        assert "waits" in (note.message or "")
        assert paid.admin.patch(f"/budgets/{made['budget']['id']}", json={"limit_usd": 1}).status_code == 200
        batch = wait(client, id_)
        assert (batch.status, batch.errors) == ("completed", None)
        assert sizes(batch) == (40, 40, 0)
        assert len(results(client, batch.output_file_id)) == 40
    assert len(script.upstream.entries()) == 40
    state = paid.admin.get(f"/budgets/{made['budget']['id']}").json()
    assert round(state["settled_usd"] * USD) == 40 * one


def test_a_batch_without_money_ends_if_that_is_wanted(strict: Server, scripts: Scripts) -> None:
    """With its results so far, and a word for each line that was not served."""
    script = scripts(Behaviour(prompt_tokens=50, completion_tokens=10))
    limit = 20 * (50 * INPUT + 10 * OUTPUT) / USD
    with client_of(strict, budget={"limit_usd": limit, "period": "total"}) as client:
        batch = wait(client, start(client, [chat_line(f"{n}", script.model, **SMALL) for n in range(99)]).id)
        assert batch.status == "failed"
        assert batch.errors is not None
        assert [error.code for error in batch.errors.data or ()] == ["budget_exceeded"]
        served, left = results(client, batch.output_file_id), results(client, batch.error_file_id)
        assert served
        assert len(served) + len(left) == 99
        assert {line["error"]["code"] for line in left.values()} == {"budget_exceeded"}
        assert len(script.upstream.entries()) == len(served)


def test_a_service_tier_is_asked_for_and_paid(strict: Server, scripts: Scripts) -> None:
    """Half the price for lines that ask for it; one that asks for another tier, and a live call, cost what everybody pays."""
    script = scripts(Behaviour(prompt_tokens=100, completion_tokens=10))
    full = 100 * INPUT + 10 * OUTPUT
    lines = [chat_line("cheap", script.model), chat_line("other", script.model, service_tier="priority")]
    with client_of(strict) as client:
        batch = wait(client, start(client, lines).id)
        found = results(client, batch.output_file_id)
        ids = {line["response"]["request_id"]: name for name, line in found.items()}
        live = client.chat.completions.create(
            model=script.model, messages=[{"role": "user", "content": "x"}], service_tier="flex"
        )
        ids[str(live._request_id)] = "live"
    asked = {
        ids[str(e.header("x-request-id"))]: json.loads(e.body).get("service_tier") for e in script.upstream.entries()
    }
    assert asked == {"cheap": "flex", "other": "priority", "live": "flex"}
    deadline = time.monotonic() + 10
    while True:
        rows = strict.admin.get("/requests?limit=50").json()["data"]
        costs = {ids[row["id"]]: row["cost_nanousd"] for row in rows if row["id"] in ids}
        if len(costs) == 3:
            break
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert costs == {"cheap": -(-full // 2), "other": full, "live": full}


def test_limits_are_waited_for(paid: Server, scripts: Scripts) -> None:
    """Four calls in parallel are what the key may have; no line fails for that."""
    script = scripts(Behaviour(headers_after_s=0.05))
    with client_of(paid, limits={"parallel": 4}) as client:
        batch = wait(client, start(client, [chat_line(f"{n}", script.model) for n in range(8)]).id)
        assert sizes(batch) == (8, 8, 0)


def test_a_key_that_is_revoked_ends_its_batch(paid: Server, scripts: Scripts) -> None:
    """The rest is told so; another key of the team still sees the results."""
    script = scripts(*[Behaviour()] * 8, Behaviour(held_after=-1))
    team = paid.admin.post(
        "/teams", json={"name": "t", "org_id": paid.admin.post("/orgs", json={"name": "o"}).json()["id"]}
    )
    team_id = team.json()["id"]
    made = paid.admin.post("/keys", json={"name": "leaving", "team_id": team_id}).json()
    paid.await_key(made["key"], known=True)
    with (
        openai.OpenAI(api_key=made["key"], base_url=paid.base_url, max_retries=0) as leaving,
        client_of(paid, team_id=team_id) as staying,
    ):
        id_ = start(leaving, [chat_line(f"{n}", script.model) for n in range(200)]).id
        wait(staying, id_, lambda _: len(script.upstream.entries()) > 8)
        assert paid.admin.delete(f"/keys/{made['id']}").status_code == 200
        paid.await_key(made["key"], known=False)
        script.upstream.let_go()
        batch = wait(staying, id_)
        assert batch.status == "failed"
        assert batch.errors is not None
        assert [error.code for error in batch.errors.data or ()] == ["key_not_valid"]
        served, left = results(staying, batch.output_file_id), results(staying, batch.error_file_id)
        assert len(served) + len(left) == 200
        assert served


def test_lines_wait_while_live_calls_need_the_room(paid: Server, scripts: Scripts) -> None:
    """As many live calls as there is room for: no line begins until they end."""
    live, lines = scripts(Behaviour(held_after=-1)), scripts(Behaviour())
    key = paid.new_key()
    with client_of(paid) as client, ThreadPoolExecutor(ROOM) as pool:
        calls = [pool.submit(paid.post, CHAT, paid.ask(live.model), key=key) for _ in range(ROOM)]
        live.upstream.wait(lambda entries: len(entries) == ROOM)
        id_ = start(client, [chat_line(f"{n}", lines.model) for n in range(8)]).id
        wait(client, id_, lambda batch: batch.status == "in_progress")
        time.sleep(0.3)
        assert lines.upstream.entries() == []
        live.upstream.let_go()
        batch = wait(client, id_)
        assert {call.result().status_code for call in calls} == {200}
    assert batch.status == "completed"
    assert len(lines.upstream.entries()) == 8


def test_an_input_file_stays_while_its_batch_runs(paid: Server, scripts: Scripts) -> None:
    script = scripts(Behaviour(held_after=-1))
    with client_of(paid) as client:
        batch = start(client, [chat_line("a", script.model)])
        with pytest.raises(openai.ConflictError, match="not finished"):
            client.files.delete(batch.input_file_id)
        script.upstream.let_go()
        wait(client, batch.id)
        assert client.files.delete(batch.input_file_id).deleted


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"endpoint": "/v1/models"}, "endpoint"),
        ({"endpoint": "/v1/messages"}, "endpoint"),
        ({"endpoint": "/v1/audio/speech"}, "endpoint"),
        ({"endpoint": "/v1/images/edits"}, "endpoint"),
        ({"completion_window": "soon"}, "completion_window"),
        ({"completion_window": "31d"}, "completion_window"),
        ({"input_file_id": None}, "input_file_id"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 5}}, "output_expires_after.seconds"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"surprise": True}, "surprise"),
    ],
)
def test_a_batch_that_cannot_be_is_refused(paid: Server, change: Json, param: str) -> None:
    """In OpenAI's shape, with the field that is wrong."""
    body = {"endpoint": CHAT, "completion_window": "24h", "input_file_id": "file-x", **change}
    answer = paid.post("/v1/batches", body, key=paid.new_key())
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


def test_a_server_that_drains_lets_its_lines_end(scripts: Scripts, closing_server: Server) -> None:
    """A restart in the middle: no line is begun twice and none is lost."""
    script: Scripted = scripts(Behaviour(headers_after_s=0.15))
    key = closing_server.new_key()
    with openai.OpenAI(api_key=key, base_url=closing_server.base_url, max_retries=0) as client:
        id_ = start(client, [chat_line(f"{n}", script.model) for n in range(60)]).id
        script.upstream.wait(lambda entries: len(entries) > 20)
    closing_server.restart()
    with openai.OpenAI(api_key=key, base_url=closing_server.base_url, max_retries=0) as client:
        batch = wait(client, id_)
        assert sizes(batch) == (60, 60, 0)
        assert len(results(client, batch.output_file_id)) == 60
    assert len(script.upstream.entries()) == 60


@pytest.fixture
def closing_server(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(config(upstream), tmp_path_factory.mktemp("closing")).start(with_key=False)
    yield server
    server.stop()
