"""Every attempt that an upstream may have seen is settled once, by itself; the client's sum is the sum of them."""

from tests.fixtures.deployments import Routes, price, said
from tests.fixtures.server import Json
from tests.upstream.behaviour import Behaviour

GOOD = Behaviour(text="fine", prompt_tokens=7, completion_tokens=3)
SENT: Json = {"max_tokens": 50}


def test_a_refusal_costs_nothing_and_has_its_own_entry(routes: Routes) -> None:
    """The provider's word: no work was done."""
    route = routes(Behaviour(status=500), GOOD)
    answer = routes.ask(route, **SENT)
    refused, answered = routes.records(answer)
    assert (refused["cost_nanousd"], refused["usage_source"]) == (0, "provider")
    assert (refused["deployment"], refused["status"], refused["error_code"]) == (
        route.places[0].id,
        502,
        "upstream_error",
    )
    assert refused["id"] == f"{answered['id']}-1"
    assert answered["cost_nanousd"] == 13_000_000 == price(route.places[1].handle.entries()[0])
    assert answered["trail"][0]["id"] == refused["id"]
    assert answer.headers["x-penstock-cost-usd"] == "0.013000000"


def test_an_attempt_that_was_cut_before_anything_came_costs_its_worst_case(routes: Routes) -> None:
    """Nobody can know what the upstream did: held is charged, marked as an estimate, in an entry of its own."""
    route = routes((Behaviour(fault="rst"), GOOD))
    answer = routes.ask(route, **SENT)
    cut, answered = routes.records(answer)
    assert cut["usage_source"] == "estimated"
    assert cut["completion_tokens"] == 50
    assert cut["cost_nanousd"] > answered["cost_nanousd"] == 13_000_000
    total = cut["cost_nanousd"] + answered["cost_nanousd"]
    assert answer.headers["x-penstock-cost-usd"] == f"{total / 1e9:.9f}"
    assert answered["trail"][0]["cost_nanousd"] == cut["cost_nanousd"]


def test_a_kept_connection_that_breaks_is_a_cut_attempt_and_tried_again(routes: Routes) -> None:
    """What was sent is sent again only as an attempt with a hold and a settlement of its own."""
    route = routes((GOOD, Behaviour(fault="fin"), GOOD))
    assert said(routes.ask(route, **SENT)) == "fine"
    answer = routes.ask(route, **SENT)
    assert said(answer) == "fine"
    assert [one["usage_source"] for one in routes.records(answer)] == ["estimated", "provider"]


def test_an_answer_that_is_no_json_costs_what_came_of_it(routes: Routes) -> None:
    """It was made, so it is not free; it was whole, so it is not the worst case."""
    route = routes((Behaviour(body="x" * 400, content_type="text/plain"), GOOD))
    damaged, _ = routes.records(routes.ask(route, **SENT))
    assert (damaged["usage_source"], damaged["completion_tokens"]) == ("estimated", 100)


def test_when_everything_fails_all_attempts_are_settled_and_the_request_owes_nothing_more(routes: Routes) -> None:
    """Three attempts, three entries; the request's own record says how it ended."""
    route = routes(Behaviour(status=500))
    answer = routes.ask(route, **SENT)
    assert answer.status_code == 502
    *attempts, request = routes.records(answer)
    assert [one["id"] for one in attempts] == [f"{request['id']}-{number}" for number in (1, 2, 3)]
    assert request["usage_source"] is None
    assert [one["failure"] for one in request["trail"]] == ["server"] * 3
    assert (request["attempts"], request["status"]) == (3, 502)


def test_a_retry_that_no_longer_fits_the_budget_leaves_the_first_error(routes: Routes) -> None:
    """The lost attempt has used up what there was: the client hears of the failure, not of its budget."""
    route = routes((Behaviour(fault="rst"), GOOD))
    need = 600 * 1_000_000 + 50 * 2_000_000  # nano-dollars; the worst case of the prompt is some 600 tokens
    key = routes.server.new_key(budget={"limit_usd": 1.5 * need / 1e9, "period": "total"})
    answer = routes.ask(route, key=key, **SENT)
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "upstream_error"
    assert route.asked == [1]
    lost, request = routes.records(answer)
    assert lost["usage_source"] == "estimated"
    assert request["usage_source"] is None


def test_a_stream_that_breaks_after_content_is_not_tried_again(routes: Routes) -> None:
    """The client has a part of it: an error in the stream, no [DONE], and what came is billed."""
    route = routes(Behaviour(text="one two three four", chunks=4, fault="fin", fault_after=3), GOOD)
    answer = routes.ask(route, stream=True, **SENT)
    assert answer.status_code == 200
    assert "[DONE]" not in answer.text
    assert '"error"' in answer.text
    assert route.asked == [1, 0]
    (record,) = routes.records(answer)
    assert record["usage_source"] == "estimated"
    assert record["error_code"] == "upstream_error"


def test_whoever_has_an_answer_finds_its_record_and_what_it_cost(routes: Routes) -> None:
    """Asked once, without waiting, however long the process would go on gathering calls."""
    route = routes(GOOD)
    key = routes.server.admin.post("/keys", json={"name": "one"}).json()
    for number in range(1, 9):
        answer = routes.ask(route, key=key["key"], **SENT)
        (newest,) = routes.server.admin.get("/requests", params={"limit": 1, "key_id": key["id"]}).json()["data"]
        assert newest["id"] == answer.headers["x-request-id"]
        assert routes.server.admin.get(f"/requests/{newest['id']}").status_code == 200
        (spent,) = routes.server.admin.get("/spend", params={"group_by": "key", "key_id": key["id"]}).json()["data"]
        assert spent["cost_nanousd"] == number * 13_000_000
