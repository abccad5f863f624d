"""Limits of deployments: a minute that slides, calls at the same time, each process its part."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.catalog import Limits
from gateway.routing.minute import Minute
from tests.fixtures.routing import Clock, deployment, loads

A = deployment("a", limits=Limits(rpm=3))


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 40), st.integers(0, 5)), max_size=60))
def test_a_minute_never_tells_less_than_was_used(steps: list[tuple[float, int]]) -> None:
    """Against the sum over all uses of the last 60 seconds; and never more than over the last 65."""
    used, now = Minute(), 500.0
    every: list[tuple[float, int]] = []
    for wait, amount in steps:
        now += wait
        used.add(now, amount)
        every.append((now, amount))
        told = used.used(now)
        assert sum(amount for at, amount in every if at > now - 60) <= told
        assert told <= sum(amount for at, amount in every if at > now - 65 - 1e-9)
        wait_s = used.frees_s(now)
        assert (wait_s > 0) == (told > 0)
        assert wait_s <= 65


@settings(deadline=None)
@given(st.integers(1, 20), st.lists(st.floats(0, 30), max_size=100))
def test_no_sixty_seconds_have_more_calls_than_the_limit(rpm: int, waits: list[float]) -> None:
    """Whenever calls come."""
    clock, one = Clock(), deployment("a", limits=Limits(rpm=rpm))
    view = loads(clock)
    let_in: list[float] = []
    for wait in waits:
        clock.now += wait
        if view.fits(one, 0):
            view.begin(one, 0)
            let_in.append(clock.now)
    for at in let_in:
        assert sum(at - 60 < other <= at for other in let_in) <= rpm


def test_room_comes_back_when_it_was_said() -> None:
    """`retry-after` is true."""
    clock = Clock()
    view = loads(clock)
    for _ in range(3):
        view.begin(A, 0)
    assert not view.fits(A, 0)
    wait_s = view.frees_s(A)
    assert wait_s is not None
    assert 55 < wait_s <= 65
    clock.now += wait_s - 0.1
    assert not view.fits(A, 0)
    clock.now += 0.2
    assert view.fits(A, 0)


def test_what_was_not_sent_was_not_used() -> None:
    """A call that its budget refused does not count against the provider's limit."""
    view = loads()
    for _ in range(3):
        view.let_go(view.begin(A, 100), sent=False)
    assert view.used(A) == 0
    view.let_go(view.begin(A, 100), sent=True)
    assert view.used(A) == 1 / 3


def test_tokens_are_corrected_to_what_was_used() -> None:
    """Held as asked for, counted as used; a call that is larger than the minute has an empty one to itself."""
    one = deployment("a", limits=Limits(tpm=1000))
    view = loads()
    ticket = view.begin(one, 900)
    assert not view.fits(one, 200)
    view.end(ticket, None, 50, 50, ok=True)
    assert view.fits(one, 900)
    assert not view.fits(one, 901)
    assert loads().fits(one, 5000)


def test_calls_at_the_same_time() -> None:
    """Nobody can say when one ends, so no time is given."""
    one = deployment("a", limits=Limits(parallel=2))
    view = loads()
    first, _ = view.begin(one, 0), view.begin(one, 0)
    assert not view.fits(one, 0)
    assert view.frees_s(one) is None
    view.let_go(first, sent=True)
    assert view.fits(one, 0)
