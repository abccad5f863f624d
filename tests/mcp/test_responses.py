"""Tools of registered servers in `/v1/responses`: called here, told as OpenAI tells them, paid like everything else."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.fixtures.upstream import ScriptHandle, Upstream
from tests.mcp.conftest import Gateway
from tests.upstream.behaviour import Behaviour, ToolCall

REMOTE: Any = {"type": "mcp", "server_label": "remote", "require_approval": "never"}
KINDS = pytest.mark.parametrize("native", [False, True], ids=["chat", "native"])
PRICE = {"input": 1000, "output": 2000}


class Models:
    """Models in the gateway of these tests, each a script of its own."""

    def __init__(self, gateway: Gateway, upstream: Upstream) -> None:
        self.gateway = gateway
        self._upstream = upstream
        self._numbers = 0

    def __call__(self, *behaviours: Behaviour, native: bool = False) -> tuple[str, ScriptHandle]:
        self._numbers += 1
        handle = self._upstream.script(*behaviours)
        name = f"agent{self._numbers}"
        where = {"id": f"{name}-a", "base_url": handle.base_url, "model": "x", "price": PRICE, "responses": native}
        made = self.gateway.server.admin.post("/models", json={"name": name, "deployments": [where]})
        assert made.status_code == 201, made.text
        return name, handle


@pytest.fixture(scope="module")
def agents(gateway: Gateway, upstream: Upstream) -> Models:
    return Models(gateway, upstream)


@pytest.fixture(scope="module")
def key(gateway: Gateway) -> str:
    return gateway.key("remote", "local", name="agents")


@pytest.fixture(scope="module")
def client(gateway: Gateway, key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=key, base_url=gateway.server.base_url, max_retries=0, timeout=30) as client:
        yield client


def calling(*calls: tuple[str, object]) -> Behaviour:
    made = tuple(ToolCall(name, json.dumps(arguments)) for name, arguments in calls)
    return Behaviour(text="", tool_calls=made, prompt_tokens=10, completion_tokens=5)


SAYS = Behaviour(text="it is 42", prompt_tokens=20, completion_tokens=3)
ADD = calling(("remote__add", {"a": 2, "b": 40}))


def heard(handle: ScriptHandle, number: int) -> Any:
    """What the upstream was asked in its request of that number."""
    return json.loads(handle.entries()[number].body)


@KINDS
def test_a_model_calls_a_tool_and_hears_what_came_of_it(agents: Models, client: openai.OpenAI, native: bool) -> None:
    """Two turns of the model and one call are one response, with the sum of what they used."""
    model, handle = agents(ADD, SAYS, native=native)
    response = client.responses.create(model=model, input="2 + 40?", tools=[REMOTE])
    listed, call, message = response.output
    assert (listed.type, call.type, message.type) == ("mcp_list_tools", "mcp_call", "message")
    assert listed.type == "mcp_list_tools"
    assert "add" in [tool.name for tool in listed.tools]
    assert call.type == "mcp_call"
    assert (call.server_label, call.name, json.loads(call.arguments)) == ("remote", "add", {"a": 2, "b": 40})
    assert (call.output, call.error, call.status) == ("42", None, "completed")
    assert response.output_text == "it is 42"
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (30, 8)
    assert response.status == "completed"
    assert len({item.id for item in response.output}) == 3
    assert len(handle.entries()) == 2
    assert client.responses.retrieve(response.id).output == response.output


@KINDS
def test_a_stream_tells_of_the_call_as_it_happens(agents: Models, client: openai.OpenAI, native: bool) -> None:
    """Every event that OpenAI has for it, numbered without a gap, at the place that the item has in the end."""
    model, _ = agents(ADD, SAYS, native=native)
    with client.responses.stream(model=model, input="2 + 40?", tools=[REMOTE]) as stream:
        events = list(stream)
        final = stream.get_final_response()
    kinds = [event.type for event in events]
    wanted = ["response.created", "response.in_progress"]
    wanted += ["response.output_item.added", "response.mcp_list_tools.in_progress"]
    wanted += ["response.mcp_list_tools.completed", "response.output_item.done"]
    wanted += ["response.output_item.added", "response.mcp_call.in_progress", "response.mcp_call_arguments.delta"]
    wanted += ["response.mcp_call_arguments.done", "response.mcp_call.completed", "response.output_item.done"]
    plain = [kind for at, kind in enumerate(kinds) if at == 0 or kind != kinds[at - 1] or "delta" not in kind]
    assert plain[: len(wanted)] == wanted
    assert kinds[-1] == "response.completed"
    assert [event.sequence_number for event in events if hasattr(event, "sequence_number")] == list(range(len(kinds)))
    for event in events:
        if event.type == "response.output_item.done":
            assert _id(final.output[event.output_index]) == _id(event.item)
    assert final.output_text == "it is 42"


@KINDS
def test_the_next_request_goes_on_from_the_calls_before(agents: Models, client: openai.OpenAI, native: bool) -> None:
    """A model hears its calls as functions, whatever stands in the history, also without the tools."""
    model, handle = agents(ADD, SAYS, Behaviour(text="again"), native=native)
    first = client.responses.create(model=model, input="2 + 40?", tools=[REMOTE])
    second = client.responses.create(model=model, input="and?", previous_response_id=first.id)
    assert second.output_text == "again"
    asked = heard(handle, 2)
    if native:
        kinds = [item["type"] for item in asked["input"]]
        assert kinds == ["message", "function_call", "function_call_output", "message", "message"]
        assert asked["input"][2]["output"] == "42"
    else:
        assert [message["role"] for message in asked["messages"]] == ["user", "assistant", "tool", "assistant", "user"]
        assert asked["messages"][2]["content"] == "42"
        assert asked["messages"][1]["tool_calls"][0]["function"]["name"] == "remote__add"


def test_unless_it_says_otherwise_a_person_is_asked_first(agents: Models, client: openai.OpenAI) -> None:
    """The call waits in the response for the answer, and is made when that is yes."""
    tools: Any = [{"type": "mcp", "server_label": "remote"}]
    model, handle = agents(ADD, SAYS)
    first = client.responses.create(model=model, input="2 + 40?", tools=tools)
    asked = first.output[-1]
    assert asked.type == "mcp_approval_request"
    assert (asked.name, json.loads(asked.arguments), first.status) == ("add", {"a": 2, "b": 40}, "completed")
    answer: Any = [{"type": "mcp_approval_response", "approval_request_id": asked.id, "approve": True}]
    second = client.responses.create(model=model, input=answer, tools=tools, previous_response_id=first.id)
    call = second.output[0]
    assert call.type == "mcp_call"
    assert (call.output, call.approval_request_id, second.output_text) == ("42", asked.id, "it is 42")
    assert heard(handle, 1)["messages"][-1] == {
        "role": "tool",
        "tool_call_id": heard(handle, 1)["messages"][-2]["tool_calls"][0]["id"],
        "content": "42",
    }


def test_a_call_that_was_not_approved_is_not_made(agents: Models, client: openai.OpenAI) -> None:
    """The model hears that, with the reason."""
    tools: Any = [{"type": "mcp", "server_label": "remote", "require_approval": {"never": {"tool_names": ["who"]}}}]
    model, handle = agents(ADD, SAYS)
    first = client.responses.create(model=model, input="2 + 40?", tools=tools)
    id_ = first.output[-1].id
    answer: Any = [
        {"type": "mcp_approval_response", "approval_request_id": id_, "approve": False, "reason": "too dear"}
    ]
    second = client.responses.create(model=model, input=answer, tools=tools, previous_response_id=first.id)
    assert [item.type for item in second.output] == ["message"]
    assert heard(handle, 1)["messages"][-1]["content"] == "The user did not approve this call: too dear"
    forged: Any = [{"type": "mcp_approval_response", "approval_request_id": "mcpr_x", "approve": True}]
    with pytest.raises(openai.BadRequestError, match="no such request"):
        client.responses.create(model=model, input=forged, tools=tools)


def test_what_goes_wrong_with_a_call_is_the_models_to_hear(agents: Models, client: openai.OpenAI) -> None:
    """A tool that fails, arguments that are none, a tool that is not there any more: each with its kind of error."""
    model, handle = agents(calling(("remote__broken", {}), ("remote__add", [1]), ("remote__add", {"a": "x"})), SAYS)
    response = client.responses.create(model=model, input="go", tools=[REMOTE])
    calls: Any = [item for item in response.output if item.type == "mcp_call"]
    assert [call.status for call in calls] == ["failed"] * 3
    assert [call.error.type for call in calls] == [
        "mcp_tool_execution_error",
        "mcp_protocol_error",
        "mcp_tool_execution_error",
    ]
    assert response.output_text == "it is 42"
    told = [message["content"] for message in heard(handle, 1)["messages"] if message["role"] == "tool"]
    assert len(told) == 3
    assert all(one.startswith("Error: ") for one in told)


def test_functions_of_the_client_stay_the_clients(agents: Models, client: openai.OpenAI) -> None:
    """What is called here is called; then the client has its turn."""
    model, handle = agents(calling(("remote__add", {"a": 1, "b": 2}), ("weather", {"city": "x"})), SAYS)
    function: Any = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}
    first = client.responses.create(model=model, input="go", tools=[REMOTE, function])
    kinds = [item.type for item in first.output]
    assert kinds == ["mcp_list_tools", "mcp_call", "function_call"]
    call: Any = first.output[2]
    output: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}]
    second = client.responses.create(model=model, input=output, tools=[REMOTE, function], previous_response_id=first.id)
    assert second.output_text == "it is 42"
    told = [message["content"] for message in heard(handle, 1)["messages"] if message["role"] == "tool"]
    assert sorted(told) == ["3", "sunny"]


def test_a_model_that_only_calls_comes_to_an_end(agents: Models, client: openai.OpenAI) -> None:
    """After enough turns, or as many calls as the request allows, it may only speak."""
    model, handle = agents(ADD)
    response = client.responses.create(model=model, input="go", tools=[REMOTE], max_tool_calls=2)
    made: Any = [item for item in response.output if item.type == "mcp_call"]
    assert [call.status for call in made][:2] == ["completed", "completed"]
    assert {call.status for call in made[2:]} <= {"failed"}
    assert heard(handle, 2)["tool_choice"] == "none"
    assert len(handle.entries()) <= 11


@pytest.mark.parametrize(
    ("tool", "param", "code"),
    [
        (
            {"server_label": "x", "server_url": "https://evil.example/mcp"},
            "tools[0].server_url",
            "mcp_server_not_registered",
        ),
        ({"server_label": "nobody"}, "tools[0].server_label", "mcp_server_not_registered"),
        ({"server_label": "remote", "authorization": "Bearer x"}, "tools[0].authorization", "unsupported_parameter"),
        ({"server_label": "remote", "headers": {"x": "y"}}, "tools[0].headers", "unsupported_parameter"),
        (
            {"server_label": "x", "connector_id": "connector_gmail"},
            "tools[0].connector_id",
            "unsupported_parameter",
        ),
        ({"server_label": 5}, "tools[0]", "invalid_type"),
        ({}, "tools[0]", "invalid_type"),
    ],
    ids=str,
)
def test_only_what_is_registered_is_called(
    agents: Models, gateway: Gateway, key: str, tool: dict[str, object], param: str, code: str
) -> None:
    """An address that an admin has not registered is refused by name; no request leaves for it, nor for a model."""
    model, handle = agents(SAYS)
    answer = gateway.server.post(
        "/v1/responses", {"model": model, "input": "x", "tools": [{"type": "mcp", **tool}]}, key=key
    )
    assert (answer.status_code, answer.json()["error"]["param"], answer.json()["error"]["code"]) == (400, param, code)
    assert handle.entries() == []


def test_a_server_is_one_however_its_kind_is_spelled(agents: Models, gateway: Gateway, key: str) -> None:
    """JSON has escapes; a deployment that calls servers itself would read them."""
    model, handle = agents(SAYS, native=True)
    tool = b'{"type": "m\\u0063p", "server_label": "x", "server_url": "https://evil.example/mcp"}'
    body = b'{"model": "%b", "input": "x", "tools": [%b]}' % (model.encode(), tool)
    answer = gateway.server.post("/v1/responses", body, key=key)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "mcp_server_not_registered")
    assert handle.entries() == []


def test_a_model_that_calls_by_no_name_is_an_upstream_s_fault(agents: Models, gateway: Gateway, key: str) -> None:
    """And no error of ours."""
    output = [{"type": "function_call", "name": 5}]
    answer = {"id": "r", "object": "response", "status": "completed", "output": output, "usage": None}
    model, _ = agents(Behaviour(body=json.dumps(answer)), native=True)
    told = gateway.server.post("/v1/responses", {"model": model, "input": "x", "tools": [REMOTE]}, key=key)
    assert (told.status_code, told.json()["error"]["code"]) == (502, "upstream_error")
    assert "an item that is none" in told.json()["error"]["message"]


def test_a_key_without_the_right_cannot_have_a_tool_called(agents: Models, gateway: Gateway) -> None:
    """The same words as for a server that is not there."""
    model, _ = agents(SAYS)
    answers = [
        gateway.server.post(
            "/v1/responses", {"model": model, "input": "x", "tools": [{**REMOTE, "server_label": label}]}
        )
        for label in ("remote", "nobody")
    ]
    messages = [answer.json()["error"]["message"].replace("remote", "nobody") for answer in answers]
    assert messages[0] == messages[1]
    assert [answer.status_code for answer in answers] == [400, 400]


def test_only_the_tools_that_are_allowed_are_offered(agents: Models, client: openai.OpenAI, remote: str) -> None:
    """By name; the server by its address."""
    model, handle = agents(SAYS)
    tool: Any = {"type": "mcp", "server_label": "mine", "server_url": remote, "allowed_tools": ["add", "who"]}
    response = client.responses.create(model=model, input="x", tools=[tool])
    listed: Any = response.output[0]
    assert [one.name for one in listed.tools] == ["add", "who"]
    assert [one["function"]["name"] for one in heard(handle, 0)["tools"]] == ["mine__add", "mine__who"]


def test_each_turn_and_each_call_is_settled_by_itself(agents: Models, gateway: Gateway) -> None:
    """Two calls of the model and one of a tool: three entries, and their sum in the answer's header."""
    secret = gateway.key("remote", name="three entries")
    model, _ = agents(ADD, SAYS)
    answer = gateway.server.post("/v1/responses", {"model": model, "input": "x", "tools": [REMOTE]}, key=secret)
    assert answer.status_code == 200, answer.text
    (call,) = gateway.records("three entries")
    assert (call["model"], call["provider"], call["cost_usd"], call["usage_source"]) == (
        "mcp/remote/add",
        "mcp/remote",
        0.002,
        "counted",
    )
    turns = 10 * 0.001 + 5 * 0.002 + 20 * 0.001 + 3 * 0.002
    assert float(answer.headers["x-penstock-cost-usd"]) == pytest.approx(turns + 0.002)
    spend = gateway.server.admin.get("/spend", params={"group_by": "model", "key_id": call["key_id"]}).json()["data"]
    assert {row["group"]: row["requests"] for row in spend} == {model: 2, "mcp/remote/add": 1}


def test_a_response_in_the_background_calls_tools_too(agents: Models, client: openai.OpenAI) -> None:
    """Nobody waits, and everything is there in the end, its events too."""
    model, _ = agents(ADD, SAYS)
    begun = client.responses.create(model=model, input="x", tools=[REMOTE], background=True)
    with client.responses.retrieve(begun.id, stream=True) as stream:
        kinds = [event.type for event in stream]
    assert kinds[:2] == ["response.created", "response.queued"]
    assert "response.mcp_call.completed" in kinds
    assert kinds[-1] == "response.completed"
    assert client.responses.retrieve(begun.id).output_text == "it is 42"


def test_a_client_that_leaves_ends_the_call_and_keeps_what_there_is(
    agents: Models, gateway: Gateway, tmp_path: Path
) -> None:
    """The tool's server is told, the call is settled, and the response is kept as cancelled."""
    secret = gateway.key("remote", name="leaver")
    mark = tmp_path / "mark"
    model, _ = agents(calling(("remote__slow", {"seconds": 60, "mark": str(mark)})), SAYS)
    body = {"model": model, "input": "x", "tools": [REMOTE], "stream": True}
    headers = {"authorization": f"Bearer {secret}"}
    id_ = ""
    with gateway.server.http.stream("POST", "/v1/responses", json=body, headers=headers) as answer:
        lines = answer.iter_lines()  # kept: with the iterator the client would leave
        for line in lines:
            if '"id":"resp_' in line and not id_:
                id_ = line.partition('"id":"')[2].partition('"')[0]
            if line == "event: response.mcp_call_arguments.done":
                break
        deadline = time.monotonic() + 20
        while not mark.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
    (call,) = gateway.records("leaver")
    assert (call["cost_usd"], call["usage_source"]) == (0.01, "estimated")
    deadline = time.monotonic() + 20
    while (found := gateway.server.http.get(f"/v1/responses/{id_}", headers=headers)).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    kept = found.json()
    assert kept["status"] == "cancelled"
    assert [(item["type"], item.get("status")) for item in kept["output"]][1:] == [("mcp_call", "incomplete")]


def test_words_about_it_are_no_use_of_it(agents: Models, gateway: Gateway, key: str) -> None:
    """A text that has the name of a tool in it is a text."""
    model, handle = agents(SAYS, native=True)
    answer = gateway.server.post("/v1/responses", {"model": model, "input": 'what is "mcp_call"?'}, key=key)
    assert answer.json()["output"][0]["content"][0]["text"] == "it is 42"
    assert "mcp_call" in heard(handle, 0)["input"][0]["content"][0]["text"]


def test_a_turn_that_fails_fails_the_response(agents: Models, gateway: Gateway, key: str) -> None:
    """Before the client has seen anything as a status, in a stream as its last event; what was called stays in it."""
    model, _ = agents(ADD, Behaviour(status=500))
    body = {"model": model, "input": "x", "tools": [REMOTE]}
    whole = gateway.server.post("/v1/responses", body, key=key)
    assert whole.status_code == 502
    model, _ = agents(ADD, Behaviour(status=500))
    streamed: httpx.Response = gateway.server.post("/v1/responses", {**body, "model": model, "stream": True}, key=key)
    last = json.loads(streamed.text.strip().rpartition("data: ")[2])
    assert last["type"] == "response.failed"
    assert [item["type"] for item in last["response"]["output"]] == ["mcp_list_tools", "mcp_call"]


def _id(item: Any) -> Any:
    return item.id
