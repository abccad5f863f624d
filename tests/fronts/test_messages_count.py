"""What is counted of a request, where the provider does not count itself."""

from typing import Any

import pytest

from gateway.fronts.messages_count import ANSWER_TOKENS, FILE_TOKENS, MESSAGE_TOKENS, PICTURE_TOKENS, count
from tests.fronts.messages import asked

FRAMES = MESSAGE_TOKENS + ANSWER_TOKENS


def estimated(*blocks: Any, **fields: Any) -> int:
    tokens, method = count(asked([{"role": "user", "content": list(blocks)}], **fields), lambda _: None)
    assert method == "estimate"
    return tokens


@pytest.mark.parametrize(
    ("block", "tokens"),
    [
        ({"type": "text", "text": "x" * 400}, 100),
        ({"type": "thinking", "thinking": "x" * 400, "signature": "s" * 400}, 100),
        ({"type": "tool_use", "id": "t" * 400, "name": "x" * 200, "input": {"a": "x" * 192}}, 100),
        ({"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "x" * 400}]}, 100),
        ({"type": "document", "title": "x" * 200, "source": {"type": "text", "data": "x" * 200}}, 100),
        ({"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "x" * 400}]}}, 100),
        ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "x" * 400}}, PICTURE_TOKENS),
        ({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "x"}}, FILE_TOKENS),
    ],
)
def test_everything_that_a_model_reads_counts(block: Any, tokens: int) -> None:
    """Words by their bytes, the rest by what it usually takes; ids and signatures are not read."""
    assert estimated(block) == pytest.approx(tokens + FRAMES, abs=1)


def test_instructions_and_tools_count() -> None:
    """Tools as the JSON that they are."""
    tool = {"name": "f", "input_schema": {"type": "object", "description": "x" * 400}}
    assert estimated({"type": "text", "text": "x"}, tools=[tool]) > 100
    assert estimated({"type": "text", "text": "x"}, system="x" * 400) == 101 + FRAMES + MESSAGE_TOKENS


def test_a_tokenizer_goes_before_the_estimate() -> None:
    """Its count of the words, with the same frames around them."""
    assert count(asked("one two"), lambda texts: sum(len(text.split()) for text in texts)) == (2 + FRAMES, "tiktoken")
