"""Windows of time: spans meet without gap or overlap in every zone, and a rolling window never counts too little."""

from datetime import datetime
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.scopes import SLOTS, Budget, Limits, Period, Raise, Scope, bind, calendar_span, window

ZONES = sorted(available_timezones() - {"localtime", "Factory"})
CALENDAR: list[Period] = ["minute", "hour", "day", "week", "month"]
LONGEST_S = {"minute": 60, "hour": 3_600, "day": 50 * 3_600, "week": 9 * 86_400, "month": 33 * 86_400}
MOMENTS = st.floats(min_value=-5e8, max_value=4e9)  # 1954 to 2096
BUDGET = Budget("bud_1", Scope("key", "key_1"), 1_000, "day")


def utc(zone: str, text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp())


@given(zone=st.sampled_from(ZONES), period=st.sampled_from(CALENDAR), unix=MOMENTS)
def test_spans_hold_their_moment_and_meet(zone: str, period: Period, unix: float) -> None:
    """In any zone and year: the moment is inside, all moments inside agree, and the next span begins where this one ends."""
    start, end = calendar_span(period, zone, unix)
    assert start <= unix < end
    assert end - start <= LONGEST_S[period]
    for inside in (start, (start + end) // 2, end - 0.001):
        assert calendar_span(period, zone, inside) == (start, end)
    assert calendar_span(period, zone, end)[0] == end
    assert calendar_span(period, zone, start - 0.001)[1] == start


def test_a_year_of_changing_clocks_is_cut_into_its_dates() -> None:
    """2011 holds nearly every oddity: a date that Samoa left out, half hours, clocks changed at midnight."""
    for zone in ZONES:
        at, end, days = float(utc(zone, "2011-01-01")), utc(zone, "2012-01-01"), 0
        while at < end:
            start, after = calendar_span("day", zone, at)
            assert start == at
            begins, before = (datetime.fromtimestamp(moment, ZoneInfo(zone)) for moment in (start, start - 1))
            assert (begins.hour, begins.minute) == (0, 0) or before.date() < begins.date(), zone
            at, days = float(after), days + 1
        assert at == end
        assert days == (364 if zone in {"Pacific/Apia", "Pacific/Fakaofo"} else 365), zone


@pytest.mark.parametrize(
    ("zone", "period", "moment", "start", "end"),
    [
        ("Europe/Berlin", "day", "2025-03-30T12:00", "2025-03-30T00:00", "2025-03-31T00:00"),  # 23 hours
        ("Europe/Berlin", "day", "2025-10-26T12:00", "2025-10-26T00:00", "2025-10-27T00:00"),  # 25 hours
        ("America/New_York", "month", "2025-03-31T23:59", "2025-03-01T00:00", "2025-04-01T00:00"),
        ("Asia/Kathmandu", "week", "2025-01-01T00:00", "2024-12-30T00:00", "2025-01-06T00:00"),  # weeks are of ISO 8601
        ("America/Sao_Paulo", "day", "2018-11-04T12:00", "2018-11-04T01:00", "2018-11-05T00:00"),  # no midnight
        ("America/Havana", "day", "2025-11-02T12:00", "2025-11-02T00:00", "2025-11-03T00:00"),  # midnight twice
    ],
)
def test_known_spans(zone: str, period: Period, moment: str, start: str, end: str) -> None:
    """What a person reads off the calendar."""
    assert calendar_span(period, zone, utc(zone, moment)) == (utc(zone, start), utc(zone, end))


def test_a_calendar_budget_has_one_account_per_window() -> None:
    """Named for the window's start, so that every process finds the same without a word."""
    moment = utc("UTC", "2025-06-15T10:00")
    found = window(bind(BUDGET, "key_1"), moment)
    midnight = utc("UTC", "2025-06-15")
    assert found.charged == f"b:bud_1:{midnight}"
    assert found.counted == (found.charged,)
    assert (found.starts_at, found.resets_at) == (midnight, midnight + 86_400)


def test_a_total_never_resets() -> None:
    """One account for ever, until somebody resets it."""
    total = Budget("bud_1", Scope("key", "key_1"), 1_000, "total")
    found = window(bind(total, "key_1"), 1e9)
    assert (found.charged, found.resets_at) == ("b:bud_1:0", None)
    again = Budget("bud_1", Scope("key", "key_1"), 1_000, "total", generation=2)
    assert window(bind(again, "key_1"), 1e9).charged == "b:bud_1.2:0"


@given(period=st.sampled_from(CALENDAR), unix=st.floats(min_value=1e9, max_value=4e9), back=st.floats(0, 1))
def test_a_rolling_window_counts_all_that_was_spent_within_it(period: Period, unix: float, back: float) -> None:
    """Whatever was charged at most one period ago is among what is counted now: never too little."""
    bound = bind(Budget("bud_1", Scope("key", "key_1"), 1_000, period, rolling=True), "key_1")
    length, slots = SLOTS[period]
    now = window(bound, unix)
    assert len(now.counted) == slots + 1
    assert window(bound, unix - back * length * slots).charged in now.counted
    assert now.counted[-1] == now.charged
    assert now.resets_at is not None
    assert now.starts_at <= unix - length * slots < unix < now.resets_at
    assert window(bound, now.resets_at - 0.001).counted == now.counted
    assert window(bound, now.resets_at).counted[:-1] == now.counted[1:]


def test_requests_of_a_day_have_windows_and_buckets_have_none() -> None:
    """Only what is counted per day is named for a day."""
    limits = Limits("lim_1", Scope("key", "key_1"), rpm=60, rpd=5, parallel=2, timezone="Asia/Tokyo")
    accounts = [window(bind(limit, "key_1"), utc("Asia/Tokyo", "2025-06-15T01:00")).charged for limit in limits.each()]
    assert accounts == ["l:lim_1:rpm", f"b:lim_1.rpd:{utc('Asia/Tokyo', '2025-06-15')}", "p:lim_1"]


def test_a_raise_ends_by_itself() -> None:
    """The moment it ends, the old limit holds again."""
    raised = Budget("bud_1", Scope("key", "key_1"), 1_000, "day", raised=Raise(500, 2_000.0))
    assert [raised.amount(at) for at in (1_999.9, 2_000.0)] == [1_500, 1_000]
