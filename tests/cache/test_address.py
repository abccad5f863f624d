"""What of a request finds its answer: fields that are not what they should be are the upstream's to refuse."""

from typing import Any

import pytest

from gateway.cache.address import Address, _acts, telling
from gateway.cache.meaning import question


@pytest.mark.parametrize("kind", [[], {}, 1, None])
def test_a_tool_of_no_known_kind_is_never_answered_from_the_cache(kind: Any) -> None:
    assert _acts({"tools": [{"type": kind}]})
    assert not _acts({"tools": [{"type": "function"}, {"name": "an Anthropic tool"}]})


@pytest.mark.parametrize("kind", [[], {}])
def test_a_part_of_no_known_kind_is_no_question(kind: Any) -> None:
    messages = [{"role": "user", "content": [{"type": kind, "text": "Who?"}]}]
    assert question("chat", Address(b"", b"", {"messages": messages})) is None


@pytest.mark.parametrize("kind", ["item_reference", "image_generation_call", "reasoning"])
def test_an_item_that_is_only_named_is_told_apart_by_its_name(kind: str) -> None:
    """The same words about another picture are another question."""

    def told(id_: str, **item: Any) -> dict[str, Any]:
        return telling("responses", {"input": [{"id": id_, "type": kind, **item}, {"role": "user", "content": "Why?"}]})

    assert told("a") != told("b")
    assert telling("responses", {"input": [{"id": "a", "role": "user", "content": "Why?"}]}) == telling(
        "responses", {"input": [{"id": "b", "role": "user", "content": "Why?"}]}
    )
