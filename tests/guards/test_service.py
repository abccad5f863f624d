"""Guards on the real process: what is refused, masked, redacted and told, in every API, whole and streamed."""

import json
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.fixtures.deployments import Route, chunks, said, whole
from tests.fixtures.server import Json
from tests.guards.conftest import Guarded
from tests.upstream.behaviour import Behaviour, ToolCall

EMAIL = "ada@example.com"
KEY = "sk-" + "ant-api03-AbCdEf0123456789AbCdEf0123"


def asked(route: Route) -> Any:
    """What the upstream was asked last."""
    return json.loads(route.places[0].handle.entries()[-1].body)


def post(guarded: Guarded, path: str, route: Route, **fields: Any) -> httpx.Response:
    return guarded.server.post(path, {"model": route.name, **fields})


def error_of(answer: httpx.Response) -> Json:
    error: Json = answer.json()["error"]
    return error


def test_a_call_without_a_guard_says_nothing_of_guards(guarded: Guarded) -> None:
    answer = guarded.routes.ask(guarded.routes(Behaviour()))
    assert answer.status_code == 200
    assert "x-penstock-guards" not in answer.headers


def test_what_is_blocked_never_leaves_and_is_recorded_without_its_text(guarded: Guarded) -> None:
    name = guarded.guard("pii")
    route = guarded.model(guards=[name])
    answer = guarded.routes.ask(route, text=f"write to {EMAIL}")
    assert answer.status_code == 400
    error = error_of(answer)
    assert (error["type"], error["code"]) == ("invalid_request_error", "content_policy_violation")
    assert name in error["message"]
    assert "email" in error["message"]
    assert EMAIL not in answer.text
    assert answer.headers["x-penstock-guards"] == f"{name}=block"
    assert route.places[0].handle.entries() == []
    record = guarded.routes.record(answer)
    assert record["guards"] == [f"{name}=block:email"]
    assert record["cost_nanousd"] in (None, 0)
    passed = guarded.routes.ask(route, text="nothing to see")
    assert passed.status_code == 200
    assert passed.headers["x-penstock-guards"] == f"{name}=pass"


def test_a_redacted_request_goes_on_without_it(guarded: Guarded) -> None:
    route = guarded.model(guards=[guarded.guard("pii", action="redact")])
    answer = guarded.routes.ask(route, text=f"write to {EMAIL} or +1 415 555 2671")
    assert answer.status_code == 200, answer.text
    assert asked(route)["messages"][0]["content"] == "write to [EMAIL] or [PHONE]"
    assert said(answer).endswith("write to [EMAIL] or [PHONE]")


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_masked_comes_back(guarded: Guarded, stream: bool) -> None:
    route = guarded.model(Behaviour(segment_bytes=7), guards=[guarded.guard("pii", action="mask_restore")])
    text = f"write to {EMAIL} and bob@example.org and {EMAIL}"
    answer = guarded.routes.ask(route, text=text, stream=stream)
    assert answer.status_code == 200, answer.text
    assert asked(route)["messages"][0]["content"] == "write to [EMAIL_1] and [EMAIL_2] and [EMAIL_1]"
    assert said(answer) == f"ann|{text}"


def test_arguments_of_a_call_get_their_values_back(guarded: Guarded) -> None:
    call = ToolCall("send", '{"to": "[EMAIL_1]"}')
    route = guarded.model(Behaviour(tool_calls=(call,)), guards=[guarded.guard("pii", action="mask_restore")])
    for stream in (False, True):
        answer = guarded.routes.ask(route, text=f"write to {EMAIL}", stream=stream)
        if stream:
            parts = [
                one
                for chunk in chunks(answer)
                for choice in chunk["choices"]
                for one in choice["delta"].get("tool_calls", ())
            ]
            arguments = "".join(one["function"].get("arguments", "") for one in parts)
            assert "".join(one["function"].get("name") or "" for one in parts) == "send"
        else:
            arguments = answer.json()["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]
        assert json.loads(arguments) == {"to": EMAIL}


def test_a_client_that_writes_placeholders_itself_gets_nothing_for_them(guarded: Guarded) -> None:
    route = guarded.model(guards=[guarded.guard("pii", action="mask_restore")])
    text = f"is [EMAIL_1] the same as {EMAIL}?"
    answer = guarded.routes.ask(route, text=text)
    assert asked(route)["messages"][0]["content"] == "is [EMAIL_1] the same as [EMAIL_2]?"
    assert said(answer) == f"ann|{text}"


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "system", "content": KEY}, {"role": "user", "content": "hi"}]}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "text", "text": KEY}]}]}),
        ("/v1/completions", {"prompt": ["a", KEY]}),
        ("/v1/responses", {"input": [{"role": "user", "content": [{"type": "input_text", "text": KEY}]}]}),
        ("/v1/responses", {"input": "hi", "instructions": KEY}),
        ("/v1/messages", {"max_tokens": 9, "system": KEY, "messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/messages/count_tokens", {"messages": [{"role": "user", "content": KEY}]}),
        ("/v1/embeddings", {"input": ["a", KEY]}),
        ("/v1/images/generations", {"prompt": f"a picture of {KEY}"}),
        ("/v1/audio/speech", {"input": KEY, "voice": "x"}),
        (
            "/v1/messages",
            {
                "max_tokens": 9,
                "messages": [
                    {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {KEY: 1}}]}
                ],
            },
        ),
        ("/v1/rerank", {"query": "q", "documents": ["a", KEY]}),
        ("/v1/moderations", {"input": KEY}),
    ],
)
def test_every_path_that_takes_text_is_read(guarded: Guarded, path: str, fields: Json) -> None:
    route = guarded.model(guards=[guarded.guard("secrets")])
    answer = post(guarded, path, route, **fields)
    assert answer.status_code == 400, answer.text
    assert "anthropic_key" in answer.text
    assert KEY not in answer.text
    assert route.places[0].handle.entries() == []


@pytest.mark.parametrize(
    ("path", "fields"), [("/v1/embeddings", {"input": [[1, 2]]}), ("/v1/completions", {"prompt": [1, 2]})]
)
def test_tokens_lead_around_no_guard(guarded: Guarded, path: str, fields: Json) -> None:
    route = guarded.model(guards=[guarded.guard("secrets")])
    answer = post(guarded, path, route, **fields)
    assert (answer.status_code, error_of(answer)["code"]) == (400, "unsupported_by_guards")
    assert route.places[0].handle.entries() == []


def test_a_form_is_read_and_written(guarded: Guarded) -> None:
    block = guarded.model(guards=[guarded.guard("secrets")])
    redact = guarded.model(guards=[guarded.guard("secrets", action="redact")])

    def transcribe(route: Route) -> httpx.Response:
        return guarded.server.http.post(
            "/v1/audio/transcriptions",
            data={"model": route.name, "prompt": f"it says {KEY}!"},
            files={"file": ("a.wav", b"RIFF" + bytes(64), "audio/wav")},
            headers={"authorization": f"Bearer {guarded.server.key}"},
        )

    assert transcribe(block).status_code == 400
    answer = transcribe(redact)
    entry = redact.places[0].handle.entries()[-1]
    assert "[ANTHROPIC_KEY]!" in entry.body, answer.text
    assert KEY not in entry.body


@pytest.mark.parametrize("text", [
    "ada\u200b@exam\u200bple.com", "ａｄａ＠ｅｘａｍｐｌｅ．ｃｏｍ", "аda@ехample.com", "４１１１ １１１１ １１１１ １１１１",
    "YWRhQGV4YW1wbGUuY29tIGlzIHdobyBJIGFt", "\\u0061da@example.com", "DE89\u00a03704\u00a00044\u00a00532\u00a00130\u00a000",
])  # fmt: skip
def test_tricks_with_characters_do_not_help(guarded: Guarded, text: str) -> None:
    route = guarded.model(guards=[guarded.guard("pii")])
    assert guarded.routes.ask(route, text=f"so {text} then").status_code == 400


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_redacted(guarded: Guarded, stream: bool) -> None:
    behaviour = Behaviour(text=f"the key is {KEY} and that is it", segment_bytes=5)
    route = guarded.model(behaviour, guards=[guarded.guard("secrets", stage="stream", action="redact")])
    answer = guarded.routes.ask(route, stream=stream)
    assert said(answer) == "the key is [ANTHROPIC_KEY] and that is it"
    assert not stream or whole(answer)
    assert guarded.routes.record(answer)["guards"][0].endswith("=redact:anthropic_key")


def test_a_blocked_stream_ends_with_an_error_and_is_billed_for_what_was_made(guarded: Guarded) -> None:
    text = " ".join(["word"] * 40) + f" {KEY} " + " ".join(["more"] * 4000)
    route = guarded.model(
        Behaviour(text=text, gap_s=0.001), guards=[guarded.guard("secrets", stage="stream")], retries={"attempts": 2}
    )
    answer = guarded.routes.ask(route, stream=True)
    assert answer.status_code == 200
    assert "content_policy_violation" in answer.text
    assert "[DONE]" not in answer.text
    assert "sk-ant" not in answer.text
    entry = route.places[0].handle.ended()
    assert entry.completion_tokens < 4000, "the upstream was not told to stop"
    assert len(route.places[0].handle.entries()) == 1
    record = guarded.routes.record(answer)
    assert record["error_code"] == "content_policy_violation"
    assert record["cost_nanousd"] > 0
    assert record["completion_tokens"] >= 40
    assert record["usage_source"] == "estimated"


def test_a_stream_that_is_blocked_before_its_first_words_is_a_plain_refusal(guarded: Guarded) -> None:
    route = guarded.model(Behaviour(text=f"{KEY} it is"), guards=[guarded.guard("secrets", stage="stream")])
    answer = guarded.routes.ask(route, stream=True)
    assert answer.status_code == 400
    assert error_of(answer)["code"] == "content_policy_violation"


@pytest.mark.parametrize("stream", [False, True])
def test_dry_run_tells_and_does_nothing(guarded: Guarded, stream: bool) -> None:
    name = guarded.guard("secrets", stage=["before", "stream"], dry_run=True, action="redact")
    route = guarded.model(Behaviour(text=f"it is {KEY} indeed"), guards=[name])
    answer = guarded.routes.ask(route, text=KEY, stream=stream)
    assert said(answer) == f"it is {KEY} indeed"
    assert asked(route)["messages"][0]["content"] == KEY
    assert answer.headers["x-penstock-guards"] == f"{name}=dry_run-redact"
    assert f'penstock_guard_trials_total{{guard="{name}"}} 1.0' in guarded.server.http.get("/metrics").text


def test_patterns_of_ones_own(guarded: Guarded) -> None:
    deny = [{"name": "codename", "pattern": r"(?i)project\s+(zeus|hera)"}, r"(a+)+\$"]
    route = guarded.model(
        Behaviour(text="about Project  Hera now"),
        guards=[guarded.guard("patterns", deny=deny, words=["forbidden"], stage=["before", "stream"])],
    )
    assert guarded.routes.ask(route, text="a Forbidden thing").status_code == 400
    assert "codename" in guarded.routes.ask(route, text="what of PROJECT zeus").text
    assert guarded.routes.ask(route, text="a" * 100_000).status_code == 400  # its answer is about Hera
    assert "codename" in guarded.routes.ask(route, text="hello", stream=True).text
    only = guarded.model(guards=[guarded.guard("patterns", allow=["(?i)invoice"])])
    assert guarded.routes.ask(only, text="my invoice").status_code == 200
    assert guarded.routes.ask(only, text="my weather").status_code == 400


def test_a_call_that_may_cost_too_much_is_refused(guarded: Guarded) -> None:
    route = guarded.model(guards=[guarded.guard("max_cost", max_usd=1)])
    assert guarded.routes.ask(route, max_tokens=100).status_code == 200
    answer = guarded.routes.ask(route, max_tokens=1000)
    assert answer.status_code == 400
    assert "USD" in answer.text


def test_openais_sdk_reads_what_it_gets(guarded: Guarded) -> None:
    route = guarded.model(
        Behaviour(text=f"take {KEY} now"),
        guards=[guarded.guard("secrets", stage=["before", "stream"], action="redact")],
    )
    with openai.OpenAI(api_key=guarded.server.key, base_url=guarded.server.base_url, max_retries=0) as client:
        for made in (
            client.chat.completions.create(model=route.name, messages=[{"role": "user", "content": "hi"}]),
            client.responses.create(model=route.name, input="hi"),
        ):
            text = (
                made.output_text
                if isinstance(made, openai.types.responses.Response)
                else made.choices[0].message.content
            )
            assert text == "take [ANTHROPIC_KEY] now"
        with client.responses.stream(model=route.name, input="hi") as stream:
            seen = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
            assert seen == stream.get_final_response().output_text == "take [ANTHROPIC_KEY] now"
        completed = client.completions.create(model=route.name, prompt="hi", stream=True)
        assert "".join(choice.text for chunk in completed for choice in chunk.choices) == "take [ANTHROPIC_KEY] now"
        blocked = guarded.model(guards=[guarded.guard("secrets")])
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model=blocked.name, messages=[{"role": "user", "content": KEY}])
        assert caught.value.code == "content_policy_violation"


@pytest.mark.parametrize("deployment", [{}, {"responses": True}])
def test_responses_are_guarded_in_the_words_of_either_upstream(guarded: Guarded, deployment: Json) -> None:
    behaviour = Behaviour(text=f"take {KEY} now", segment_bytes=11)
    route = guarded.model(
        behaviour, guards=[guarded.guard("secrets", stage="stream", action="redact")], deployment=deployment
    )
    plain = post(guarded, "/v1/responses", route, input="hi")
    streamed = post(guarded, "/v1/responses", route, input="hi", stream=True)
    assert plain.status_code == streamed.status_code == 200
    for answer in (plain, streamed):
        assert "[ANTHROPIC_KEY]" in answer.text
        assert KEY not in answer.text
    kept = guarded.server.http.get(
        f"/v1/responses/{plain.json()['id']}", headers={"authorization": f"Bearer {guarded.server.key}"}
    )
    assert KEY not in kept.text
    assert "[ANTHROPIC_KEY]" in kept.text


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_anthropics_sdk_reads_what_it_gets(guarded: Guarded, provider: str) -> None:
    behaviour = Behaviour(text=f"take {KEY} now")
    guards = [guarded.guard("secrets", stage=["before", "stream"], action="redact")]
    route = guarded.model(behaviour, guards=guards, deployment={"provider": provider})
    blocked = guarded.model(guards=[guarded.guard("secrets")], deployment={"provider": provider})
    hello: Any = [{"role": "user", "content": "hi"}]
    with anthropic.Anthropic(api_key=guarded.server.key, base_url=guarded.server.url, max_retries=0) as client:
        message = client.messages.create(model=route.name, max_tokens=50, messages=hello)
        assert message.content[0].text == "take [ANTHROPIC_KEY] now"  # type: ignore[union-attr]
        with client.messages.stream(model=route.name, max_tokens=50, messages=hello) as stream:
            assert "".join(stream.text_stream) == "take [ANTHROPIC_KEY] now"
        with pytest.raises(anthropic.BadRequestError) as caught:
            client.messages.create(model=blocked.name, max_tokens=50, messages=[{"role": "user", "content": KEY}])
        assert "secrets" not in str(caught.value) or KEY not in str(caught.value)


def test_a_providers_own_api_is_guarded_or_refused(guarded: Guarded) -> None:
    route = guarded.model(
        guards=[guarded.guard("secrets", stage=["before", "stream"])], deployment={"provider": "gemini"}
    )
    headers = {"x-goog-api-key": guarded.server.key, "authorization": f"Bearer {guarded.server.key}"}

    def ask(method: str, text: str) -> httpx.Response:
        body = {"contents": [{"role": "user", "parts": [{"text": text}]}]}
        return guarded.server.http.post(f"/gemini/v1beta/models/{route.name}:{method}", json=body, headers=headers)

    refused = ask("generateContent", KEY)
    assert (refused.status_code, KEY in refused.text) == (400, False)
    assert "secrets" in refused.text or "anthropic_key" in refused.text
    assert route.places[0].handle.entries() == []
    assert ask("generateContent", "hello").status_code == 200
    assert "UNSUPPORTED_BY_GUARDS" in ask("streamGenerateContent?alt=sse", "hello").text
