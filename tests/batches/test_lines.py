"""What a line of a batch may be, what is wrong with it, and what its result says when it is read again."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.batches.batches import window_s
from gateway.batches.lines import Checker, Invalid, Problem, parse, with_tier
from gateway.batches.results import Done, Usage, answered, error_of, read, result_id, unanswered, usage_of, verdict
from gateway.batches.room import has_room
from gateway.batches.terms import BatchTerms
from tests.fixtures.batches import CHAT, chat_line

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(st.binary(max_size=200) | values.map(lambda value: json.dumps(value).encode()))
def test_any_line_is_a_call_or_told_what_is_wrong_with_it(raw: bytes) -> None:
    """Nothing that a client uploads gets past or breaks the check."""
    try:
        found: str | Problem = parse(raw, 7, CHAT).custom_id
    except Invalid as invalid:
        found = invalid.problem
    if isinstance(found, Problem):
        assert found.line == 7
        assert found.message
    else:
        assert json.loads(raw)["custom_id"] == found


@given(values, st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_a_body_goes_on_as_it_came(value: object, custom_id: str) -> None:
    """Byte for byte; also with a service tier, which changes nothing else."""
    raw = json.dumps(chat_line(custom_id, "chat", metadata=value), indent=1).replace("\n", " ").encode()
    line = parse(raw, 1, CHAT)
    body = json.loads(raw)["body"]
    assert (line.custom_id, line.model) == (custom_id, "chat")
    assert json.loads(line.body) == body
    assert line.body in raw
    assert json.loads(with_tier(line.body, "flex")) == {**body, "service_tier": "flex"}


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"custom_id": None}, "missing_required_parameter", "custom_id"),
        ({"custom_id": "x" * 600}, "invalid_value", "custom_id"),
        ({"custom_id": 5}, "invalid_type", None),
        ({"method": "GET"}, "invalid_method", "method"),
        ({"url": "/v1/embeddings"}, "mismatched_url", "url"),
        ({"body": None}, "missing_required_parameter", "body"),
        ({"body": [1]}, "invalid_type", "body"),
        ({"body": {"messages": []}}, "missing_required_parameter", "body.model"),
        ({"body": {"model": "chat", "stream": True}}, "invalid_value", "body.stream"),
        ({"body": {"model": "chat", "background": True}}, "invalid_value", "body.background"),
    ],
)
def test_a_bad_line_is_named_with_its_fault(change: dict[str, Any], code: str, param: str | None) -> None:
    """Code, parameter and line, as OpenAI tells them."""
    checker = Checker(CHAT, 10)
    checker.take(json.dumps(chat_line("a", "chat")).encode())
    checker.take(b"\r\n")
    checker.take(json.dumps({**chat_line("b", "chat"), **change}).encode())
    (problem,) = checker.problems
    assert (problem.code, problem.param, problem.line) == (code, param, 3)
    assert checker.total == 2


def test_a_file_is_checked_as_a_whole_too() -> None:
    """Names that stand twice, too many lines, none at all, and where all lines ask for one model."""
    checker = Checker(CHAT, 2)
    for name in ("a", "b", "a"):
        checker.take(json.dumps(chat_line(name, "chat")).encode())
    checker.end()
    assert [problem.code for problem in checker.problems] == ["duplicate_custom_id", "too_many_lines"]
    assert checker.model == "chat"
    empty = Checker(CHAT, 2)
    empty.take(b"  \n")
    empty.end()
    assert [problem.code for problem in empty.problems] == ["empty_file"]


@given(st.integers(100, 599), st.integers(1, 10**9), values, texts)
def test_a_result_is_one_line_that_says_what_it_is(status: int, number: int, body: object, custom_id: str) -> None:
    """However the answer was written; when it is read again, it counts the same."""
    written = json.dumps(body, indent=2).encode()
    id_ = result_id("batch_0123", number)
    line = answered(id_, custom_id, status, "req_1", written)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    value = json.loads(line)
    assert value["response"] == {"status_code": status, "request_id": "req_1", "body": body}
    assert (value["id"], value["custom_id"], value["error"]) == (id_, custom_id, None)
    ok = 200 <= status < 300
    assert read(line) == Done(number, ok, usage_of(written) if ok else Usage())


@given(st.integers(1, 10**9), texts, texts)
def test_a_line_without_a_call_has_a_result_too(number: int, custom_id: str, message: str) -> None:
    line = unanswered(result_id("batch_01", number), custom_id, "batch_expired", message)
    assert json.loads(line)["error"] == {"code": "batch_expired", "message": message}
    assert read(line) == Done(number, ok=False, usage=Usage())


@given(st.integers(1, 1000), st.data())
def test_a_torn_result_is_none(number: int, data: st.DataObject) -> None:
    """What a power cut leaves of a line is never taken for it."""
    line = answered(result_id("batch_01", number), "a", 200, "req_1", b'{"usage":{"prompt_tokens":3}}')
    cut = data.draw(st.integers(0, len(line) - 2))
    assert read(line[:cut]) is None
    assert read(line[:cut] + b"\0" * (len(line) - cut - 1) + b"\n") is None


def test_answers_that_are_no_json_become_texts() -> None:
    """Whatever an upstream says, the file of results stays readable."""
    for body in (b"<html>\n</html>", b'{"a": "\xff"}', b""):
        line = answered("batch_req_1_1", "a", 200, None, body)
        assert isinstance(json.loads(line)["response"]["body"], str)


def test_tokens_are_counted_in_both_dialects_of_openai() -> None:
    chat = b'{"usage":{"prompt_tokens":5,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":2}}}'
    responses = b'{"usage":{"input_tokens":5,"output_tokens":7,"output_tokens_details":{"reasoning_tokens":3}}}'
    assert usage_of(chat) == Usage(5, 2, 7, 0)
    assert usage_of(responses) == Usage(5, 0, 7, 3)
    assert usage_of(b'{"usage":"many"}') == usage_of(b"nonsense") == Usage()


def test_which_answers_are_results() -> None:
    """A limit is waited for, an empty budget is its owner's business, a dead key ends the batch; all else is the line's result."""
    found = {
        (status, code): verdict(status, code)
        for status, code in [
            (200, None), (400, "x"), (401, "invalid_api_key"), (403, "blocked"), (403, "model_access_denied"),
            (429, "rate_limit_exceeded"), (429, "budget_exceeded"), (429, "insufficient_quota"), (500, None), (503, "overloaded"),
        ]
    }  # fmt: skip
    assert [each[0] for each, what in found.items() if what == "again"] == [429, 503]
    assert [each for each, what in found.items() if what == "stop"] == [(401, "invalid_api_key"), (403, "blocked")]
    assert [each for each, what in found.items() if what == "broke"] == [(429, "budget_exceeded")]
    assert error_of(b'{"error":{"code":"c","message":"m"}}') == ("c", "m")
    assert error_of(b"nonsense")[0] is None


@given(st.integers(0, 100), st.integers(0, 100), st.integers(1, 50), st.integers(1, 100))
def test_lines_never_take_the_room_of_live_calls(busy: int, live: int, lines: int, calls: int) -> None:
    """More live calls never make room for a line."""
    if has_room(busy, live + 1, lines, calls):
        assert has_room(busy, live, lines, calls)
    if has_room(busy, live, lines, calls):
        assert busy + 1 <= lines
        assert live + busy + 1 <= calls


def test_a_service_tier_is_asked_for_by_model() -> None:
    terms = BatchTerms(service_tiers={"chat": "batch", "gpt-*": "flex", "gpt-5*": "batch"})
    assert [terms.tier(model) for model in ("chat", "chatty", "gpt-4", "gpt-5-mini")] == [
        "batch",
        None,
        "flex",
        "batch",
    ]


def test_a_window_is_a_number_and_a_unit() -> None:
    assert [window_s(text) for text in ("24h", "90s", "5m", "7d")] == [86_400, 90, 300, 604_800]
    assert [window_s(text) for text in ("", "h", "24", "0h", "-1h", "1.5h", "²h", "9999999s")] == [None] * 8
