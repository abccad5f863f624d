"""Bedrock through AWS's own client: botocore asks, signs and reads the frames; the upstream's answers are framed by another hand."""

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.eventstream import EventStreamBuffer
from botocore.exceptions import ClientError, EventStreamError
from botocore.session import Session

from gateway.native.eventstream import frame
from tests.fixtures.deployments import Route, price
from tests.native.conftest import AWS, Natives
from tests.upstream.behaviour import Behaviour
from tests.upstream.journal import Entry

TURNS = [{"role": "user", "content": [{"text": "one two three"}]}]


@pytest.fixture
def client(natives: Natives) -> Iterator[Any]:
    """A `bedrock-runtime` client whose access key is a key of the gateway's."""
    made = Session().create_client(
        "bedrock-runtime",
        region_name="eu-west-1",
        endpoint_url=f"{natives.server.url}/bedrock",
        aws_access_key_id=natives.server.key,
        aws_secret_access_key="of no use",
        config=Config(retries={"total_max_attempts": 1}, read_timeout=20),
    )
    yield made
    made.close()


def bedrock(natives: Natives, *places: Behaviour, **deployment: Any) -> Route:
    return natives.native(
        "bedrock", *places, **{"api_key": None, "headers": AWS, "model": "eu.claude-v1:0"} | deployment
    )


def heard(stream: Any) -> list[Any]:
    """Every event; the connection is given up, however that ends."""
    with closing(stream):
        return list(stream)


def whole(body: Any) -> bytes:
    with closing(body):
        said: bytes = body.read()
        return said


def signed_right(entry: Entry, base_url: str) -> bool:
    """Whether AWS would take the signature: made again, by botocore, from what arrived."""
    shown = entry.header("authorization") or ""
    names = shown.split("SignedHeaders=")[1].split(",")[0].split(";")
    headers = {name: entry.header(name) or "" for name in names if name not in {"host", "x-amz-date"}}
    request = AWSRequest("POST", base_url.rsplit("/s/", 1)[0] + entry.path, headers=headers, data=entry.body.encode())
    auth = SigV4Auth(Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI"), "bedrock", "eu-west-1")
    request.context["timestamp"] = entry.header("x-amz-date")
    auth._modify_request_before_signing(request)
    canonical = auth.canonical_request(request)
    return shown.endswith(auth.signature(auth.string_to_sign(request, canonical), request))


def test_a_conversation(natives: Natives, client: Any) -> None:
    route = bedrock(natives, Behaviour(cached_tokens=4, cache_write_tokens=2))
    answer = client.converse(modelId=route.name, messages=TURNS, inferenceConfig={"maxTokens": 50})
    assert answer["output"]["message"]["content"] == [{"text": "-|one two three"}]
    entry = route.places[0].handle.ended()
    assert "/model/eu.claude-v1%3A0/converse" in entry.path
    assert not any(name.startswith("x-litellm") for name, _ in entry.headers)
    assert natives.server.key not in str(entry.headers)
    assert signed_right(entry, route.places[0].handle.base_url)
    record = natives.of(route)
    assert (record["prompt_tokens"], record["usage_source"]) == (9, "provider")


def test_a_key_of_bedrock_s_needs_no_signature(natives: Natives, client: Any) -> None:
    route = bedrock(natives, Behaviour(), api_key="ABSK-of-aws", model="own.claude-v1:0")
    client.converse(modelId="own.claude-v1:0", messages=TURNS)
    counted = client.count_tokens(modelId=route.name, input={"converse": {"messages": TURNS}})
    assert counted["inputTokens"] == 0
    assert route.places[0].handle.entries()[-1].header("authorization") == "Bearer ABSK-of-aws"


def test_frames_come_as_they_were_sent(natives: Natives, client: Any) -> None:
    """In whatever pieces they arrive, with the bill of their last one."""
    route = bedrock(natives, Behaviour(completion_tokens=9, segment_bytes=7))
    events = heard(client.converse_stream(modelId=route.name, messages=TURNS)["stream"])
    text = "".join(one["contentBlockDelta"]["delta"]["text"] for one in events if "contentBlockDelta" in one)
    assert text == "-|one two three"
    assert "metadata" in events[-1]
    record = natives.of(route)
    assert (record["prompt_tokens"], record["completion_tokens"], record["usage_source"]) == (3, 9, "provider")


@pytest.mark.parametrize("stream", [False, True])
def test_claude_s_own_body(natives: Natives, client: Any, stream: bool) -> None:
    route = bedrock(natives, Behaviour(completion_tokens=5))
    asked = {"max_tokens": 50, "anthropic_version": "x", "messages": [{"role": "user", "content": "one two"}]}
    if stream:
        body = client.invoke_model_with_response_stream(modelId=route.name, body=json.dumps(asked))["body"]
        events = [json.loads(one["chunk"]["bytes"]) for one in heard(body)]
        assert events[-1]["type"] == "message_stop"
    else:
        body = json.loads(whole(client.invoke_model(modelId=route.name, body=json.dumps(asked))["body"]))
        assert body["content"][0]["text"] == "-|one two"
    record = natives.of(route)
    assert (record["prompt_tokens"], record["completion_tokens"]) == (2, 5)
    assert record["cost_nanousd"] == 2 * 1_000_000 + 5 * 2_000_000


def test_usage_in_the_head_of_an_answer_counts(natives: Natives, client: Any) -> None:
    """Where the model's own body says nothing."""
    told = (("x-amzn-bedrock-input-token-count", "11"), ("x-amzn-bedrock-output-token-count", "13"))
    route = bedrock(natives, Behaviour(body='{"completion":"x"}', headers=told))
    whole(client.invoke_model(modelId=route.name, body=b'{"prompt":"x"}')["body"])
    record = natives.of(route)
    assert (record["prompt_tokens"], record["completion_tokens"], record["usage_source"]) == (11, 13, "provider")


def test_errors_are_aws_s(natives: Natives, client: Any) -> None:
    """The provider's own go through, ours have the names that its clients know."""
    wrong = bedrock(natives, Behaviour(status=400, error_message="Malformed input request"))
    with pytest.raises(ClientError, match="Malformed input request"):
        client.converse(modelId=wrong.name, messages=TURNS)
    with pytest.raises(client.exceptions.ResourceNotFoundException, match="model_not_found"):
        client.converse(modelId="nobody", messages=TURNS)


def test_an_exception_in_the_midst_of_a_stream(natives: Natives, client: Any) -> None:
    """The client's library raises it; before the first frame the next deployment is asked."""
    broken = Behaviour(fault="error_event", fault_after=3)
    route = bedrock(natives, broken)
    stream = client.converse_stream(modelId=route.name, messages=TURNS)["stream"]
    with pytest.raises(EventStreamError, match="scripted failure"):
        heard(stream)
    record = natives.of(route)
    assert (record["completion_tokens"], record["usage_source"]) == (2, "estimated")
    two = bedrock(natives, Behaviour(fault="error_event", fault_after=0), Behaviour())
    events = heard(client.converse_stream(modelId=two.name, messages=TURNS)["stream"])
    assert "metadata" in events[-1]
    assert two.asked == [1, 1]


def test_our_frames_are_read_by_botocore() -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(frame({":message-type": "exception", ":exception-type": "x"}, b"{}"))
    (event,) = list(buffer)
    assert (event.headers[":exception-type"], event.payload) == ("x", b"{}")


def test_a_deployment_without_region_or_credentials_says_so(natives: Natives, client: Any) -> None:
    route = bedrock(natives, Behaviour(), headers={})
    with pytest.raises(ClientError, match="names no region"):
        client.converse(modelId=route.name, messages=TURNS)


def test_a_priced_call_costs_what_the_upstream_counts(natives: Natives, client: Any) -> None:
    route = bedrock(natives, Behaviour())
    client.converse(modelId=route.name, messages=TURNS)
    record = natives.of(route)
    assert record["cost_nanousd"] == price(route.places[0].handle.ended())
