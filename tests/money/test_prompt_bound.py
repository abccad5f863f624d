"""The bound from bytes is never passed: against the real tokenizer on any text, and where words alone do not tell."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import bodies, wire
from gateway.prompt_bound import CALL_TOKENS, FILE_TOKENS, IMAGE_TOKENS, output_bound, text_only, upper_bound
from gateway.token_count import VOCABULARIES, TokenCounter

TEXT = st.text(max_size=200)
MESSAGES = st.lists(st.tuples(st.sampled_from(["user", "system", "assistant"]), TEXT), min_size=1, max_size=5)


@pytest.fixture(scope="module")
def counter() -> TokenCounter:
    return TokenCounter()


def chat(messages: object, **more: object) -> bytes:
    return json.dumps({"model": "gpt-4", "messages": messages, **more}, separators=(",", ":")).encode()


def bound(body: bytes, context: int | None = None) -> int:
    return upper_bound(body, wire.parse(bodies.chat_decoder, body), context_tokens=context)


@settings(deadline=None)
@given(MESSAGES, st.booleans())
def test_no_prompt_has_more_tokens_than_its_bound(
    counter: TokenCounter, said: list[tuple[str, str]], ascii_only: bool
) -> None:
    """Any unicode, escaped or not: the exact count, frames included, stays below, even without the allowance for a call."""
    messages = [{"role": role, "content": text} for role, text in said]
    body = json.dumps({"model": "gpt-4", "messages": messages}, ensure_ascii=ascii_only, separators=(",", ":"))
    encoded = body.encode("utf-8", "replace")
    exact = counter.prompt(encoded, "gpt-4")
    assert exact is not None
    assert exact <= bound(encoded) - CALL_TOKENS


def test_the_count_is_openais_own(counter: TokenCounter) -> None:
    """Token counts of tiktoken's documentation; no table, no guess."""
    assert counter.counted(["hello world"], "gpt-4") == 2
    assert counter.counted(["tiktoken is great!"], "gpt-4") == 6
    assert counter.counted(["hello"], "claude-sonnet-4-5") is None
    assert counter.prompt(chat([{"role": "user", "content": "hello world"}]), "gpt-4") == 2 + 4 + 3
    assert counter.prompt(chat([{"role": "user", "content": [{"type": "image_url"}]}]), "gpt-4") is None


def test_another_vocabulary_stands_in_where_somebody_wants_it(counter: TokenCounter) -> None:
    """For bills of what was said; tokens that are tokens already need none."""
    assert counter.nearest(["hello world"], "llama-3") == 2
    assert counter.prompt(chat([{"role": "user", "content": "hello world"}]), "llama-3") == 2 + 4 + 3
    assert counter.prompt(b'{"input":[[1,2,3],[4]]}', "m") == 4
    assert counter.prompt(b'{"input":["hello world",7]}', "m") == 3
    said = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    assert counter.prompt(chat([said]), "m") == 2 + 4 + 3
    assert counter.prompt(b'{"contents":[{"parts":[{"text":"hello"}]}]}', "m") is None


def test_a_table_that_is_not_the_right_one_is_none(tmp_path: Path) -> None:
    """Counts by a damaged table would be bills by nobody's vocabulary."""
    newer = VOCABULARIES[0]
    (tmp_path / newer.file).write_bytes(b"aGVsbG8= 0\n")
    counter = TokenCounter((tmp_path,))
    assert not counter.ready("gpt-4o")
    assert counter.counted(["hello"], "gpt-4o") is None
    assert counter.nearest(["hello"], "gpt-4o") == 1
    assert counter.ready("gpt-4o", nearest=True)


def test_special_tokens_in_a_text_are_text(counter: TokenCounter) -> None:
    """A client that writes <|endoftext|> writes thirteen characters, not one token."""
    count = counter.counted(["<|endoftext|>"], "gpt-4")
    assert count is not None
    assert count > 1


def test_a_picture_by_address_is_allowed_for() -> None:
    """A few bytes of URL are thousands of tokens."""
    part = {"type": "image_url", "image_url": {"url": "https://x/y.png"}}
    body = chat([{"role": "user", "content": [part, part]}])
    assert bound(body) == len(body) + CALL_TOKENS + 2 * IMAGE_TOKENS


def test_an_inline_picture_costs_its_allowance_not_its_base64() -> None:
    """A megabyte of base64 is one picture."""
    url = "data:image/png;base64," + "A" * 1_000_000
    assert bound(chat([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}])) < 10_000


def test_a_part_whose_type_is_escaped_is_still_seen() -> None:
    """JSON may spell `image_url` as im\\u0061ge_url."""
    part = {"type": "image_url", "image_url": {"url": "https://x/y.png"}}
    body = chat([{"role": "user", "content": [part]}]).replace(b'"type":"image', b'"t\\u0079pe":"im\\u0061ge')
    assert bound(body) > IMAGE_TOKENS
    assert not text_only(body)


@pytest.mark.parametrize("kind", ["file", "input_file", "video_url", "something_new"])
def test_what_is_only_referred_to_may_be_as_long_as_the_context(kind: str) -> None:
    """A file id says nothing about the file."""
    body = chat([{"role": "user", "content": [{"type": kind, "file": {"file_id": "file-1"}}]}])
    assert bound(body) >= FILE_TOKENS or kind == "something_new"
    assert bound(body, context=8192) <= 8192


def test_parts_of_an_unknown_shape_count_as_files() -> None:
    """What cannot be read is taken for the dearest."""
    assert bound(chat([{"role": "user", "content": {"type": "image"}}])) >= FILE_TOKENS


@pytest.mark.parametrize(
    ("more", "text"),
    [({}, True), ({"modalities": ["text", "audio"]}, False), ({"x": {"ttl": "1h"}}, False), ({"y": "\x01"}, False)],
)
def test_text_is_told_from_what_may_be_dearer(more: dict[str, object], text: bool) -> None:
    """A false `no` costs a larger hold, a false `yes` an overrun."""
    assert text_only(chat([{"role": "user", "content": "hello"}], **more)) is text


@pytest.mark.parametrize(
    ("more", "tokens"),
    [
        ({}, 1000),
        ({"max_tokens": 5}, 5),
        ({"max_tokens": 5, "max_completion_tokens": 9, "n": 3}, 27),
        ({"prediction": {"content": "x"}}, 1000 + len('{"content":"x"}')),
    ],
)
def test_answers_are_bounded_together(more: dict[str, object], tokens: int) -> None:
    """`n`, both names of the limit, and predictions that are billed as output."""
    body = chat([{"role": "user", "content": "hello"}], **more)
    assert output_bound(wire.parse(bodies.chat_decoder, body), 1000) == tokens


@pytest.mark.parametrize(
    ("prompt", "more", "tokens"),
    [("a", {}, 7), (["a", "b"], {"n": 2}, 28), ([1, 2, 3], {}, 7), ([[1], [2]], {"best_of": 4}, 56)],
)
def test_each_prompt_of_a_completion_is_answered(prompt: object, more: dict[str, object], tokens: int) -> None:
    """A list of prompts multiplies the output, and so do answers that are only compared."""
    body = json.dumps({"model": "m", "prompt": prompt, "max_tokens": 7, **more}).encode()
    assert output_bound(wire.parse(bodies.completion_decoder, body), 1000) == tokens


def test_an_embedding_has_no_output() -> None:
    """And its input may be token ids, each at least two bytes."""
    body = json.dumps({"model": "m", "input": list(range(50))}).encode()
    request = wire.parse(bodies.embedding_decoder, body)
    assert output_bound(request, 1000) == 0
    assert upper_bound(body, request) >= 50
