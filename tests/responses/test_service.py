"""`/v1/responses` on the real process: whose a response is, what it costs, what fails and how the client hears of it."""

import json
import time
from typing import Any

import httpx
import openai
import pytest

from tests.dialects.service import asked
from tests.fixtures.deployments import Route, Routes
from tests.upstream.behaviour import Behaviour, ToolCall

NATIVE = {"responses": True}
KINDS = pytest.mark.parametrize("deployment", [{}, NATIVE], ids=["chat", "native"])


def post(routes: Routes, route: Route | str, *, key: str | None = None, **fields: Any) -> httpx.Response:
    name = route if isinstance(route, str) else route.name
    return routes.server.post("/v1/responses", {"model": name, "input": "hello", **fields}, key=key)


def get(routes: Routes, path: str, *, key: str | None = None) -> httpx.Response:
    return routes.server.http.get(path, headers={"authorization": f"Bearer {key or routes.server.key}"})


def events(answer: httpx.Response) -> list[Any]:
    """The objects of a stream, each behind a line with its name."""
    found = []
    for block in answer.text.strip().split("\n\n"):
        name, data = block.split("\n")
        made = json.loads(data.removeprefix("data: "))
        assert name == f"event: {made['type']}"
        found.append(made)
    return found


def test_what_a_key_made_is_its_own_or_its_teams(routes: Routes) -> None:
    """For everybody else it does not exist, whatever is asked of it."""
    server = routes.server
    org = server.admin.post("/orgs", json={"name": "o"}).json()["id"]
    team = server.admin.post("/teams", json={"name": "t", "org_id": org}).json()["id"]
    alone, mate, other = server.new_key(), server.new_key(team_id=team), server.new_key(team_id=team)
    route = routes(Behaviour(first_token_after_s=0.3))
    own = post(routes, route, key=alone).json()["id"]
    shared = post(routes, route, key=mate, background=True).json()["id"]
    kept = server.post("/v1/conversations", {}, key=alone).json()["id"]
    assert get(routes, f"/v1/responses/{own}", key=alone).status_code == 200
    assert get(routes, f"/v1/responses/{shared}", key=other).status_code == 200
    for key, id_ in ((mate, own), (server.key, own), (alone, shared)):
        bearer = {"authorization": f"Bearer {key}"}
        below = f"/v1/responses/{id_}"
        answers = [get(routes, below + more, key=key) for more in ("", "/input_items", "?stream=true")]
        answers += [server.http.delete(below, headers=bearer), server.post(f"{below}/cancel", {}, key=key)]
        assert [answer.status_code for answer in answers] == [404] * 5
        assert answers[0].json()["error"]["code"] == "response_not_found"
        assert post(routes, route, key=key, previous_response_id=id_).json()["error"]["param"] == "previous_response_id"
    assert get(routes, f"/v1/conversations/{kept}", key=mate).status_code == 404
    assert get(routes, f"/v1/conversations/{kept}/items", key=mate).status_code == 404
    assert post(routes, route, key=mate, conversation=kept).status_code == 404


@KINDS
@pytest.mark.parametrize("streams", [False, True])
def test_a_response_is_held_settled_and_recorded_as_any_call(
    routes: Routes, deployment: dict[str, object], streams: bool
) -> None:
    """One settlement, at what the provider reports, under its own path's name."""
    route = routes(Behaviour(text="a b c", prompt_tokens=10, completion_tokens=4), deployment=deployment)
    answer = post(routes, route, stream=streams, user="ann")
    if not streams:
        assert answer.headers["x-penstock-cost-usd"] == "0.018000000"
    assert (answer.headers["x-penstock-model"], answer.headers["x-penstock-attempts"]) == (route.name, "1")
    record = routes.record(answer)
    assert (record["endpoint"], record["prompt_tokens"], record["completion_tokens"]) == ("responses", 10, 4)
    assert (record["usage_source"], record["status"], record["user"], record["stream"]) == (
        "provider",
        200,
        "ann",
        streams,
    )


def test_a_budget_that_is_spent_refuses_a_response(routes: Routes) -> None:
    """Before anything is sent; in the background it is the response that says so."""
    key = routes.server.new_key(budget={"limit_usd": 0.001, "period": "total"})
    route = routes(Behaviour())
    answer = post(routes, route, key=key, max_output_tokens=100)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "budget_exceeded")
    later = post(routes, route, key=key, max_output_tokens=100, background=True).json()
    failed = ended(routes, later["id"], key=key)
    assert (failed["status"], failed["error"]["code"]) == ("failed", "rate_limit_exceeded")
    assert route.asked == [0]


@KINDS
def test_a_budget_may_cut_a_response(routes: Routes, deployment: dict[str, object]) -> None:
    """To the longest answer that fits, under the name that the deployment knows for it."""
    budget = {"limit_usd": 1.7, "period": "total", "on_exceeded": "cut"}
    route = routes(Behaviour(text="a"), deployment=deployment)
    answer = post(routes, route, key=routes.server.new_key(budget=budget), max_output_tokens=4000)
    assert answer.status_code == 200
    cut = int(answer.headers["x-penstock-max-tokens"])
    assert 0 < cut < 4000
    assert asked(route.places[0])["max_output_tokens" if deployment else "max_tokens"] == cut


@KINDS
def test_a_client_that_leaves_stops_the_upstream_and_pays(routes: Routes, deployment: dict[str, object]) -> None:
    """What it heard is billed, and kept as cancelled."""
    route = routes(Behaviour(text="w", chunks=500, gap_s=0.02, prompt_tokens=11), deployment=deployment)
    body = {"model": route.name, "input": "hi", "stream": True}
    headers = {"authorization": f"Bearer {routes.server.key}"}
    with routes.server.http.stream("POST", "/v1/responses", json=body, headers=headers) as answer:
        seen = answer.iter_lines()
        first = json.loads([next(seen) for _ in range(60)][1].removeprefix("data: "))
    assert route.places[0].handle.ended().outcome == "client_left"
    record = routes.record(answer)
    assert (record["status"], record["error_code"]) == (200, "client_disconnected")
    assert record["completion_tokens"] >= 10
    kept = ended(routes, first["response"]["id"])
    assert kept["status"] == "cancelled"
    if not deployment:
        assert kept["output"][0]["content"][0]["text"].startswith("w w1")


@KINDS
def test_a_failure_before_the_first_content_goes_elsewhere(routes: Routes, deployment: dict[str, object]) -> None:
    """Also from a deployment that speaks Responses to one that speaks chat, and back."""
    other = routes(Behaviour(text="from another"), deployment={} if deployment else NATIVE)
    failing = (Behaviour(status=500), Behaviour(fault="error_event", fault_after=1))
    route = routes(failing, deployment=deployment, fallbacks=[other.name], retries={"attempts": 0})
    assert said(post(routes, route).json()) == "from another"
    streamed = events(post(routes, route, stream=True))
    assert streamed[-1]["type"] == "response.completed"
    assert said(streamed[-1]["response"]) == "from another"


@KINDS
def test_a_failure_in_the_midst_is_told_and_kept(routes: Routes, deployment: dict[str, object]) -> None:
    """An error, and the response that failed with what there was of it; never a truncated success."""
    failing = Behaviour(text="a b c d", fault="rst", fault_after=6)
    told = events(post(routes, routes(failing, deployment=deployment, retries={"attempts": 0}), stream=True))
    assert [event["type"] for event in told[-2:]] == ["error", "response.failed"]
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    failed = told[-1]["response"]
    assert (failed["status"], failed["error"]["code"]) == ("failed", "server_error")
    assert get(routes, f"/v1/responses/{failed['id']}").json()["status"] == "failed"


def test_an_answer_that_is_cut_by_its_limit_is_incomplete(routes: Routes) -> None:
    """With the reason, streamed or not."""
    route = routes(Behaviour(text="a b", finish_reason="length"))
    whole = post(routes, route).json()
    assert (whole["status"], whole["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    last = events(post(routes, route, stream=True))[-1]
    assert (last["type"], last["response"]["status"]) == ("response.incomplete", "incomplete")


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "unsupported_tool"),
        ({"tools": [{"type": "mcp", "server_label": "x"}]}, "tools[0].server_label", "mcp_server_not_registered"),
        ({"input": [{"type": "computer_call_output", "output": {}}]}, "input[0].type", "unsupported_item"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "https://x"}]}]},
            "input[0].content[0].file_url",
            "unsupported_value",
        ),
        ({"prompt": {"id": "p"}}, "prompt", "unsupported_parameter"),
        ({"input": 5}, "input", "invalid_type"),
        ({"input": ["text"]}, "input[0]", "invalid_type"),
        ({"input": []}, "input", "missing_required_parameter"),
        ({"input": [{"role": "user", "content": ["text"]}]}, "input[0]", "invalid_type"),
        ({"input": [{"type": "item_reference", "id": "msg_x"}]}, "input[0].id", "item_not_found"),
        ({"background": True, "store": False}, "store", None),
        (
            {"previous_response_id": "resp_x", "conversation": "conv_x"},
            "previous_response_id",
            "mutually_exclusive_parameters",
        ),
        ({"metadata": {"k": 5}}, "metadata[...]", "invalid_type"),
        ({"temperature": 3}, "temperature", "invalid_type"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(
    routes: Routes, fields: dict[str, Any], param: str, code: str | None
) -> None:
    """Nothing is sent, and the refusal is a record like any other."""
    route = routes(Behaviour())
    answer = post(routes, route, **fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code)
    assert route.asked == [0]
    assert routes.record(answer)["status"] == 400


def test_a_built_in_tool_goes_to_a_deployment_that_has_it(routes: Routes) -> None:
    """One that speaks only chat is passed over."""
    native = routes(Behaviour(text="searched"), deployment=NATIVE)
    route = routes(Behaviour(), fallbacks=[native.name])
    answer = post(routes, route, tools=[{"type": "web_search"}])
    assert said(answer.json()) == "searched"
    assert (route.asked, native.asked) == ([0], [1])
    assert asked(native.places[0])["tools"] == [{"type": "web_search"}]


def test_pictures_files_and_sound_reach_a_chat(routes: Routes) -> None:
    """In its own words."""
    route = routes(Behaviour())
    content = [
        {"type": "input_text", "text": "look"},
        {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "low"},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    ]
    assert post(
        routes, route, input=[{"role": "developer", "content": "x"}, {"role": "user", "content": content}]
    ).is_success
    system, user = asked(route.places[0])["messages"]
    assert system == {"role": "system", "content": "x"}
    assert user["content"] == [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    ]


def test_options_are_a_chats_own(routes: Routes) -> None:
    """Each under the name that it has there; a limit only if the client named one."""
    route = routes(Behaviour())
    options: dict[str, Any] = {
        "reasoning": {"effort": "low"},
        "text": {"verbosity": "low"},
        "tools": [{"type": "function", "name": "f", "strict": True}],
        "tool_choice": {"type": "function", "name": "f"},
        "parallel_tool_calls": False,
        "temperature": 0.5,
        "top_logprobs": 2,
        "include": ["message.output_text.logprobs"],
        "prompt_cache_key": "k",
        "metadata": {"a": "b"},
    }
    assert post(routes, route, max_output_tokens=9, **options).is_success
    body = asked(route.places[0])
    assert body == {
        "model": "scripted",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 9,
        "reasoning_effort": "low",
        "verbosity": "low",
        "tools": [{"type": "function", "function": {"name": "f", "strict": True}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": False,
        "temperature": 0.5,
        "logprobs": True,
        "top_logprobs": 2,
        "prompt_cache_key": "k",
    }
    assert post(routes, route).is_success
    assert "max_tokens" not in asked(route.places[0])


def test_claude_is_told_the_limit_that_is_held_for(routes: Routes) -> None:
    """As in a chat: no answer may cost more than was set aside."""
    route = routes(Behaviour(), deployment={"provider": "anthropic", "max_output_tokens": 321})
    assert post(routes, route).is_success
    assert asked(route.places[0])["max_tokens"] == 321


def test_heartbeats_go_through(routes: Routes) -> None:
    """Comments before the first event; an error after them is still an event."""

    def beaten(behaviour: Behaviour) -> httpx.Response:
        route = routes(behaviour, heartbeat_s=0.05, retries={"attempts": 0})
        bearer = {"authorization": f"Bearer {routes.server.key}"}
        return routes.beaten(
            "/v1/responses", {"model": route.name, "input": "hello", "stream": True}, bearer, *route.places
        )

    assert "event: response.completed\n" in beaten(Behaviour(held_after=0)).text
    answer = beaten(Behaviour(status=500, held_after=-1))
    names = [line for line in answer.text.split("\n") if line.startswith("event: ")]
    assert names == [
        f"event: {name}" for name in ("response.created", "response.in_progress", "error", "response.failed")
    ]


def test_a_hedged_response_is_answered_once(routes: Routes) -> None:
    """By whoever is faster."""
    route = routes(Behaviour(held_after=-1), Behaviour(text="faster"), hedge={"after_s": 0.05, "max_share": 1.0})
    last = events(post(routes, route, stream=True))[-1]
    assert said(last["response"]) == "faster"


def test_unknown_ways_are_told_from_forbidden_ones(routes: Routes) -> None:
    """404, 405 and 403, in OpenAI's shape."""
    server = routes.server
    narrow = server.new_key(routes=["/v1/chat/completions"])
    bearer = {"authorization": f"Bearer {server.key}"}
    assert server.post("/v1/responses/compact", {}).status_code == 405
    assert server.http.get("/v1/responses", headers=bearer).headers["allow"] == "POST"
    assert server.http.put("/v1/conversations/x/items", headers=bearer).status_code == 405
    assert get(routes, "/v1/responses/a/b/c").status_code == 404
    assert get(routes, "/v1/conversations/a/b/c/d").status_code == 404
    for path in ("/v1/responses/x", "/v1/conversations/x"):
        assert get(routes, path, key=narrow).status_code == 403
        assert get(routes, path, key="sk-ps-wrong").status_code == 401
    assert post(routes, "gpt-99", background=True).json()["error"]["code"] == "model_not_found"
    assert post(routes, routes(Behaviour()), key=narrow).status_code == 403
    assert get(routes, "/v1/responses/x/input_items?limit=0").status_code in {400, 404}


def test_what_is_not_in_the_background_is_not_streamed_again(routes: Routes) -> None:
    """Its events were not kept."""
    made = post(routes, routes(Behaviour())).json()
    answer = get(routes, f"/v1/responses/{made['id']}?stream=true")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "stream")


def test_a_custom_tool_is_called_with_a_text(routes: Routes, client: openai.OpenAI) -> None:
    """The definition reaches the chat; its result goes back as a tool's."""
    route = routes(Behaviour(tool_calls=(ToolCall("f", "{}"),)))
    tools: list[Any] = [
        {"type": "custom", "name": "c", "format": {"type": "grammar", "syntax": "lark", "definition": "s: "}}
    ]
    given: list[Any] = [
        {"type": "custom_tool_call", "call_id": "call_9", "name": "c", "input": "x"},
        {"type": "custom_tool_call_output", "call_id": "call_9", "output": "done"},
    ]
    client.responses.create(model=route.name, input=given, tools=tools)
    body = asked(route.places[0])
    assert body["tools"][0]["custom"]["format"]["grammar"] == {"syntax": "lark", "definition": "s: "}
    assert body["messages"] == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_9", "type": "custom", "custom": {"name": "c", "input": "x"}}],
        },
        {"role": "tool", "tool_call_id": "call_9", "content": "done"},
    ]


def said(response: dict[str, Any]) -> str:
    """The text of a response."""
    return "".join(part["text"] for item in response["output"] if item["type"] == "message" for part in item["content"])


def ended(routes: Routes, id_: str, *, key: str | None = None, wait_s: float = 20) -> dict[str, Any]:
    """A response that is there, or will be, once it is over."""
    deadline = time.monotonic() + wait_s
    while True:
        answer = get(routes, f"/v1/responses/{id_}", key=key)
        found: dict[str, Any] = answer.json()
        if answer.status_code == 200 and found["status"] not in {"queued", "in_progress"}:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
