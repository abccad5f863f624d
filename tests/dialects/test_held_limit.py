"""A provider that wants a limit gets the one that was held for, whatever else the hold has in it."""

import json
from typing import Any

import pytest

from gateway import bodies, wire
from gateway.prompt_bound import limited, output_bound


@pytest.mark.parametrize(
    "fields", [{}, {"n": 3}, {"prediction": {"type": "content", "content": "draft"}}, {"max_completion_tokens": None}]
)
def test_a_call_without_a_limit_gets_the_models(fields: dict[str, Any]) -> None:
    """What the hold has for several answers, or for a draft, is no part of it."""
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}], **fields}).encode()
    request = wire.parse(bodies.chat_decoder, body)
    assert json.loads(limited(body, request, output_bound(request, 1000)))["max_tokens"] == 1000


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_clients_own_limit_stays(name: str) -> None:
    """To the byte, as does what has no answer to limit."""
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}], name: 7}).encode()
    assert limited(body, wire.parse(bodies.chat_decoder, body), 1000) is body
    embedding = b'{"model":"m","input":"x"}'
    assert limited(embedding, wire.parse(bodies.embedding_decoder, embedding), 0) is embedding
