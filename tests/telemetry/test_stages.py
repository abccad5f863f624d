"""One trace from the client to whoever is asked in the end: guards, searches and a response's turns are stages of it."""

import itertools
import json
import secrets
from collections.abc import Sequence
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.fixtures.collector import attributes
from tests.telemetry.watched import Watched
from tests.upstream.behaviour import Behaviour, ToolCall

GOOD = Behaviour(prompt_tokens=7, completion_tokens=3)
NUMBERS = itertools.count()


def guard(watched: Watched, kind: str, **fields: Any) -> str:
    name = f"stage{next(NUMBERS)}"
    answer = watched.server.admin.post("/guards", json={"name": name, "kind": kind, **fields})
    assert answer.status_code == 201, answer.text
    return name


def told(spans: Sequence[Span], name: str) -> list[tuple[str, Span]]:
    """The spans of that name, with the outcome of each, in order."""
    found = [span for span in spans if span.name == name]
    return [(str(attributes(span.attributes).get("penstock.outcome")), span) for span in found]


def below(spans: Sequence[Span]) -> dict[bytes, Span]:
    """By id. Every span but those below the client's is below one of the others."""
    every = {span.span_id: span for span in spans}
    assert len(every) == len(spans), "an id stands twice"
    for span in spans:
        assert span.parent_span_id in every or span.parent_span_id.hex() in {"", "ab" * 8}, span
    return every


def test_each_guard_is_a_stage_and_what_it_asks_is_below_it(watched: Watched) -> None:
    """Before the call, beside it and on its stream: who it was, how long it took, what came of it. Whom it asks is told the trace."""
    judge = watched.routes(Behaviour())
    pii = guard(watched, "pii", action="redact")
    asked = guard(watched, "moderation", model=judge.name)
    beside = guard(watched, "injection", stage="parallel")
    stream = guard(watched, "secrets", stage="stream", action="redact")
    route = watched.routes(GOOD, cache=False, guards=[pii, asked, beside, stream])
    status, trace = watched.ask(route.name, "write to ada@example.com", stream=True)
    assert status == 200
    kinds = watched.spans(trace, 8, requests=2)
    spans = [span for each in kinds.values() for span in each]
    every = below(spans)
    request = next(span for span in kinds["server"] if span.name == "POST /v1/chat/completions")
    for name, outcome in ((pii, "redact"), (asked, "pass"), (beside, "pass"), (stream, "pass")):
        ((found, span),) = told(spans, f"guard {name}")
        assert found == outcome
        assert span.parent_span_id == request.span_id
        assert request.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= request.end_time_unix_nano
    judged = next(span for span in kinds["server"] if span.name == "POST /v1/moderations")
    assert every[judged.parent_span_id].name == f"guard {asked}"
    entry = judge.places[0].handle.entries()[0]
    assert (entry.header("traceparent") or "").startswith(f"00-{trace}-")


def test_what_a_guard_refuses_ends_in_its_stage(watched: Watched) -> None:
    name = guard(watched, "pii")
    route = watched.routes(GOOD, cache=False, guards=[name])
    status, trace = watched.ask(route.name, "write to ada@example.com")
    assert status == 400
    kinds = watched.spans(trace, 2)
    assert set(kinds) == {"server", "internal"}
    ((outcome, _),) = told(kinds["internal"], f"guard {name}")
    assert outcome == "block"


def test_an_answer_from_the_cache_is_guarded_in_the_same_trace(watched: Watched) -> None:
    """The guard behind the call reads a hit, too."""
    name = guard(watched, "secrets", stage="after", action="redact")
    route = watched.routes(GOOD, guards=[name])
    watched.ask(route.name, "twice")
    _, trace = watched.ask(route.name, "twice")
    kinds = watched.spans(trace, 3)
    assert [span.name for span in kinds["internal"]] == ["cache", f"guard {name}"]
    assert told(kinds["internal"], "cache")[0][0] == "hit"


def test_a_chat_that_is_looked_up_is_one_trace(watched: Watched) -> None:
    """The request, the stage of its search, the search of the collection, the question's embedding, and the model that answers."""
    embedder, route = watched.routes(Behaviour(), cache=False), watched.routes(GOOD, cache=False)
    store = watched.store(embedder.name)
    tools = [{"type": "file_search", "vector_store_ids": [store]}]
    status, trace = watched.ask(route.name, "what holds the water?", tools=tools)
    assert status == 200
    kinds = watched.spans(trace, 6, requests=3)
    every = below([span for each in kinds.values() for span in each])
    request, search, embedding = kinds["server"]
    (stage,) = (span for span in kinds["internal"] if span.name == "retrieval")
    assert attributes(search.attributes)["gen_ai.data_source.id"] == store
    assert attributes(embedding.attributes)["gen_ai.operation.name"] == "embeddings"
    assert every[embedding.parent_span_id] is search
    assert every[search.parent_span_id] is stage
    assert every[stage.parent_span_id] is request
    parents = {attributes(span.attributes)["gen_ai.operation.name"]: span.parent_span_id for span in kinds["client"]}
    assert parents == {"embeddings": embedding.span_id, "chat": request.span_id}


def test_a_response_of_several_turns_is_one_trace(watched: Watched) -> None:
    """Also of a client that names none: its turns, its search and what that asks are below one span."""
    embedder = watched.routes(Behaviour(), cache=False)
    wants = ToolCall("file_search", json.dumps({"queries": ["what holds the water?"]}))
    route = watched.routes((Behaviour(text="", tool_calls=(wants,)), GOOD), cache=False)
    store = watched.store(embedder.name)
    body = {"model": route.name, "input": "?", "tools": [{"type": "file_search", "vector_store_ids": [store]}]}
    answer = watched.server.http.post("/v1/responses", json=body, headers=watched.bearer)
    assert answer.status_code == 200, answer.text
    traces = {(entry.header("traceparent") or "")[3:35] for entry in route.places[0].handle.entries()}
    assert len(traces) == 1
    kinds = watched.spans(traces.pop(), 8, requests=5)
    spans = [span for each in kinds.values() for span in each]
    every = below(spans)
    (root,) = [span for span in spans if not span.parent_span_id]
    assert attributes(root.attributes)["gen_ai.operation.name"] == "invoke_agent"
    assert attributes(root.attributes)["gen_ai.request.model"] == route.name
    turns = [span for span in kinds["server"] if attributes(span.attributes)["gen_ai.operation.name"] == "chat"]
    assert [every[span.parent_span_id] for span in turns] == [root, root]
    search = next(span for span in spans if attributes(span.attributes).get("gen_ai.data_source.id") == store)
    assert every[search.parent_span_id] is root
    embedding = next(
        span for span in kinds["server"] if attributes(span.attributes)["gen_ai.operation.name"] == "embeddings"
    )
    assert every[embedding.parent_span_id] is search
    counted = watched.collector.wait(lambda one: one.metrics().get("gen_ai.server.request.duration"))
    operations = {attributes(point.attributes)["gen_ai.operation.name"] for point in counted.histogram.data_points}
    assert "invoke_agent" not in operations, "its turns are counted, and it would be counted twice"


def test_a_search_with_a_reranker_is_one_trace(watched: Watched) -> None:
    """Whom a search asks is below it: whoever embeds, and whoever puts in order."""
    embedder, ranker = watched.routes(Behaviour(), cache=False), watched.routes(Behaviour(), cache=False)
    store, trace = watched.store(embedder.name), secrets.token_hex(16)
    headers = {**watched.bearer, "traceparent": f"00-{trace}-{'ab' * 8}-01"}
    body = {"query": "dams", "ranking_options": {"ranker": ranker.name}, "rerank": {"timeout_s": 30}}
    found = watched.server.http.post(f"/v1/vector_stores/{store}/search", json=body, headers=headers)
    assert found.status_code == 200, found.text
    kinds = watched.spans(trace, 5, requests=3)
    every = below([span for each in kinds.values() for span in each])
    by = {attributes(span.attributes)["gen_ai.operation.name"]: span for span in kinds["server"]}
    assert set(by) == {"retrieval", "embeddings", "rerank"}
    assert every[by["rerank"].parent_span_id] is by["retrieval"]
    assert every[by["embeddings"].parent_span_id] is by["retrieval"]
