"""`penstock/quotes` behind the real process: every API of clients, streams, the ledger, and as the fallback of last resort."""

import time
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from tests.fixtures.server import Json, Server, refused_port

MODEL = "penstock/quotes"
MANUAL = "A penstock is the gate that regulates the flow into a turbine. Lunch is served at noon in the hall."
ASKED = f"<document title='manual.md'>{MANUAL}</document>\nWhat regulates the flow into a turbine?"
QUOTED = "“A penstock is the gate that regulates the flow into a turbine.” [1]"
MESSAGES: list[Any] = [{"role": "user", "content": ASKED}]


@pytest.fixture(scope="module")
def client(bare: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=bare.base_url, api_key=bare.key, max_retries=0, timeout=50) as client:
        yield client


def test_a_bare_server_answers_a_chat_with_a_citation(client: openai.OpenAI) -> None:
    """No provider, no key of anybody's, no network."""
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES)
    answer = raw.parse()
    text = answer.choices[0].message.content or ""
    assert text.startswith(QUOTED)
    assert text.endswith("[1] manual.md")
    assert raw.headers["x-penstock-model"] == MODEL
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 20
    citation = (answer.choices[0].message.model_extra or {})["citations"][0]
    assert ASKED[citation["start"] : citation["end"]] == citation["quote"]


def test_a_stream_ends_with_its_citations(client: openai.OpenAI) -> None:
    """Pieces, a finish, and usage where it was asked for."""
    stream = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text.startswith(QUOTED)
    assert chunks[-1].usage is not None
    assert chunks[-2].choices[0].finish_reason == "stop"
    silent = client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    assert all(chunk.usage is None for chunk in silent)


def test_anthropics_clients_get_the_same(bare: Server) -> None:
    """Messages are translated to chat and back, whole and streamed."""
    with anthropic.Anthropic(base_url=bare.url, api_key=bare.key, max_retries=0, timeout=50) as client:
        whole = client.messages.create(model=MODEL, max_tokens=500, messages=MESSAGES)
        assert whole.content[0].type == "text"
        assert whole.content[0].text.startswith(QUOTED)
        with client.messages.stream(model=MODEL, max_tokens=500, messages=MESSAGES) as stream:
            assert stream.get_final_text().startswith(QUOTED)


def test_the_responses_api_gets_the_same(client: openai.OpenAI) -> None:
    """As any model."""
    whole = client.responses.create(model=MODEL, input=ASKED)
    assert whole.output_text.startswith(QUOTED)
    events = list(client.responses.create(model=MODEL, input=ASKED, stream=True))
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text.startswith(QUOTED)


def test_it_says_so_when_nothing_supports_an_answer(client: openai.OpenAI) -> None:
    """Also on a stream."""
    messages: list[Any] = [{"role": "user", "content": f"<document>{MANUAL}</document> Who wrote the Iliad?"}]
    answer = client.chat.completions.create(model=MODEL, messages=messages)
    assert answer.choices[0].message.content == "Nothing in the documents supports an answer to this question."


def test_what_it_cannot_do_is_a_clear_400(bare: Server, client: openai.OpenAI) -> None:
    """By name of the field; and it makes no embeddings."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=MESSAGES, n=2)
    assert caught.value.param == "n"
    refused = bare.post("/v1/embeddings", {"model": MODEL, "input": "x"})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "model"


def test_it_answers_for_no_other_model(bare: Server, client: openai.OpenAI) -> None:
    """Who asks for a model that is not there, is told so."""
    assert bare.post("/v1/chat/completions", bare.ask("gpt-4o")).json()["error"]["code"] == "model_not_found"
    assert MODEL in [model.id for model in client.models.list()]


def test_it_costs_nothing_and_is_in_the_ledger(bare: Server, client: openai.OpenAI) -> None:
    """Counted with its tokens, at zero."""
    client.chat.completions.create(model=MODEL, messages=MESSAGES)
    deadline = time.monotonic() + 20
    while not (row := _spent(bare)) or not row["requests"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert row["cost_usd"] == 0
    assert row["prompt_tokens"] > 0


def _spent(server: Server) -> Json:
    rows = server.admin.get("/spend", params={"group_by": "model"}).json()["data"]
    return next((row for row in rows if MODEL in row.values()), {})


def test_it_is_the_last_resort_where_it_is_named_as_such(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The route's own model is away: the answer is a quotation, marked with who gave it."""
    with refused_port() as port:
        gone = {"id": "gone", "base_url": f"http://127.0.0.1:{port}/v1", "model": "x"}
        quotes = {"id": "quotes", "provider": "quotes", "model": "quotes"}
        models = [
            {"name": "chat", "deployments": [gone], "fallbacks": ["last-resort"], "retries": {"attempts": 0}},
            {"name": "last-resort", "deployments": [quotes]},
        ]
        server = Server({"models": models}, tmp_path_factory.mktemp("fallback")).start()
        try:
            for stream in (False, True):
                answer = server.post("/v1/chat/completions", {"model": "chat", "messages": MESSAGES, "stream": stream})
                assert answer.status_code == 200, answer.text
                assert QUOTED in answer.text
                assert answer.headers["x-penstock-deployment"] == "quotes"
                assert answer.headers["x-penstock-attempts"] == "2"
        finally:
            server.stop()
