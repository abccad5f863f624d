"""What a call has to expect before it waits, and the classes that it may have."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admission.classes import CLASSES, PLAIN, Standing, complaint, rank_of, standing
from gateway.admission.forecast import KEPT, Outlook, Pace, hopeless, retry_after_s, wait_s
from gateway.errors import AccessDenied, BadRequest

ages = st.lists(st.floats(0, 100), min_size=1, max_size=8)


def test_a_place_is_free_when_the_oldest_call_has_had_its_time() -> None:
    """Then the next one, and after a round of all places the first one again."""
    assert [wait_s(ahead, [4.0, 1.0], 5.0) for ahead in range(4)] == [1.0, 4.0, 6.0, 9.0]


def test_nothing_is_expected_of_what_is_not_known() -> None:
    """Nobody is sent away on a guess."""
    assert wait_s(10, [1.0], Pace().mean_s) == 0.0
    assert wait_s(10, [], 5.0) == 0.0


@given(st.integers(0, 50), ages, st.floats(0, 100))
def test_more_before_one_never_means_less_to_wait(ahead: int, have: list[float], mean_s: float) -> None:
    """And nobody waits longer than one round of all places for each that is before it."""
    wait = wait_s(ahead, have, mean_s)
    assert 0 <= wait <= wait_s(ahead + 1, have, mean_s) <= wait + mean_s + 1e-9
    assert wait <= mean_s * (ahead // len(have) + 1) + 1e-9


def test_the_last_calls_count() -> None:
    """As many as are kept."""
    pace = Pace()
    for seconds in [100.0] * 5 + [1.0, 3.0] * (KEPT // 2):
        pace.note(seconds)
    assert (pace.mean_s, pace.least_s) == (2.0, 1.0)


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0, 100), st.floats(0.1, 100))
def test_only_who_cannot_be_served_in_time_is_refused(
    begins_s: float, takes_s: float, left_s: float, patience_s: float
) -> None:
    """It has to begin before anybody's patience ends, and to end before its own time does."""
    refused = hopeless(Outlook(begins_s, takes_s), left_s=left_s, patience_s=patience_s)
    assert refused == (begins_s > patience_s or begins_s + takes_s > left_s)


def test_when_to_come_again_is_whole_seconds_within_a_minute() -> None:
    assert [retry_after_s(Outlook(begins, 0)) for begins in (0, 0.2, 1.2, 900)] == [1, 1, 2, 60]


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ([{}], PLAIN),
        ([None, {"team": "x"}], PLAIN),
        ([{"priority": "low"}], Standing(2, 2)),
        ([{"priority": "high"}], Standing(0, 0)),
        ([{}, {"priority": "batch"}, {"priority": "high"}], Standing(3, 3)),  # the nearest
        ([{"max_priority": "high"}], Standing(1, 0)),
        ([{"priority": "high"}, {}, {}, {"max_priority": "low"}], Standing(2, 2)),  # no key is above its organisation
        ([{"max_priority": "high"}, {"max_priority": "normal"}], Standing(1, 1)),
        ([{}, {"weight": 3}, {"weight": 5}], Standing(1, 1, 3.0)),
        ([{"priority": "urgent", "weight": -1, "max_priority": 7}], PLAIN),
    ],
)
def test_what_metadata_declares(metadata: list[dict[str, Any] | None], expected: Standing) -> None:
    """Of the key, its user, its team and its organisation."""
    assert standing(*metadata) == expected


@pytest.mark.parametrize(
    ("own", "header", "body", "expected"),
    [
        (PLAIN, None, b"{}", "normal"),
        (PLAIN, b"low", b"{}", "low"),
        (PLAIN, b" Batch ", b"{}", "batch"),
        (Standing(1, 0), b"high", b"{}", "high"),
        (Standing(1, 0), None, b'{"service_tier": "priority"}', "high"),
        (PLAIN, None, b'{"service_tier": "priority"}', "normal"),  # a wish that the key may not have
        (PLAIN, None, b'{"service_tier": "flex"}', "low"),
        (PLAIN, None, b'{"service_tier": "auto"}', "normal"),
        (PLAIN, None, b'{"priority": 5}', "low"),
        (Standing(1, 0), None, b'{"priority": -5}', "high"),
        (Standing(2, 0), None, b'{"priority": 0}', "low"),
        (PLAIN, b"batch", b'{"service_tier": "priority"}', "batch"),
        (PLAIN, None, b'{"priority": true, "service_tier": 3}', "normal"),
        (PLAIN, None, b'{"messages": "\\"priority\\"" nonsense', "normal"),
    ],
)
def test_what_one_call_asks_for(own: Standing, header: bytes | None, body: bytes, expected: str) -> None:
    """The header before OpenAI's tier before vLLM's number."""
    headers = {} if header is None else {b"x-penstock-priority": header}
    assert CLASSES[rank_of(own, headers, body)] == expected


def test_a_header_above_what_the_key_may_have_is_refused() -> None:
    with pytest.raises(AccessDenied, match="'normal' at most"):
        rank_of(PLAIN, {b"x-penstock-priority": b"high"}, b"")
    with pytest.raises(BadRequest, match="high, normal, low, batch"):
        rank_of(PLAIN, {b"x-penstock-priority": b"urgent"}, b"")


def test_declarations_that_are_none_are_named() -> None:
    assert complaint({"priority": "urgent"}) == "priority must be one of high, normal, low, batch"
    assert "above 0" in (complaint({"weight": 0}) or "")
    assert complaint({"priority": "low", "max_priority": "high", "weight": 2.5, "team": "x"}) is None
