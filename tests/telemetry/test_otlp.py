"""OTLP from a real server to a collector: traces, metrics and logs by GenAI's conventions, and nothing in them that is content or a key."""

import json
import secrets

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests.fixtures.collector import attributes
from tests.fixtures.server import ADMIN_KEY
from tests.telemetry.watched import Watched
from tests.upstream.behaviour import Behaviour

UPSTREAM_KEY = "sk-upstream-canary-5d1f0c"
GOOD = Behaviour(prompt_tokens=7, completion_tokens=3)


def test_a_request_is_one_trace_from_client_to_upstream(watched: Watched) -> None:
    """The server span hangs below the client's, the attempt's below that, and the upstream is told the attempt's."""
    route = watched.routes(GOOD, cache=None)
    status, trace = watched.ask(route.name)
    assert status == 200
    kinds = watched.spans(trace, 2)
    (request,), (attempt,) = kinds["server"], kinds["client"]
    assert request.parent_span_id.hex() == "ab" * 8
    assert attempt.parent_span_id == request.span_id
    told = route.places[0].handle.entries()[0].header("traceparent")
    assert told == f"00-{trace}-{attempt.span_id.hex()}-01"
    assert request.start_time_unix_nano <= attempt.start_time_unix_nano < attempt.end_time_unix_nano
    assert attempt.end_time_unix_nano <= request.end_time_unix_nano


def test_an_attempt_has_the_attributes_of_the_conventions(watched: Watched) -> None:
    """Operation, provider, model, address and usage, where a backend for GenAI looks for them."""
    route = watched.routes(GOOD, cache=None)
    _, trace = watched.ask(route.name, temperature=0.5, max_completion_tokens=9)
    (attempt,) = watched.spans(trace, 2)["client"]
    told = attributes(attempt.attributes)
    assert (told["gen_ai.request.temperature"], told["gen_ai.request.max_tokens"]) == (0.5, 9)
    assert told["gen_ai.response.finish_reasons"] == ["stop"]
    assert told["gen_ai.response.id"]
    assert told["gen_ai.response.model"]
    assert attempt.name == f"chat {told['gen_ai.request.model']}"
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.provider.name"] == "openai"
    assert told["gen_ai.usage.input_tokens"] == 7
    assert told["gen_ai.usage.output_tokens"] == 3
    assert told["server.address"] == "127.0.0.1"
    assert told["server.port"] > 0
    assert told["penstock.cost_usd"] > 0
    (resource, *_) = watched.collector.resources()
    about = attributes(resource.attributes)
    assert about["service.name"] == "gate"
    assert about["deployment.environment.name"] == "tests"
    assert about["service.instance.id"]
    assert watched.collector.received[0].headers["x-tenant"] == "tests here"


def test_a_stream_tells_when_it_began_to_speak(watched: Watched) -> None:
    """`time_to_first_chunk` on the span, and the two clocks of tokens in the metrics."""
    route = watched.routes(Behaviour(chunks=4, gap_s=0.01, prompt_tokens=7, completion_tokens=4), cache=None)
    _, trace = watched.ask(route.name, stream=True)
    (attempt,) = watched.spans(trace, 2)["client"]
    told = attributes(attempt.attributes)
    assert told["gen_ai.request.stream"] is True
    assert told["gen_ai.response.model"]
    assert (
        0
        < told["gen_ai.response.time_to_first_chunk"]
        < (attempt.end_time_unix_nano - attempt.start_time_unix_nano) / 1e9
    )
    names = {
        "gen_ai.client.operation.duration",
        "gen_ai.client.token.usage",
        "gen_ai.client.operation.time_to_first_chunk",
        "gen_ai.client.operation.time_per_output_chunk",
        "gen_ai.server.request.duration",
        "gen_ai.server.time_to_first_token",
        "gen_ai.server.time_per_output_token",
        "penstock.cost",
        "penstock.overhead",
    }
    metrics = watched.collector.wait(lambda one: names <= (found := one.metrics()).keys() and found)
    points = metrics["gen_ai.client.token.usage"].histogram.data_points
    kinds = {attributes(point.attributes)["gen_ai.token.type"] for point in points}
    assert kinds == {"input", "output"}
    assert list(points[0].explicit_bounds)[:3] == [1, 4, 16]
    assert metrics["gen_ai.client.operation.duration"].unit == "s"
    own = watched.collector.wait(
        lambda one: [
            point
            for point in one.metrics()["gen_ai.server.time_to_first_token"].histogram.data_points
            if attributes(point.attributes)["gen_ai.request.model"] == route.name
        ]
    )
    assert [point.count for point in own] == [1]
    assert sum(own[0].bucket_counts) == 1


def test_every_attempt_is_a_span(watched: Watched) -> None:
    """One that failed is an error of its kind; usage stands at the one that answered."""
    route = watched.routes(Behaviour(status=500), GOOD, cache=None, strategy="order")
    status, trace = watched.ask(route.name)
    kinds = watched.spans(trace, 3)
    (request,), attempts = kinds["server"], kinds["client"]
    assert (status, len(attempts)) == (200, 2)
    assert [attempt.status.code for attempt in attempts] == [Status.STATUS_CODE_ERROR, Status.STATUS_CODE_UNSET]
    failed, answered = (attributes(attempt.attributes) for attempt in attempts)
    assert failed["error.type"]
    assert "gen_ai.usage.input_tokens" not in failed
    assert answered["gen_ai.usage.input_tokens"] == 7
    assert [told["penstock.attempt"] for told in (failed, answered)] == [1, 2]
    assert request.status.code == Status.STATUS_CODE_UNSET
    parents = [entry.header("traceparent") for place in route.places for entry in place.handle.entries()]
    assert parents == [f"00-{trace}-{attempt.span_id.hex()}-01" for attempt in attempts]


def test_an_error_is_told_as_one(watched: Watched) -> None:
    """Of the request and its attempt, and its log record is one of an error."""
    route = watched.routes(Behaviour(status=500), cache=None, retries={"attempts": 0})
    status, trace = watched.ask(route.name)
    kinds = watched.spans(trace, 2)
    assert status >= 500
    assert kinds["server"][0].status.code == Status.STATUS_CODE_ERROR
    assert attributes(kinds["server"][0].attributes)["http.response.status_code"] == status
    (record,) = watched.collector.wait(lambda one: [each for each in one.logs() if each.trace_id.hex() == trace])
    assert record.severity_text == "ERROR"
    assert record.span_id == kinds["server"][0].span_id


def test_a_hit_of_the_cache_is_a_stage(watched: Watched) -> None:
    """Its trace has no call to a model, and says why."""
    route = watched.routes(GOOD)
    _, missed = watched.ask(route.name, "the same")
    _, hit = watched.ask(route.name, "the same")
    (look,) = watched.spans(missed, 3)["internal"]
    assert (look.name, attributes(look.attributes)["penstock.outcome"]) == ("cache", "miss")
    kinds = watched.spans(hit, 2)
    assert "client" not in kinds
    assert attributes(kinds["internal"][0].attributes)["penstock.outcome"] == "hit"


def test_who_is_not_sampled_is_carried_on_and_not_told(watched: Watched) -> None:
    """The decision of whoever began the trace holds here, and upstream."""
    route = watched.routes(GOOD, cache=None)
    quiet = secrets.token_hex(16)
    assert watched.ask(route.name, parent=f"00-{quiet}-{'cd' * 8}-00")[0] == 200
    _, loud = watched.ask(route.name)
    watched.spans(loud, 2)
    assert watched.collector.trace(quiet) == []
    told = route.places[0].handle.entries()[0].header("traceparent") or ""
    assert told.startswith(f"00-{quiet}-")
    assert told.endswith("-00")
    assert "cd" * 8 not in told


def test_a_search_and_its_embedding_are_one_trace(watched: Watched) -> None:
    """The question's embedding is a call below the search, which is below the client's span."""
    route = watched.routes(Behaviour(), cache=None)
    store, trace = watched.store(route.name), secrets.token_hex(16)
    headers = {**watched.bearer, "traceparent": f"00-{trace}-{'ab' * 8}-01"}
    found = watched.server.http.post(f"/v1/vector_stores/{store}/search", json={"query": "turbines"}, headers=headers)
    assert found.status_code == 200, found.text
    kinds = watched.spans(trace, 3, requests=2)
    search, embedding = kinds["server"]
    assert attributes(search.attributes)["gen_ai.operation.name"] == "retrieval"
    assert attributes(search.attributes)["gen_ai.data_source.id"] == store
    assert search.parent_span_id.hex() == "ab" * 8
    assert attributes(embedding.attributes)["gen_ai.operation.name"] == "embeddings"
    assert embedding.parent_span_id == search.span_id
    assert kinds["client"][0].parent_span_id == embedding.span_id


@pytest.mark.parametrize(
    "parent", ["00-" + "0" * 32 + "-" + "ab" * 8 + "-01", "ff-" + "1" * 32 + "-" + "ab" * 8 + "-01", "nonsense"]
)
def test_a_traceparent_that_is_none_begins_a_trace(watched: Watched, parent: str) -> None:
    """What is not valid is not passed on (W3C Trace Context 3.2)."""
    route = watched.routes(GOOD, cache=None)
    assert watched.ask(route.name, parent=parent)[0] == 200
    told = route.places[0].handle.entries()[0].header("traceparent") or ""
    assert len(told) == 55
    assert told[3:35] not in parent
    assert watched.collector.wait(lambda one: one.trace(told[3:35]))


def test_no_content_and_no_key_is_ever_exported(watched: Watched) -> None:
    """Canaries in prompts, answers, tools, end users' words, errors, headers and keys: not one of them is in anything that went out."""
    canary = "canary-" + secrets.token_hex(8)
    place = {"api_key": UPSTREAM_KEY, "headers": {"x-secret": f"{canary}-header"}}
    good = watched.routes(Behaviour(text=f"{canary}-answer"), deployment=place)
    bad = watched.routes(
        Behaviour(status=400, error_message=f"{canary}-fault"),
        Behaviour(status=500, body=f"{canary}-body"),
        deployment=place,
    )
    tools = [{"type": "function", "function": {"name": "look", "description": f"{canary}-tool", "parameters": {}}}]
    traces = [
        watched.ask(good.name, f"{canary}-prompt")[1],
        watched.ask(good.name, f"{canary}-prompt", stream=True)[1],
        watched.ask(good.name, f"{canary}-prompt", tools=tools)[1],
        watched.ask(bad.name, f"{canary}-prompt")[1],
    ]
    headers = {"authorization": f"Bearer sk-ps-{canary}", "x-secret": canary}
    watched.server.http.post("/v1/chat/completions", content=json.dumps({"model": canary}), headers=headers)
    watched.server.post("/v1/embeddings", {"model": good.name, "input": f"{canary}-input"})
    for trace in traces:
        watched.spans(trace, 2)
    told = watched.collector.wait(lambda one: len(logs := [each.trace_id.hex() for each in one.logs()]) >= 4 and logs)
    assert told
    sent = watched.collector.everything
    for secret in (canary, UPSTREAM_KEY, watched.server.key, watched.server.key[6:20], ADMIN_KEY):
        assert secret.encode() not in sent
        assert secret not in watched.server.output
    assert canary.encode() not in watched.server.http.get("/metrics").content
