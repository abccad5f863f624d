"""Failures as the `openai` SDK sees them: each becomes the exception that its users catch."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.fixtures.server import Scripts, Server
from tests.upstream.behaviour import Behaviour

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=server.key, base_url=server.base_url, max_retries=0, timeout=20) as client:
        yield client


def ask(server: Server, key: str, model: str = "chat") -> None:
    with openai.OpenAI(api_key=key, base_url=server.base_url, max_retries=0) as client:
        client.chat.completions.create(model=model, messages=HELLO)


def test_an_unknown_key_is_an_authentication_error(server: Server) -> None:
    """With OpenAI's own code for it."""
    with pytest.raises(openai.AuthenticationError) as caught:
        ask(server, "sk-ps-nobody")
    assert caught.value.code == "invalid_api_key"


def test_a_revoked_key_is_refused_within_a_second(server: Server) -> None:
    """Revoked over REST, in force on the hot path."""
    answer = server.admin.post("/keys", json={"name": "short-lived"}).json()
    server.await_key(answer["key"], known=True)
    assert server.admin.delete(f"/keys/{answer['id']}").is_success
    server.await_key(answer["key"], known=False)
    with pytest.raises(openai.AuthenticationError) as caught:
        ask(server, answer["key"])
    assert caught.value.code == "invalid_api_key"


def test_an_expired_key_says_that_it_is_expired(server: Server) -> None:
    """A holder can tell an old key from a wrong one."""
    soon = datetime.now(UTC) + timedelta(seconds=3)
    answer = server.admin.post("/keys", json={"name": "expires", "expires_at": soon.isoformat()})
    assert answer.status_code == 201, answer.text
    told: list[str | None] = []
    while "expired_api_key" not in told:  # before: not known yet, then good
        assert datetime.now(UTC) < soon + timedelta(seconds=20), told
        time.sleep(0.05)
        try:
            ask(server, answer.json()["key"])
        except openai.AuthenticationError as error:
            told.append(error.code)


def test_a_model_outside_the_keys_list_is_a_permission_error(server: Server) -> None:
    """Names and patterns both count, and `models.list` shows what the key may use."""
    key = server.new_key(models=["embed", "s/*"])
    with pytest.raises(openai.PermissionDeniedError) as caught:
        ask(server, key)
    assert caught.value.code == "model_access_denied"
    with openai.OpenAI(api_key=key, base_url=server.base_url) as client:
        assert {model.id for model in client.models.list()} == {"embed", "s/*"}


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    """With the parameter that names it."""
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-99", messages=HELLO)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_a_wrong_type_is_a_bad_request_that_names_the_parameter(client: openai.OpenAI) -> None:
    """The SDK's users see which one it was."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="chat", messages=HELLO, temperature="hot")  # type: ignore[call-overload]
    assert caught.value.param == "temperature"


def test_the_upstreams_rate_limit_is_passed_on_with_its_wait(client: openai.OpenAI, scripts: Scripts) -> None:
    """`retry-after` and `retry-after-ms` are what the SDK waits by."""
    wait = (("retry-after", "7"), ("retry-after-ms", "7100"))
    scripted = scripts(Behaviour(status=429, headers=wait, error_message="slow down"))
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model=scripted.model, messages=HELLO)
    assert caught.value.response.headers["retry-after"] == "7"
    assert caught.value.response.headers["retry-after-ms"] == "7100"
    assert "slow down" in caught.value.message


def test_the_sdk_retries_by_itself_what_can_be_retried(server: Server, scripts: Scripts) -> None:
    """Its own retries, after the wait that the upstream named."""
    scripted = scripts(Behaviour(status=429, headers=(("retry-after-ms", "10"),)), Behaviour())
    with openai.OpenAI(api_key=server.key, base_url=server.base_url, max_retries=2) as client:
        answer = client.chat.completions.create(model=scripted.model, messages=HELLO, user="ann")
    assert answer.choices[0].message.content == "ann|hello"
    assert len(scripted.upstream.entries()) == 2


@pytest.mark.parametrize(("status", "seen"), [(400, 400), (500, 502), (401, 502), (503, 503), (504, 504)])
def test_an_upstreams_failure_says_whose_fault_it_is(
    client: openai.OpenAI, scripts: Scripts, status: int, seen: int
) -> None:
    """The client's own mistakes come back as they are; a provider's 401 is ours to mend, not the client's."""
    scripted = scripts(Behaviour(status=status, error_message="scripted"))
    for stream in (False, True):
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(model=scripted.model, messages=HELLO, stream=stream)
        assert caught.value.status_code == seen
        assert caught.value.response.headers["x-request-id"]


def test_no_server_behind_the_url_is_a_502(client: openai.OpenAI) -> None:
    """Connection refused."""
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="gone", messages=HELLO)
    assert (caught.value.status_code, caught.value.code) == (502, "upstream_unreachable")


@pytest.mark.parametrize("stream", [False, True])
def test_an_upstream_that_says_nothing_is_a_504(client: openai.OpenAI, scripts: Scripts, stream: bool) -> None:
    """The first-token limit on a stream, the total limit otherwise; the upstream's connection is given up."""
    scripted = scripts(Behaviour(fault="silence"), quick=True)
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model=scripted.model, messages=HELLO, stream=stream)
    assert caught.value.status_code == 504
    assert f"within its {'first-token' if stream else 'total'} limit" in caught.value.message
    assert scripted.upstream.ended().outcome == "client_left"


@pytest.mark.parametrize("fault", ["fin", "rst", "bad_json_event", "bad_framing", "error_event", "silence"])
def test_a_stream_that_breaks_is_an_error_and_never_a_short_answer(
    client: openai.OpenAI, scripts: Scripts, fault: str
) -> None:
    """After the first token the status is out; the error comes inside the stream and the SDK raises it."""
    broken = Behaviour(chunks=9, gap_s=0.01, fault=fault, fault_after=4)  # type: ignore[arg-type]  # parametrized
    scripted = scripts(broken, quick=fault == "silence")
    chunks = client.chat.completions.create(model=scripted.model, messages=HELLO, user="ann", stream=True)
    seen: list[str] = []
    with pytest.raises(openai.APIError) as caught:
        seen.extend(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert not isinstance(caught.value, openai.APIConnectionError)
    assert fault != "error_event" or "scripted failure" in caught.value.message
    assert "".join(seen).startswith("ann|hello")
    assert len(seen) == 4


@pytest.mark.parametrize("fault", ["fin", "rst", "bad_json_event", "bad_framing", "error_event"])
def test_a_stream_that_breaks_before_its_first_content_is_a_plain_502(
    client: openai.OpenAI, scripts: Scripts, fault: str
) -> None:
    """Headers are withheld until there is content, so that a failure before it has its status."""
    broken = Behaviour(chunks=9, fault=fault, fault_after=1)  # type: ignore[arg-type]  # parametrized
    scripted = scripts(broken)
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model=scripted.model, messages=HELLO, stream=True)
    assert caught.value.status_code == 502
