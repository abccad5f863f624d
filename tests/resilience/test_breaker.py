"""The breaker is a state machine: whatever happens to it in whatever order, its promises hold."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.resilience.backoff import Retries, bound_s, wait_s
from gateway.resilience.breaker import Breaker, Thresholds

LIMITS = Thresholds(failures=3, share=0.5, calls=8, window_s=30, open_s=2, max_open_s=16, cool_s=5)
ROUNDED = 1e-9  # a sum of two times, less one of them, is not always the other
chances = st.floats(0, 1, exclude_max=True)


class BreakerHistory(RuleBasedStateMachine):
    """Calls that begin when the breaker lets them, end in any way at any time, and rate limits in between."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.breaker = Breaker(LIMITS, self.now)
        self.probe: float | None = None  # when the probe in flight began
        self.calls: list[float] = []  # ordinary calls in flight, by when they began
        self.row = 0
        self.opened_at: float | None = None
        self.cool_until = 0.0

    @rule(seconds=st.floats(0.01, 20))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.breaker.usable(self.now))
    @rule()
    def a_call_begins(self) -> None:
        half_open = self.breaker.state(self.now) == "half_open"
        self.breaker.begin(self.now)
        if half_open:
            assert self.probe is None, "two probes at once"
            self.probe = self.now
        else:
            self.calls.append(self.now)

    @precondition(lambda self: self.probe is not None)
    @rule(chance=chances, outcome=st.sampled_from(["answered", "failed", "left", "limited"]))
    def the_probe_ends(self, chance: float, outcome: str) -> None:
        assert self.probe is not None
        if outcome == "answered":
            self.breaker.succeeded(self.now, self.probe)
            assert self.breaker.state(self.now) == "closed"
            self.opened_at, self.row = None, 0
        elif outcome == "failed":
            self.breaker.failed(self.now, chance)
            assert self.breaker.state(self.now) == "open"
            self.opened_at = self.now
            self.row += 1
        elif outcome == "left":
            self.breaker.let_go()
        else:
            self._limited(chance, None)
        self.probe = None

    @precondition(lambda self: self.calls and self.probe is None)
    @rule(chance=chances, answered=st.booleans())
    def a_call_ends(self, chance: float, answered: bool) -> None:
        began = self.calls.pop(0)
        was = self.breaker.state(self.now)
        if answered:
            self.breaker.succeeded(self.now, began)
            if was == "closed":
                self.row = 0
            else:
                assert self.breaker.state(self.now) == was, "a call from before the opening closed it"
        else:
            self.breaker.failed(self.now, chance)
            self.row += 1
            if was == "closed" and self.row >= LIMITS.failures:
                assert self.breaker.state(self.now) == "open"
            if was != "open" and self.breaker.state(self.now) == "open":
                self.opened_at = self.now

    @rule(chance=chances, asked_s=st.none() | st.floats(0.01, 100))
    def a_rate_limit(self, chance: float, asked_s: float | None) -> None:
        if self.probe is None:
            self._limited(chance, asked_s)

    @invariant()
    def an_opening_is_bounded(self) -> None:
        if self.opened_at is not None:
            assert self.breaker.open_until is not None
            lasts = self.breaker.open_until - self.opened_at
            assert LIMITS.open_s / 2 - ROUNDED <= lasts <= LIMITS.max_open_s + ROUNDED

    @invariant()
    def nothing_goes_to_an_open_or_cooling_one(self) -> None:
        if self.breaker.usable(self.now):
            assert self.breaker.state(self.now) != "open"
            assert self.now >= self.cool_until
            assert self.breaker.until(self.now) == self.now

    def _limited(self, chance: float, asked_s: float | None) -> None:
        before = self.breaker.cool_until
        self.breaker.cool(self.now, asked_s, chance)
        assert self.breaker.cool_until >= before, "a shorter answer shortened a longer one"
        if asked_s is not None:
            assert self.breaker.cool_until >= self.now + min(asked_s, LIMITS.max_open_s)
        self.cool_until = self.breaker.cool_until


TestBreakerHistory = BreakerHistory.TestCase
TestBreakerHistory.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_openings_in_a_row_grow_to_the_bound_and_a_calm_time_makes_them_short_again() -> None:
    """2, 4, 8, 16, 16 seconds with all of the chance, half of that with none."""
    for chance, part in ((0.999999, 1.0), (0.0, 0.5)):
        breaker, now, lasted = Breaker(LIMITS, 0.0), 0.0, []
        for _ in range(5):
            while breaker.state(now) != "open":
                breaker.begin(now)
                breaker.failed(now, chance)
            assert breaker.open_until is not None
            lasted.append(breaker.open_until - now)
            now = breaker.open_until
        assert [round(seconds, 3) for seconds in lasted] == [part * bound for bound in (2, 4, 8, 16, 16)]
        breaker.begin(now)
        breaker.succeeded(now, now)
        now += 100
        for _ in range(LIMITS.failures):
            breaker.failed(now, chance)
        assert breaker.open_until is not None
        assert round(breaker.open_until - now, 3) == part * 2


def test_a_share_of_failures_opens_it_as_well() -> None:
    """Every other call fails: never three in a row, and half of eight within the window."""
    breaker = Breaker(LIMITS, 0.0)
    for number in range(8):
        assert breaker.state(number) == "closed"
        breaker.begin(number)
        if number % 2:
            breaker.failed(number, 0.5)
        else:
            breaker.succeeded(number, number)
    assert breaker.state(7) == "open"


@given(number=st.integers(0, 1000), share=chances, asked_s=st.none() | st.floats(0, 1000), base_s=st.floats(0, 60))
def test_a_wait_is_within_its_bounds(number: int, share: float, asked_s: float | None, base_s: float) -> None:
    """Between nothing and the bound by full jitter; never shorter than the upstream asks, never much longer than the model allows."""
    retries = Retries(attempts=3, base_s=base_s, max_s=8)
    assert bound_s(retries, number) <= 8
    wait = wait_s(retries, number, share, asked_s)
    if asked_s is None:
        assert wait is not None
        assert 0 <= wait <= bound_s(retries, number)
    elif asked_s > 8:
        assert wait is None
    else:
        assert wait is not None
        assert asked_s <= wait <= asked_s + min(base_s, 8)
