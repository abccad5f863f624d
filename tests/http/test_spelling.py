"""Providers that speak OpenAI's API with other words for some of it: what reaches them is what they know."""

import json

import pytest

from tests.fixtures.deployments import Routes, said, whole
from tests.fixtures.server import Json
from tests.upstream.behaviour import Behaviour

GOOD = Behaviour(text="the river turns", usage="with_choices", prompt_tokens=7, completion_tokens=3)
HINTS = {"store": False, "prompt_cache_key": "k", "safety_identifier": "s", "service_tier": "auto"}


def seen(routes: Routes, provider: str, path: str, body: Json) -> Json:
    """What the provider was asked, by one request that was answered."""
    route = routes(GOOD, deployment={"provider": provider})
    answer = routes.server.post(path, {"model": route.name, **body})
    assert answer.status_code == 200, answer.text
    (entry,) = route.places[0].handle.entries()
    sent: Json = json.loads(entry.body)
    return sent


def chat(**fields: object) -> Json:
    return {"messages": [{"role": "user", "content": "hi"}], **fields}


@pytest.mark.parametrize("stream", [False, True])
def test_mistral_is_asked_nothing_that_it_refuses(routes: Routes, stream: bool) -> None:
    """It answers 422 to a field that it does not know, `stream_options` among them; its streams tell their usage by themselves."""
    asked = chat(max_completion_tokens=40, seed=7, user="ann", stream=stream, temperature=0.5, **HINTS)
    asked |= {"stream_options": {"include_usage": True}} if stream else {}
    sent = seen(routes, "mistral", "/v1/chat/completions", asked)
    assert sent == chat(model="scripted", max_tokens=40, random_seed=7, stream=stream, temperature=0.5)


def test_a_stream_of_mistral_has_its_usage(routes: Routes) -> None:
    """Although nobody asked for it there."""
    route = routes(GOOD, deployment={"provider": "mistral"})
    answer = routes.ask(route, stream=True, stream_options={"include_usage": True})
    assert (said(answer), whole(answer)) == ("the river turns", True)
    record = routes.record(answer)
    assert (record["prompt_tokens"], record["completion_tokens"], record["usage_source"]) == (7, 3, "provider")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/messages", chat(max_tokens=40, stream=True)),
        ("/v1/responses", {"input": "hi", "max_output_tokens": 40, "stream": True, "user": "ann"}),
    ],
    ids=["messages", "responses"],
)
def test_translated_requests_are_spelt_so_too(routes: Routes, path: str, body: Json) -> None:
    """A chat that was made here goes the same way."""
    sent = seen(routes, "mistral", path, body)
    assert sent.keys() == {"model", "messages", "max_tokens", "stream"}


@pytest.mark.parametrize("provider", ["deepseek", "ollama", "cohere", "together", "llamacpp"])
def test_a_limit_is_told_by_the_name_that_is_heeded(routes: Routes, provider: str) -> None:
    """They ignore `max_completion_tokens`, and would write on beyond what was held. Its own name comes first, and null is none."""
    for limits, told in (
        ({"max_completion_tokens": 40}, 40),
        ({"max_completion_tokens": 40, "max_tokens": 30}, 30),
        ({"max_completion_tokens": 40, "max_tokens": None}, 40),
    ):
        sent = seen(routes, provider, "/v1/chat/completions", chat(**limits))
        assert (sent["max_tokens"], "max_completion_tokens" in sent) == (told, False)


def test_others_get_what_the_client_wrote(routes: Routes) -> None:
    """OpenAI's models and engines know both names, and some know the new one alone."""
    for provider in ("openai", "vllm", "groq"):
        sent = seen(routes, provider, "/v1/chat/completions", chat(max_completion_tokens=40, user="ann", seed=7))
        assert sent == chat(model="scripted", max_completion_tokens=40, user="ann", seed=7)
