"""Streams that break, stall or wait: what the client sees is whole, or says that it is not."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import openai
import pytest

from tests.fixtures.deployments import Route, Routes, chunks, price, said, whole
from tests.fixtures.server import Json
from tests.upstream.behaviour import Behaviour, ToolCall

FIRST = Behaviour(text="The answer has ", chunks=3, fault="fin", fault_after=4)  # the role, and three pieces of text
REST = Behaviour(text="two halves.", chunks=2)
TIMEOUTS = {"first_token_s": 15, "stall_s": 1.2, "total_s": 20}


def bodies(route: Route, number: int) -> list[Json]:
    return [json.loads(entry.body) for entry in route.places[number].handle.entries()]


@pytest.mark.parametrize("fault", ["fin", "rst", "silence", "bad_json_event", "error_event"])
def test_a_stream_that_breaks_goes_on_elsewhere_if_the_model_allows_it(routes: Routes, fault: str) -> None:
    """One text, one identity, one end; a comment where the second half begins."""
    first = Behaviour(text="The answer has ", chunks=3, fault=fault, fault_after=4)  # type: ignore[arg-type]  # one of Fault
    route = routes(first, REST, continue_streams=True, timeouts=TIMEOUTS)
    answer = routes.ask(route, stream=True, max_tokens=50, stream_options={"include_usage": True})
    assert said(answer) == "The answer has two halves."
    assert whole(answer)
    assert answer.text.count(": penstock continued\n\n") == 1
    events = chunks(answer)
    assert len({event["id"] for event in events}) == 1
    assert sum("role" in choice["delta"] for event in events for choice in event["choices"]) == 1
    assert "error" not in answer.text
    asked = bodies(route, 1)[0]
    assert asked["messages"][-1] == {"role": "assistant", "content": "The answer has "}
    assert asked["max_tokens"] < 50


def test_each_half_is_billed_once(routes: Routes) -> None:
    """The broken one at what came of it, the other by its provider's word."""
    route = routes(FIRST, REST, continue_streams=True)
    answer = routes.ask(route, stream=True, max_tokens=50)
    broken, rest = routes.records(answer)
    assert (broken["usage_source"], broken["id"]) == ("estimated", f"{rest['id']}-1")
    assert rest["cost_nanousd"] == price(route.places[1].handle.entries()[0])
    assert [one["failure"] for one in rest["trail"]] == ["cut", None]
    assert (rest["status"], rest["error_code"]) == (200, None)


def test_vllm_is_told_to_go_on_with_the_last_message(routes: Routes) -> None:
    """Without that it would begin a new one."""
    route = routes(FIRST, REST, continue_streams=True, deployment={"provider": "vllm"})
    assert said(routes.ask(route, stream=True)) == "The answer has two halves."
    asked = bodies(route, 1)[0]
    assert (asked["continue_final_message"], asked["add_generation_prompt"]) == (True, False)


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"logprobs": True},
        {"response_format": {"type": "json_object"}},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
    ],
)
def test_what_cannot_be_continued_ends_with_an_error(routes: Routes, fields: Json) -> None:
    """Half a call of a tool and half of another are not one."""
    route = routes(FIRST, REST, continue_streams=True)
    answer = routes.ask(route, stream=True, **fields)
    assert "[DONE]" not in answer.text
    assert chunks(answer)[-1]["error"]["type"] == "upstream_error"
    assert route.asked == [1, 0]


def test_without_the_models_consent_a_broken_stream_ends_with_an_error(routes: Routes) -> None:
    """As a client of the OpenAI SDK sees it: an exception after the first pieces."""
    route = routes(FIRST, REST)
    client = openai.OpenAI(base_url=routes.server.base_url, api_key=routes.server.key, max_retries=0)
    pieces: list[str] = []
    stream = client.chat.completions.create(model=route.name, messages=[{"role": "user", "content": "x"}], stream=True)
    with pytest.raises(openai.APIError):
        pieces.extend(event.choices[0].delta.content or "" for event in stream)
    client.close()
    assert "".join(pieces) == "The answer has "
    assert route.asked == [1, 0]


def test_when_every_continuation_fails_the_stream_says_how_it_broke(routes: Routes) -> None:
    """Once, at the end, and no [DONE]."""
    route = routes((FIRST, Behaviour(status=503)), Behaviour(status=500), continue_streams=True)
    answer = routes.ask(route, stream=True)
    assert said(answer) == "The answer has "
    assert "[DONE]" not in answer.text
    errors = [event["error"] for event in chunks(answer) if "error" in event]
    assert len(errors) == 1
    assert "closed the connection" in errors[0]["message"]


def test_a_call_of_a_tool_is_passed_on_whole_or_as_an_error(routes: Routes) -> None:
    """No prefix of arguments is ever continued."""
    call = ToolCall("weather", '{"city": "Paris"}')
    route = routes(Behaviour(tool_calls=(call,), fault="fin", fault_after=2), REST, continue_streams=True)
    answer = routes.ask(route, stream=True)
    assert "[DONE]" not in answer.text
    assert route.asked == [1, 0]


@contextmanager
def streamed(routes: Routes, route: Route) -> Iterator[httpx.Response]:
    """On a connection of its own."""
    headers = {"authorization": f"Bearer {routes.server.key}"}
    body = routes.server.ask(route.name, stream=True)
    with (
        httpx.Client(base_url=routes.server.base_url, timeout=20, trust_env=False) as client,
        client.stream("POST", "/chat/completions", json=body, headers=headers) as answer,
    ):
        yield answer


def beat(lines: Iterator[str]) -> None:
    """The next thing that comes is a heartbeat."""
    assert (next(lines), next(lines)) == (": penstock heartbeat", "")


def test_heartbeats_keep_a_waiting_stream_alive_and_fallbacks_still_run(routes: Routes) -> None:
    """The head is sent with the first beat; the first deployment fails after that, and the second one answers."""
    route = routes(Behaviour(status=500, held_after=-1), Behaviour(text="fine", held_after=0), heartbeat_s=0.1)
    with streamed(routes, route) as answer:
        lines = answer.iter_lines()
        for place in route.places:
            for _ in range(2):
                beat(lines)
            place.handle.wait(bool)
            beat(lines)
            place.handle.let_go()
        rest = [line for line in lines if line.startswith("data: ")]
    assert json.loads(rest[1][6:])["choices"][0]["delta"]["content"] == "fine"
    assert rest[-1] == "data: [DONE]"
    assert "x-penstock-deployment" not in answer.headers  # nobody knew yet
    assert routes.record(answer)["deployment"] == route.places[1].id


def test_after_a_heartbeat_an_error_is_told_in_the_stream(routes: Routes) -> None:
    """The status was sent; what follows is an error event and no [DONE]."""
    route = routes(Behaviour(status=500, held_after=-1), retries={"attempts": 0}, heartbeat_s=0.1)
    with streamed(routes, route) as answer:
        lines = answer.iter_lines()
        beat(lines)
        route.places[0].handle.let_go()
        rest = [line for line in lines if line.startswith("data: ")]
    assert answer.status_code == 200
    assert [json.loads(line[6:])["error"]["code"] for line in rest] == ["upstream_error"]
    record = routes.record(answer)
    assert (record["status"], record["error_code"]) == (200, "upstream_error")


def test_a_failure_before_the_first_heartbeat_is_a_status(routes: Routes) -> None:
    """And so is anything on a call that does not stream."""
    route = routes(Behaviour(status=500), retries={"attempts": 0}, heartbeat_s=5)
    assert routes.ask(route, stream=True).status_code == 502
    slow = routes(Behaviour(text="fine", headers_after_s=0.3), heartbeat_s=0.05)
    assert said(routes.ask(slow)) == "fine"


def test_a_client_that_leaves_while_it_waits_ends_everything(routes: Routes) -> None:
    """The upstream is cancelled, and no heartbeat goes to nobody."""
    route = routes(Behaviour(fault="silence"), heartbeat_s=0.05)
    with streamed(routes, route) as answer:
        beat(answer.iter_lines())
    assert route.places[0].handle.ended().outcome == "client_left"


def test_a_prompt_that_no_deployment_takes_goes_to_its_fallback_without_a_try(routes: Routes) -> None:
    """Where the sizes are known; a prompt that may fit is the upstream's to judge."""
    wide = routes(Behaviour(text="wide"))
    route = routes(Behaviour(text="narrow"), deployment={"max_input_tokens": 100}, context_fallbacks=[wide.name])
    answer = routes.ask(route, text="word " * 2000)
    assert said(answer) == "wide"
    assert answer.headers["x-penstock-fallback"] == "context"
    assert said(routes.ask(route, text="word " * 20)) == "narrow"
    assert route.asked == [1]
