"""Gemini's answers as chat completions and embeddings, read by the types of OpenAI's SDK."""

import base64
import json
import struct
from typing import Any

import pytest
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion

from gateway import errors
from gateway.used import Usage
from tests.dialects.gemini_payloads import (
    DIALECT,
    PNG,
    SIGNATURE,
    JsonObject,
    answer,
    blocked,
    call,
    failure,
    said,
    thought,
)


def read(body: bytes) -> tuple[ChatCompletion, Usage | None]:
    out, used = DIALECT.answer("chat", body, "chat")
    return ChatCompletion.model_validate_json(out, strict=True), used


def test_text_is_joined() -> None:
    """Id and model are kept and told by the client's name."""
    found, used = read(answer(said("Grüß "), said("Gott")))
    choice = found.choices[0]
    assert (choice.message.content, choice.finish_reason, choice.message.role) == ("Grüß Gott", "stop", "assistant")
    assert (found.id, found.model, found.created) == ("n1RFaaz0DaGvnsEPqPCq2Qo", "chat", 1_760_000_000)
    assert choice.message.tool_calls is None
    assert used == Usage(12, 7)


def test_thoughts_are_part_of_the_completion() -> None:
    """Google counts beside the answer what OpenAI counts in it, and results of its own tools beside the prompt."""
    usage = {
        "promptTokenCount": 100,
        "candidatesTokenCount": 10,
        "thoughtsTokenCount": 30,
        "toolUsePromptTokenCount": 5,
        "cachedContentTokenCount": 80,
        "totalTokenCount": 145,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 60}, {"modality": "AUDIO", "tokenCount": 40}],
    }
    found, used = read(answer(thought("First … then"), said("So."), usage=usage))
    told = found.usage
    assert told is not None
    assert told.prompt_tokens_details is not None
    assert told.completion_tokens_details is not None
    assert (told.prompt_tokens, told.completion_tokens, told.total_tokens) == (105, 40, 145)
    assert (told.prompt_tokens_details.cached_tokens, told.prompt_tokens_details.audio_tokens) == (80, 40)
    assert told.completion_tokens_details.reasoning_tokens == 30
    assert used == Usage(input=105, output=40, cached_read=80, reasoning=30, audio_input=40)
    message = found.choices[0].message
    assert (message.content, (message.model_extra or {})["reasoning_content"]) == ("So.", "First … then")


def test_tool_calls_have_arguments_as_text() -> None:
    """In the order of the parts, with no content where nothing was said."""
    found, _ = read(answer(call("get_weather", {"city": "Zürich", "days": [1, 2]}, "fc1"), call("get_time", {})))
    choice = found.choices[0]
    calls: list[Any] = list(choice.message.tool_calls or [])
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    assert [one.function.name for one in calls] == ["get_weather", "get_time"]
    assert (calls[0].id, calls[1].id.startswith("call_made")) == ("fc1", True)
    assert [json.loads(one.function.arguments) for one in calls] == [{"city": "Zürich", "days": [1, 2]}, {}]


def test_sealed_thoughts_can_go_back() -> None:
    """What an answer gave is what the next request sends, to the byte: with the call, and with the text."""
    parts: list[JsonObject] = [
        said("So.", thoughtSignature="dGV4dA=="),
        call("f", {"a": 1}, "fc1", thoughtSignature=SIGNATURE),
        call("g", {}, "fc2"),
    ]
    out, _ = DIALECT.answer("chat", answer(*parts), "chat")
    message = json.loads(out)["choices"][0]["message"]
    results = [{"role": "tool", "tool_call_id": name, "content": "ok"} for name in ("fc1", "fc2")]
    body = {"model": "chat", "messages": [{"role": "user", "content": "?"}, message, *results]}
    sent = json.loads(DIALECT.request("chat", json.dumps(body).encode(), "gemini-3-flash-preview").body)
    assert sent["contents"][1] == {"role": "model", "parts": parts}
    assert sent["contents"][2] == {
        "role": "user",
        "parts": [
            {"functionResponse": {"name": "f", "response": {"output": "ok"}, "id": "fc1"}},
            {"functionResponse": {"name": "g", "response": {"output": "ok"}, "id": "fc2"}},
        ],
    }


def test_a_picture_is_a_data_uri() -> None:
    """Beside the content."""
    found, _ = read(answer(said("Here:"), PNG))
    (image,) = (found.choices[0].message.model_extra or {})["images"]
    assert image["image_url"]["url"] == "data:image/png;base64,iVBORw0KGgo="


def test_several_answers_are_choices() -> None:
    """In Google's order, by their numbers."""
    body = json.loads(answer(said("a")))
    body["candidates"].append(
        {"content": {"parts": [{"text": "b"}], "role": "model"}, "index": 1, "finishReason": "MAX_TOKENS"}
    )
    found, _ = read(json.dumps(body).encode())
    assert [(one.index, one.message.content, one.finish_reason) for one in found.choices] == [
        (0, "a", "stop"),
        (1, "b", "length"),
    ]


def test_log_probabilities_have_their_tokens() -> None:
    """With the bytes of each, and those that were not chosen."""
    chosen = [{"token": "Grü", "tokenId": 5, "logProbability": -0.25}, {"token": "ß", "logProbability": -1.5}]
    tops = [{"candidates": [chosen[0], {"token": "Gru", "logProbability": -2}]}]
    found, _ = read(answer(said("Grüß"), logprobsResult={"chosenCandidates": chosen, "topCandidates": tops}))
    logprobs = found.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    first, second = logprobs.content
    assert (first.token, first.logprob, bytes(first.bytes or [])) == ("Grü", -0.25, "Grü".encode())
    assert [(top.token, top.logprob) for top in first.top_logprobs] == [("Grü", -0.25), ("Gru", -2)]
    assert (second.token, second.top_logprobs) == ("ß", [])


def test_a_filtered_answer_says_so() -> None:
    """Often there is no content at all."""
    body = {"candidates": [{"finishReason": "SAFETY", "safetyRatings": []}], "usageMetadata": {"promptTokenCount": 4}}
    found, used = read(json.dumps(body).encode())
    assert (found.choices[0].finish_reason, found.choices[0].message.content) == ("content_filter", "")
    assert used == Usage(4)
    assert found.id.startswith("made")


def test_a_blocked_prompt_is_the_clients_error() -> None:
    """With the code that content fallbacks go by."""
    with pytest.raises(errors.UpstreamRefused) as raised:
        read(json.dumps(blocked("SAFETY")).encode())
    assert (raised.value.status, raised.value.code) == (400, "content_policy_violation")
    assert "SAFETY" in raised.value.message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"candidates": []}',
        b'{"candidates": [{"content": {"parts": [{"text": 5}]}, "finishReason": "STOP"}]}',
        answer(said("x"), reason="MALFORMED_FUNCTION_CALL"),
        b'{"candidates": [{"content": {"parts": [{"text": "x"}]}}]}',
        failure(500, "INTERNAL", "An internal error has occurred"),
    ],
)
def test_what_is_no_answer_is_the_upstreams_error(body: bytes) -> None:
    """Never an answer that looks whole."""
    with pytest.raises(errors.UpstreamError):
        DIALECT.answer("chat", body, "chat")


VECTORS = json.dumps({"embeddings": [{"values": [0.5, -0.25]}, {"values": [1, 0]}]}).encode()


def embedded(body: bytes = VECTORS, **fields: object) -> tuple[CreateEmbeddingResponse, bytes, Usage | None]:
    asked = json.dumps({"model": "embed", "input": ["Grüße", "b"], **fields}).encode()
    out, used = DIALECT.answer("embeddings", body, "embed", asked)
    if fields.get("encoding_format") == "base64":  # the SDK's type is of what it makes of it
        return CreateEmbeddingResponse.model_construct(), out, used
    return CreateEmbeddingResponse.model_validate_json(out, strict=True), out, used


def test_embeddings_keep_their_order() -> None:
    """Without a report of its own the client gets an estimate, and the books none."""
    found, _, used = embedded()
    assert [(one.index, one.embedding) for one in found.data] == [(0, [0.5, -0.25]), (1, [1.0, 0.0])]
    assert (found.model, found.usage.prompt_tokens, used) == ("embed", 3, None)
    body = json.loads(VECTORS) | {"usageMetadata": {"promptTokenCount": 9}}
    found, _, used = embedded(json.dumps(body).encode())
    assert (found.usage.prompt_tokens, used) == (9, Usage(9))


def test_embeddings_come_packed_for_those_who_ask() -> None:
    """As OpenAI's clients do by default."""
    _, out, _ = embedded(encoding_format="base64")
    packed = json.loads(out)["data"][0]["embedding"]
    assert struct.unpack("<2f", base64.b64decode(packed)) == (0.5, -0.25)


@pytest.mark.parametrize("body", [b"{", b"{}", b'{"embeddings": [{"values": [1]}]}', failure(500, "INTERNAL", "x")])
def test_what_are_no_embeddings_is_the_upstreams_error(body: bytes) -> None:
    """Also one too few."""
    with pytest.raises(errors.UpstreamError):
        embedded(body)
