"""Anthropic's SDK, unmodified, against the real process: to a scripted Anthropic a call goes through, to an OpenAI or Gemini as a chat."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import pytest
from pydantic import BaseModel

from gateway.dialects.anthropic_native import UNSIGNED
from tests.fixtures.deployments import Route, Routes
from tests.fixtures.server import Json
from tests.upstream.anthropic_dialect import SIGNATURE
from tests.upstream.behaviour import Behaviour, ToolCall
from tests.upstream.gemini_dialect import SIGNATURE as SEAL

HELLO: list[Any] = [{"role": "user", "content": "hello there"}]
WEATHER: Any = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
PLACES: dict[str, Any] = {
    "native": {"provider": "anthropic"},
    "chat": {"provider": "openai"},
    "gemini": {"provider": "gemini"},
}
EVERYWHERE = pytest.mark.parametrize("place", PLACES)
TWO = pytest.mark.parametrize("place", ["native", "chat"])
OSLO = ToolCall("weather", '{"city":"Oslo"}')
ROME = ToolCall("weather", '{"city":"Rome"}')


class City(BaseModel):
    name: str
    people: int


@pytest.fixture(scope="module")
def client(routes: Routes) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(
        api_key=routes.server.key, base_url=routes.server.url, max_retries=0, timeout=20
    ) as client:
        yield client


def model(routes: Routes, place: str, *behaviours: Behaviour, deployment: Json | None = None, **more: Any) -> Route:
    """A model with one deployment that answers so."""
    return routes(behaviours, deployment=PLACES[place] | (deployment or {}), **more)


def asked(route: Route) -> Any:
    return json.loads(route.places[0].handle.entries()[-1].body)


def post(
    routes: Routes, route: Route | str, *, key: str | None = None, path: str = "", **fields: Any
) -> httpx.Response:
    """One raw request, with the key where Anthropic's clients put it; a stream's answer is read to its end."""
    body = {"model": route if isinstance(route, str) else route.name, "max_tokens": 50, "messages": HELLO, **fields}
    return routes.server.http.post(f"/v1/messages{path}", json=body, headers={"x-api-key": key or routes.server.key})


def beaten(routes: Routes, route: Route) -> httpx.Response:
    """A stream that begins with a heartbeat, as its deployments hold it."""
    body = {"model": route.name, "max_tokens": 50, "messages": HELLO, "stream": True}
    return routes.beaten("/v1/messages", body, {"x-api-key": routes.server.key}, *route.places)


def events(answer: httpx.Response) -> list[Any]:
    return [json.loads(line[6:]) for line in answer.text.split("\n") if line.startswith("data: ")]


def told(answer: httpx.Response) -> tuple[int, str]:
    """Status and type of an error that has everything that Anthropic's have."""
    value = answer.json()
    assert (value["type"], value["request_id"]) == ("error", answer.headers["request-id"])
    assert value["error"]["message"]
    return answer.status_code, value["error"]["type"]


@EVERYWHERE
def test_a_message_comes_back(routes: Routes, client: anthropic.Anthropic, place: str) -> None:
    """Whoever answered: text, reason, usage, and an id that support can ask for."""
    route = model(routes, place, Behaviour(text="Hi.", prompt_tokens=5, completion_tokens=3))
    raw = client.messages.with_raw_response.create(
        model=route.name, max_tokens=50, messages=HELLO, system="Be brief.", metadata={"user_id": "ann"}
    )
    answer = raw.parse()
    assert [block.to_dict() for block in answer.content] == [{"type": "text", "text": "Hi."}]
    assert (answer.stop_reason, answer.usage.input_tokens, answer.usage.output_tokens) == ("end_turn", 5, 3)
    assert answer._request_id == raw.headers["request-id"] == raw.headers["x-request-id"]
    assert raw.headers["x-penstock-deployment"] == route.places[0].id


@EVERYWHERE
def test_a_stream_is_one_of_events(routes: Routes, client: anthropic.Anthropic, place: str) -> None:
    """In any segments; its usage is the record's as well."""
    route = model(routes, place, Behaviour(text="one two three", segment_bytes=7, crlf=True, heartbeats=2))
    plain = client.messages.create(model=route.name, max_tokens=50, messages=HELLO, stream=True)
    assert [event.type for event in plain][-1] == "message_stop"
    with client.messages.stream(model=route.name, max_tokens=50, messages=HELLO) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
        headers = stream.response.headers
    assert text == "one two three"
    assert (final.stop_reason, final.usage.input_tokens, final.usage.output_tokens) == ("end_turn", 2, 3)
    record = routes.record(httpx.Response(200, headers={"x-request-id": headers["request-id"]}))
    assert (record["endpoint"], record["stream"]) == ("messages", True)
    assert (record["prompt_tokens"], record["completion_tokens"], record["usage_source"]) == (2, 3, "provider")


@pytest.mark.parametrize("streams", [False, True])
@EVERYWHERE
def test_tools_go_round(routes: Routes, client: anthropic.Anthropic, place: str, streams: bool) -> None:
    """Two calls, their results, and an answer: what a coding agent does all day."""
    route = model(routes, place, Behaviour(tool_calls=(OSLO, ROME)), Behaviour(text="Cold."))
    options: dict[str, Any] = {"model": route.name, "max_tokens": 50, "tools": [WEATHER]}
    if streams:
        with client.messages.stream(messages=HELLO, **options) as stream:
            message = stream.get_final_message()
    else:
        message = client.messages.create(messages=HELLO, **options)
    calls = [block for block in message.content if block.type == "tool_use"]
    assert ([call.input for call in calls], message.stop_reason) == ([{"city": "Oslo"}, {"city": "Rome"}], "tool_use")
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": "cold"} for call in calls]
    turns: list[Any] = [*HELLO, message.to_param(), {"role": "user", "content": results}]
    answer = client.messages.create(messages=turns, **options)
    assert answer.content[0].to_dict() == {"type": "text", "text": "Cold."}


@pytest.mark.parametrize("streams", [False, True])
def test_thinking_goes_round_with_its_signature(routes: Routes, client: anthropic.Anthropic, streams: bool) -> None:
    """At Anthropic; betas and version are the client's, and marks for the cache stay where they were."""
    route = model(routes, "native", Behaviour(thinking="hm hm", tool_calls=(OSLO,)), Behaviour(text="Cold."))
    system: Any = [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]
    options: dict[str, Any] = {"model": route.name, "max_tokens": 2000, "tools": [WEATHER], "system": system}
    options["thinking"] = {"type": "enabled", "budget_tokens": 1024}
    options["extra_headers"] = {"anthropic-beta": "a-2025-01-01,b-2026-01-01", "anthropic-version": "2099-01-01"}
    if streams:
        with client.messages.stream(messages=HELLO, **options) as stream:
            message = stream.get_final_message()
    else:
        message = client.messages.create(messages=HELLO, **options)
    assert message.content[0].to_dict() == {"type": "thinking", "thinking": "hm hm", "signature": SIGNATURE}
    result: Any = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_0", "content": "cold"}]}
    client.messages.create(messages=[*HELLO, message.to_param(), result], **options)
    entry = route.places[0].handle.entries()[-1]
    assert (entry.header("anthropic-beta"), entry.header("anthropic-version")) == (
        "a-2025-01-01,b-2026-01-01",
        "2099-01-01",
    )
    assert (entry.header("x-api-key"), entry.header("authorization")) == (f"sk-{route.places[0].id}", None)
    body = json.loads(entry.body)
    assert (body["model"], body["system"], body["thinking"]) == ("scripted", system, options["thinking"])
    assert body["messages"][1]["content"][0]["signature"] == SIGNATURE


def test_thoughts_of_another_provider_do_not_reach_anthropic(routes: Routes, client: anthropic.Anthropic) -> None:
    """A conversation may go on at Anthropic that began elsewhere."""
    elsewhere = model(routes, "gemini", Behaviour(thinking="hm", tool_calls=(OSLO,)))
    message = client.messages.create(model=elsewhere.name, max_tokens=50, messages=HELLO, tools=[WEATHER])
    assert message.content[0].to_dict() == {"type": "thinking", "thinking": "hm", "signature": UNSIGNED}
    assert [block.type for block in message.content] == ["thinking", "redacted_thinking", "tool_use"]
    route = model(routes, "native", Behaviour())
    result = {"type": "tool_result", "tool_use_id": message.content[2].to_dict()["id"], "content": "cold"}
    turns: list[Any] = [*HELLO, message.to_param(), {"role": "user", "content": [result]}]
    client.messages.create(model=route.name, max_tokens=50, messages=turns, tools=[WEATHER])
    assert [block["type"] for block in asked(route)["messages"][1]["content"]] == ["tool_use"]


@pytest.mark.parametrize("streams", [False, True])
def test_geminis_seal_goes_back_with_its_call(routes: Routes, client: anthropic.Anthropic, streams: bool) -> None:
    """Through a client that knows nothing of it, and not to a server that has no use for it."""
    route = model(routes, "gemini", Behaviour(tool_calls=(OSLO, ROME)), Behaviour(text="Cold."))
    options: dict[str, Any] = {"model": route.name, "max_tokens": 50, "tools": [WEATHER]}
    if streams:
        with client.messages.stream(messages=HELLO, **options) as stream:
            message = stream.get_final_message()
    else:
        message = client.messages.create(messages=HELLO, **options)
    calls = [block for block in message.content if block.type == "tool_use"]
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": "cold"} for call in calls]
    turns: list[Any] = [*HELLO, message.to_param(), {"role": "user", "content": results}]
    client.messages.create(messages=turns, **options)
    parts = asked(route)["contents"][1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == [SEAL, None]
    plain = model(routes, "chat", Behaviour())
    client.messages.create(messages=turns, **{**options, "model": plain.name})
    assert all(set(call) == {"id", "type", "function"} for call in asked(plain)["messages"][1]["tool_calls"])


@EVERYWHERE
def test_a_schema_gives_an_object(routes: Routes, client: anthropic.Anthropic, place: str) -> None:
    """By the SDK's own parsing."""
    route = model(routes, place, Behaviour(text='{"name":"Oslo","people":700000}'))
    answer = client.messages.parse(model=route.name, max_tokens=50, messages=HELLO, output_format=City)
    assert answer.parsed_output == City(name="Oslo", people=700_000)


@EVERYWHERE
def test_the_betas_client_is_served_as_well(routes: Routes, client: anthropic.Anthropic, place: str) -> None:
    """It calls the same path with a query behind it."""
    route = model(routes, place, Behaviour(text="Hi."))
    answer = client.beta.messages.create(model=route.name, max_tokens=50, messages=HELLO, betas=["a-2025-01-01"])
    assert answer.content[0].to_dict()["text"] == "Hi."


@pytest.mark.parametrize("streams", [False, True])
def test_the_ledger_has_what_anthropic_bills(routes: Routes, streams: bool) -> None:
    """With what was read from the cache and written to it at the prices for it."""
    used = Behaviour(text="Hi.", prompt_tokens=5, completion_tokens=3, cached_tokens=100, cache_write_tokens=10)
    price = {"input": 1000, "output": 2000, "cached_input": 100, "cache_write": 1250}
    route = model(routes, "native", used, deployment={"price": price})
    answer = post(routes, route, stream=streams)
    assert answer.status_code == 200
    record = routes.record(answer)
    assert record["cost_usd"] == 0.0335  # 5 × 1000 + 100 × 100 + 10 × 1250 + 3 × 2000 per million
    assert record["prompt_tokens"] == 115
    if not streams:
        assert answer.headers["x-penstock-cost-usd"] == "0.033500000"
        assert answer.json()["usage"]["cache_read_input_tokens"] == 100


@pytest.mark.parametrize("streams", [False, True])
def test_the_cache_is_told_apart_where_a_chat_answered(routes: Routes, streams: bool) -> None:
    """The bill is the chat's, the message leaves the cached part out of its input."""
    used = Behaviour(text="Hi.", prompt_tokens=100, completion_tokens=3, cached_tokens=60)
    route = model(routes, "chat", used, deployment={"price": {"input": 1000, "output": 2000, "cached_input": 100}})
    answer = post(routes, route, stream=streams)
    usage = events(answer)[-2]["usage"] if streams else answer.json()["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"], usage["output_tokens"]) == (40, 60, 3)
    assert routes.record(answer)["cost_usd"] == 0.052


@pytest.mark.parametrize(
    ("failing", "streams"),
    [
        (Behaviour(status=529), False),
        (Behaviour(status=500), True),
        (Behaviour(fault="error_event", fault_after=1), True),
        (Behaviour(fault="fin", fault_after=1), True),
    ],
)
@pytest.mark.parametrize(("place", "other"), [("native", "chat"), ("chat", "native")])
def test_a_failure_before_the_first_content_goes_elsewhere(
    routes: Routes, place: str, other: str, failing: Behaviour, streams: bool
) -> None:
    """Also to a provider of the other kind: each attempt is made of the client's own request."""
    spare = model(routes, other, Behaviour(text="from another"))
    route = model(routes, place, failing, fallbacks=[spare.name], retries={"attempts": 0})
    answer = post(routes, route, stream=streams)
    assert answer.status_code == 200
    assert "from another" in (answer.text if not streams else _text(answer))
    assert (route.asked, spare.asked) == ([1], [1])


def _text(answer: httpx.Response) -> str:
    return "".join(event["delta"].get("text", "") for event in events(answer) if event["type"] == "content_block_delta")


@TWO
def test_an_error_in_the_midst_of_a_stream_is_an_event(routes: Routes, client: anthropic.Anthropic, place: str) -> None:
    """No `message_stop` follows, and the SDK raises."""
    failing = Behaviour(text="a b c d", fault="error_event", fault_after=4, error_type="overloaded_error")
    route = model(routes, place, failing)
    answer = post(routes, route, stream=True)
    assert answer.status_code == 200
    assert events(answer)[-1]["type"] == "error"
    assert events(answer)[-1]["request_id"] == answer.headers["request-id"]
    assert "event: error\n" in answer.text
    assert "message_stop" not in answer.text
    with (
        pytest.raises(anthropic.APIStatusError),
        client.messages.stream(model=route.name, max_tokens=50, messages=HELLO) as stream,
    ):
        list(stream)


@pytest.mark.parametrize(
    "failing",
    [Behaviour(text="a b", done=False), Behaviour(text="a b c", fault="fin", fault_after=4)],
    ids=["no message_stop", "cut"],
)
def test_a_stream_that_does_not_end_as_it_should_is_a_failure(routes: Routes, failing: Behaviour) -> None:
    """Whatever else it said."""
    answer = post(routes, model(routes, "native", failing), stream=True)
    assert events(answer)[-1]["error"]["type"] == "api_error"
    assert routes.record(answer)["error_code"] == "upstream_error"


@pytest.mark.parametrize(
    ("behaviour", "status", "kind"),
    [
        (Behaviour(status=400, error_message="no"), 400, "invalid_request_error"),
        (Behaviour(status=404, error_message="model: x"), 404, "not_found_error"),
        (Behaviour(status=429, headers=(("retry-after", "7"),)), 429, "rate_limit_error"),
        (Behaviour(status=401), 502, "api_error"),
        (Behaviour(status=500), 502, "api_error"),
        (Behaviour(status=529), 503, "overloaded_error"),
    ],
)
@TWO
def test_a_providers_errors_keep_their_meaning(
    routes: Routes, place: str, behaviour: Behaviour, status: int, kind: str
) -> None:
    """In Anthropic's shape, whoever the provider is."""
    answer = post(routes, model(routes, place, behaviour, retries={"attempts": 0}))
    assert told(answer) == (status, kind)
    assert answer.headers.get("retry-after") == ("7" if status == 429 else None)


def test_the_gateways_own_errors_have_anthropics_shape(routes: Routes, client: anthropic.Anthropic) -> None:
    """From the key to the frame of HTTP."""
    server = routes.server
    route = model(routes, "chat", Behaviour())
    assert told(post(routes, route, key="sk-wrong")) == (401, "authentication_error")
    assert told(server.http.post("/v1/messages", json={})) == (401, "authentication_error")
    assert told(post(routes, "nope")) == (404, "not_found_error")
    assert told(post(routes, route, max_tokens="many")) == (400, "invalid_request_error")
    assert told(post(routes, route, mcp_servers=[{}])) == (400, "invalid_request_error")
    assert told(post(routes, route, speed="fast")) == (400, "invalid_request_error")
    assert told(server.http.get("/v1/messages")) == (405, "invalid_request_error")
    assert told(post(routes, route, path="/batches")) == (404, "not_found_error")
    assert told(post(routes, route, key=server.new_key(models=["other"]))) == (403, "permission_error")
    assert told(post(routes, route, key=server.new_key(routes=["/v1/embeddings"]))) == (403, "permission_error")
    assert route.asked == [0]
    with pytest.raises(anthropic.BadRequestError) as raised:
        client.messages.create(
            model=route.name, max_tokens=50, messages=HELLO, tools=[{"type": "bash_20250124", "name": "bash"}]
        )
    assert "tools.0.type" in raised.value.message


def test_a_body_over_the_limit_is_told_in_the_same_shape(routes: Routes) -> None:
    """Before any handler has seen it."""
    with routes.server.connect() as raw:
        raw.sendall(b"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n")
        head, _, body = raw.recv(65_536).partition(b"\r\n\r\n")
    value = json.loads(body)
    assert head.startswith(b"HTTP/1.1 413 ")
    assert value["error"]["type"] == "request_too_large"
    assert f"\r\nrequest-id: {value['request_id']}\r\n".encode() in head


@TWO
def test_budgets_and_limits_hold_here_as_well(routes: Routes, place: str) -> None:
    """A budget's end is not to be retried; a limit's is, and its headers have Anthropic's names."""
    route = model(routes, place, Behaviour(completion_tokens=3))
    poor = routes.server.new_key(budget={"limit_usd": 0.001, "period": "total"})
    refused = post(routes, route, key=poor)
    assert told(refused) == (429, "rate_limit_error")
    assert refused.headers["x-should-retry"] == "false"
    limited = routes.server.new_key(limits={"rpm": 2})
    first = post(routes, route, key=limited)
    assert first.headers["anthropic-ratelimit-requests-limit"] == "2"
    assert first.headers["anthropic-ratelimit-requests-reset"].endswith("Z")
    counted = post(routes, route, key=limited, path="/count_tokens")
    assert counted.status_code == 200
    assert told(post(routes, route, key=limited, path="/count_tokens")) == (429, "rate_limit_error")
    assert told(post(routes, route, key=limited)) == (429, "rate_limit_error")


def test_what_a_chat_cannot_express_goes_to_where_it_need_not(routes: Routes) -> None:
    """A deployment that speaks the client's API takes what another one would refuse."""
    native = model(routes, "native", Behaviour(text="from Claude"))
    route = model(routes, "chat", Behaviour(), fallbacks=[native.name])
    document = {"type": "document", "source": {"type": "url", "url": "https://x.example/y.pdf"}}
    answer = post(routes, route, messages=[{"role": "user", "content": [document]}])
    assert answer.json()["content"][0]["text"] == "from Claude"
    assert (route.asked, native.asked) == ([0], [1])


@TWO
def test_a_stream_that_has_to_wait_beats(routes: Routes, client: anthropic.Anthropic, place: str) -> None:
    """With comments, which are none of the API's events; an error behind them is one of them."""
    route = model(routes, place, Behaviour(text="a b", held_after=0), heartbeat_s=0.05)
    answer = beaten(routes, route)
    assert answer.text.startswith(": penstock heartbeat\n\n")
    assert answer.headers["request-id"] == answer.headers["x-request-id"]
    route.places[0].handle.becomes(Behaviour(text="a b", first_token_after_s=0.25))
    with client.messages.stream(model=route.name, max_tokens=50, messages=HELLO) as stream:
        assert "".join(stream.text_stream) == "a b"
    failing = Behaviour(status=500, held_after=-1)
    failed = beaten(routes, model(routes, place, failing, heartbeat_s=0.05, retries={"attempts": 0}))
    assert (failed.status_code, events(failed)[-1]["error"]["type"]) == (200, "api_error")


@TWO
def test_whoever_is_faster_answers(routes: Routes, place: str) -> None:
    """A second attempt beside one that is slow to begin, each with a translation of its own."""
    slow, fast = Behaviour(text="slow", held_after=-1), Behaviour(text="fast")
    route = routes(slow, fast, deployment=PLACES[place], hedge={"after_s": 0.05, "max_share": 1})
    answer = post(routes, route, stream=True)
    assert _text(answer) == "fast"
    assert answer.headers["x-penstock-deployment"] == route.places[1].id


def test_azures_dated_api_is_asked_at_its_place(routes: Routes) -> None:
    """The name of the deployment and the version are in the path of a chat."""
    where: Json = {"provider": "azure", "api_version": "2024-10-21", "model": "mine"}
    route = routes(Behaviour(text="Hi."), deployment=where)
    assert post(routes, route).json()["content"][0]["text"] == "Hi."
    entry = route.places[0].handle.entries()[-1]
    assert entry.path.endswith("/openai/deployments/mine/chat/completions?api-version=2024-10-21")
    assert entry.header("api-key") == f"sk-{route.places[0].id}"


def test_a_shadow_gets_the_request_without_whose_it_is(routes: Routes) -> None:
    """And in its own translation."""
    other = model(routes, "chat", Behaviour())
    route = model(routes, "native", Behaviour(), shadow={"model": other.name, "share": 1})
    assert post(routes, route, metadata={"user_id": "ann"}).status_code == 200
    entry = other.places[0].handle.ended()
    assert entry.path.endswith("/chat/completions")
    assert "ann" not in entry.body


def test_a_provider_that_cannot_count_answers_all_the_same(routes: Routes) -> None:
    """What goes wrong with counts says nothing about messages: no breaker opens for them."""
    failing = [Behaviour(status=500)] * 8
    route = model(routes, "native", *failing, Behaviour(text="Hi."), retries={"attempts": 0})
    for _ in failing:
        assert post(routes, route, path="/count_tokens").status_code == 200
    assert post(routes, route).status_code == 200


def test_a_count_is_the_providers_own_where_it_counts(routes: Routes, client: anthropic.Anthropic) -> None:
    """Nobody pays for it, and the record says so."""
    route = model(routes, "native", Behaviour(), deployment={"price": {"input": 1000, "output": 1, "per_request": 1}})
    raw = client.messages.with_raw_response.count_tokens(model=route.name, messages=HELLO, tools=[WEATHER])
    assert raw.parse().input_tokens == 2
    entry = route.places[0].handle.entries()[-1]
    assert entry.path.endswith("/v1/messages/count_tokens")
    assert json.loads(entry.body) == {"model": "scripted", "messages": HELLO, "tools": [WEATHER]}
    record = routes.record(httpx.Response(200, headers={"x-request-id": raw.headers["request-id"]}))
    assert (record["endpoint"], record["cost_usd"], record["prompt_tokens"]) == ("count_tokens", 0, 0)


@pytest.mark.parametrize(
    ("place", "behaviour"), [("chat", Behaviour()), ("gemini", Behaviour()), ("native", Behaviour(status=500))]
)
def test_a_count_is_made_here_where_nobody_else_does(
    routes: Routes, client: anthropic.Anthropic, place: str, behaviour: Behaviour
) -> None:
    """By a method that the answer names; nothing is asked of a provider that does not count."""
    route = model(routes, place, behaviour, retries={"attempts": 0})
    raw = client.messages.with_raw_response.count_tokens(model=route.name, messages=HELLO, system="x" * 4000)
    assert raw.headers["x-penstock-counted"] == "estimate"
    assert 1000 < raw.parse().input_tokens < 1050
    record = routes.record(httpx.Response(200, headers={"x-request-id": raw.headers["request-id"]}))
    assert (record["status"], record["cost_usd"]) == (200, 0)
    assert route.asked == [int(place == "native")]


def test_a_count_is_exact_in_a_vocabulary_that_is_here(routes: Routes, client: anthropic.Anthropic) -> None:
    """OpenAI's tokenizer, for a model of OpenAI's."""
    route = model(routes, "chat", Behaviour(), deployment={"model": "gpt-4"})
    raw = client.messages.with_raw_response.count_tokens(model=route.name, messages=HELLO)
    assert raw.headers["x-penstock-counted"] == "tiktoken"
    assert raw.parse().input_tokens == 2 + 4 + 3  # the words, their frame, and what opens the answer


def test_a_client_that_leaves_stops_claude_and_pays_for_what_came(routes: Routes) -> None:
    """The opening's count of one token is not taken for the bill."""
    route = model(routes, "native", Behaviour(chunks=500, gap_s=0.02, prompt_tokens=11))
    body = {"model": route.name, "max_tokens": 600, "messages": HELLO, "stream": True}
    headers = {"x-api-key": routes.server.key}
    with routes.server.http.stream("POST", "/v1/messages", json=body, headers=headers) as answer:
        seen = answer.iter_lines()
        for _ in range(48):  # three lines an event: the opening, the block's, fourteen words
            next(seen)
    assert route.places[0].handle.ended().outcome == "client_left"
    record = routes.record(answer)
    assert record["prompt_tokens"] == 11
    assert record["completion_tokens"] >= 14


def test_models_are_listed_and_looked_up(routes: Routes, client: anthropic.Anthropic) -> None:
    """In Anthropic's shape and pages for who speaks its API, with what we know beside it."""
    for _ in range(3):
        model(routes, "chat", Behaviour())
    names = [one.id for one in client.models.list(limit=1000)]
    assert names == sorted(names)
    paged = [one.id for one in client.models.list(limit=2)]
    assert paged == names
    before = client.models.list(limit=2, before_id=names[-1])
    assert ([one.id for one in before.data], before.has_more) == (names[-3:-1], len(names) > 3)
    found = client.models.retrieve(names[0])
    assert (found.id, found.display_name, found.type, found.created_at.tzinfo is not None) == (
        names[0],
        names[0],
        "model",
        True,
    )
    for query in ({"limit": 0}, {"limit": "9" * 5000}, {"after_id": "nobody"}, {"page": 2}):
        headers = {"anthropic-version": "2023-06-01", "x-api-key": routes.server.key}
        assert routes.server.http.get("/v1/models", params=query, headers=headers).status_code == 400
