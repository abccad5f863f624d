"""Automatic marks for Anthropic's prompt cache: where they stand, where they do not, and what is billed for them."""

import json
from typing import Any

import pytest

from gateway.dialects.anthropic_marks import LEAST_BYTES, marked
from tests.dialects.service import WEATHER, asked
from tests.fixtures.deployments import Routes
from tests.upstream.behaviour import Behaviour

MARK = {"type": "ephemeral"}
LONG = "word " * LEAST_BYTES


def made(**fields: Any) -> Any:
    return json.loads(marked(json.dumps({"model": "m", "max_tokens": 9, **fields}).encode()))


def test_marks_stand_where_a_conversation_goes_on_from() -> None:
    """Behind tools, instructions and the user's last two turns: four, as many as the API takes."""
    turns = [
        {"role": "user", "content": LONG},
        {"role": "assistant", "content": "one"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}]},
        {"role": "user", "content": "c"},
    ]
    body = made(tools=[{"name": "f"}, {"name": "g"}], system="Be brief.", messages=turns)
    assert body["tools"] == [{"name": "f"}, {"name": "g", "cache_control": MARK}]
    assert body["system"] == [{"type": "text", "text": "Be brief.", "cache_control": MARK}]
    assert body["messages"][:2] == turns[:2]
    assert [block.get("cache_control") for block in body["messages"][2]["content"]] == [None, MARK]
    assert body["messages"][3] == turns[3]
    assert body["messages"][4]["content"] == [{"type": "text", "text": "c", "cache_control": MARK}]
    assert json.dumps(body).count("cache_control") == 4


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "user", "content": "short"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": LONG, "cache_control": MARK}]}]},
        {"messages": [{"role": "user", "content": LONG}], "cache_control": MARK},
        {"messages": LONG},
        {"note": LONG},
        {"messages": [LONG]},
    ],
)
def test_what_is_marked_already_or_short_or_strange_stays_as_it_is(fields: Any) -> None:
    """The client's own marks are what it wants; what Anthropic refuses, it refuses itself."""
    body = json.dumps({"model": "m", **fields}).encode()
    assert marked(body) == body


def test_what_cannot_be_marked_is_not() -> None:
    """Empty texts and thoughts: the API refuses the whole request for it."""
    turns = [{"role": "user", "content": [{"type": "text", "text": LONG}, {"type": "text", "text": " "}]}]
    assert made(messages=turns, system="", tools=[]) == {
        "model": "m", "max_tokens": 9, "messages": turns, "system": "", "tools": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("provider", "setting", "expected"),
    [("anthropic", "auto", True), ("anthropic", "off", False), ("openai", "auto", False)],
)
def test_a_model_that_wants_it_is_marked_on_every_endpoint(
    routes: Routes, provider: str, setting: str, expected: bool
) -> None:
    """Chat, messages and responses, at Anthropic alone; what was written and read has its own price."""
    told = Behaviour(text="Hi.", prompt_tokens=5, completion_tokens=3, cached_tokens=100, cache_write_tokens=10)
    price = {"input": 1000, "output": 2000, "cached_input": 100, "cache_write": 1250}
    route = routes(told, deployment={"provider": provider, "price": price}, prompt_caching=setting)
    server, (place,) = routes.server, route.places
    hello = [{"role": "user", "content": LONG}]
    calls: list[tuple[str, Any]] = [
        (
            "/v1/chat/completions",
            {"messages": [{"role": "system", "content": "Be brief."}, *hello], "tools": [WEATHER]},
        ),
        ("/v1/messages", {"messages": hello, "max_tokens": 9, "system": "Be brief."}),
        ("/v1/responses", {"input": LONG}),
    ]
    for path, body in calls:
        answer = server.post(path, {"model": route.name, **body})
        assert answer.status_code == 200, answer.text
        assert ("cache_control" in json.dumps(asked(place))) is expected, path
        if provider == "anthropic":
            assert (
                answer.headers["x-penstock-cost-usd"] == "0.033500000"
            )  # 5 × 1 + 100 × 0.1 + 10 × 1.25 + 3 × 2 thousandths
