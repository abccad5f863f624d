"""Whose turn it is: classes, fair turns between keys, bounds, and that nobody is forgotten."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.admission.line import LONGEST_EVERY, Full, Line, Waiter, next_of

ranks = st.integers(0, 3)
keys = st.sampled_from("abcd")
arrivals = st.lists(st.tuples(keys, ranks), min_size=1, max_size=60)


def a_line(*waiters: Waiter, length: int = 1000) -> Line[Waiter]:
    line = Line[Waiter](length)
    for waiter in waiters:
        line.join(waiter)
    return line


def served(line: Line[Waiter], count: int = 1000) -> list[Waiter]:
    """Whoever is next, as many as there are places."""
    found: list[Waiter] = []
    while line.size and len(found) < count:
        waiter = next(line.in_turn())
        line.take(waiter)
        found.append(waiter)
    return found


def keys_of(waiters: Sequence[Waiter]) -> str:
    return "".join(waiter.key for waiter in waiters)


def test_higher_classes_go_first_and_within_one_whoever_came_first() -> None:
    """One key, eight calls."""
    every = [Waiter("a", rank) for rank in (3, 1, 2, 0, 3, 1, 2, 0)]
    line = a_line(*every)
    assert served(line) == [every[at] for at in (3, 7, 1, 5, 2, 6, 0, 4)]


def test_keys_take_turns_within_a_class() -> None:
    """However many calls one of them has brought."""
    line = a_line(*(Waiter("a", 1) for _ in range(4)), Waiter("b", 1), Waiter("c", 1))
    assert keys_of(served(line)) == "abcaaa"


def test_weights_are_shares_of_the_turns() -> None:
    """Three to one."""
    line = a_line(*(Waiter("a", 1, 3.0) for _ in range(12)), *(Waiter("b", 1) for _ in range(12)))
    first = keys_of(served(line, 8))
    assert (first.count("a"), first.count("b")) == (6, 2)


def test_a_key_with_calls_under_way_gives_way_to_one_without() -> None:
    """Places are what is shared, not turns: calls may be long."""
    line = a_line(Waiter("a", 1), Waiter("b", 1))
    line.begun("a")
    assert keys_of(served(line)) == "ba"
    line.ended("a")
    assert not line.in_flight


@settings(deadline=None)
@given(arrivals, st.lists(keys, max_size=6))
def test_everybody_is_in_the_order_once(came: list[tuple[str, int]], busy: list[str]) -> None:
    """And a higher class before a lower one, but for whoever waits longest when its place has come."""
    every = [Waiter(key, rank) for key, rank in came]
    line = a_line(*every)
    for key in busy:
        line.begun(key)
    order = list(line.in_turn())
    assert sorted(map(id, order)) == sorted(map(id, every))
    assert [one.rank for one in order] == sorted(one.rank for one in every)


@settings(deadline=None)
@given(st.integers(2, 40))
def test_two_keys_that_always_want_more_get_as_much(rounds: int) -> None:
    """Whatever one of them has waiting, neither is ever more than one place behind."""
    line = Line[Waiter](1000)
    counts = {"a": 0, "b": 0}
    for _ in range(rounds):
        for key in "aaab":
            line.join(Waiter(key, 1))
        (waiter,) = served(line, 1)
        counts[waiter.key] += 1
        assert abs(counts["a"] - counts["b"]) <= 1


@settings(deadline=None)
@given(arrivals, st.integers(0, 59))
def test_nobody_waits_for_ever(came: list[tuple[str, int]], chosen: int) -> None:
    """New calls of the highest class keep coming, faster than places: who has j before it waits for 16 * (j + 1) places at most."""
    every = [Waiter(key, rank) for key, rank in came]
    line = a_line(*every, length=100_000)
    index = chosen % len(every)
    patience = LONGEST_EVERY * (index + 1)
    for places in range(patience + 1):
        assert places < patience, "nobody ever served it"
        line.join(Waiter("new", 0))
        line.join(Waiter(f"new-{places}", 0))
        (waiter,) = served(line, 1)
        if waiter is every[index]:
            break


@settings(deadline=None)
@given(st.integers(1, 8), arrivals)
def test_a_line_is_never_longer_than_it_may_be(length: int, came: list[tuple[str, int]]) -> None:
    """Who comes to a full one is refused, or takes the place of somebody of a lower class, or of a key that has more."""
    line = Line[Waiter](length)
    for key, rank in came:
        waiter = Waiter(key, rank)
        before = {id(one) for one in line.everybody()}
        counts = {(one.key, one.rank): 0 for one in line.everybody()}
        for one in line.everybody():
            counts[one.key, one.rank] += 1
        lowest = max((one.rank for one in line.everybody()), default=-1)
        try:
            out = line.join(waiter)
        except Full:
            assert len(before) == length
            assert rank >= lowest
            assert {id(one) for one in line.everybody()} == before
            continue
        if out is not None:
            assert len(before) == length
            assert out.rank == lowest >= rank
            if out.rank == rank:
                assert counts[out.key, rank] > counts.get((key, rank), 0) + 1
        assert line.size == len(line.everybody()) <= length


@settings(deadline=None)
@given(arrivals, st.data())
def test_who_leaves_is_gone_and_holds_nobody_up(came: list[tuple[str, int]], data: st.DataObject) -> None:
    """From any place; leaving twice is nothing."""
    every = [Waiter(key, rank) for key, rank in came]
    line = a_line(*every)
    gone = data.draw(st.lists(st.sampled_from(every), unique_by=id))
    for one in gone:
        assert line.leave(one)
        assert not line.leave(one)
    rest = served(line)
    assert {id(one) for one in rest} == {id(one) for one in every} - {id(one) for one in gone}


def test_leaving_gives_the_turn_back() -> None:
    """A key whose calls left has had nothing, and is not behind for it."""
    line = a_line(Waiter("b", 1))
    for _ in range(5):
        gone = Waiter("a", 1)
        line.join(gone)
        line.leave(gone)
    line.join(Waiter("a", 1))
    line.join(Waiter("b", 1))
    assert keys_of(served(line)) == "bab"


def test_the_flood_of_one_key_leaves_room_for_others() -> None:
    """A full line is one key's: another's first call takes the place of the flood's last."""
    flood = [Waiter("a", 1) for _ in range(4)]
    line = a_line(*flood, length=4)
    assert line.join(Waiter("b", 1)) is flood[-1]
    with pytest.raises(Full):
        line.join(Waiter("a", 1))
    with pytest.raises(Full):
        line.join(Waiter("c", 2))


def test_a_call_of_another_place_does_not_wait_for_this_one() -> None:
    """The line is one, the places are several: whoever has room where it can go is served."""
    east, west = Waiter("a", 1), Waiter("b", 1)
    line = a_line(east, west)
    found = next_of(line, lambda one, _kept: None if one is west else frozenset({"east"}))
    assert found == (west, frozenset({"east"}))


def test_a_large_call_is_not_passed_by_small_ones_at_its_place() -> None:
    """The place that it waits for is kept, though there is room for less."""
    large, small = Waiter("a", 1), Waiter("b", 1)
    line = a_line(large, small)

    def place_for(one: Waiter, kept: frozenset[str]) -> frozenset[str] | None:
        return None if one is small and "a" not in kept else frozenset({"a"})

    assert next_of(line, place_for) is None


@settings(deadline=None)
@given(arrivals, st.sets(st.sampled_from("xyz")))
def test_no_place_stays_free_that_somebody_could_have(came: list[tuple[str, int]], free: set[str]) -> None:
    """Work-conserving: if anybody waits for a place that is free, somebody gets one."""
    where = dict(zip("abcd", "xyzx", strict=True))
    line = a_line(*(Waiter(key, rank) for key, rank in came))
    found = next_of(line, lambda one, _kept: None if where[one.key] in free else frozenset({where[one.key]}))
    wanted = any(where[key] in free for key, _ in came)
    assert (found is not None) == wanted


@settings(deadline=None)
@given(arrivals, keys, ranks)
def test_the_forecast_of_who_is_before_one_is_about_right(came: list[tuple[str, int]], key: str, rank: int) -> None:
    """As long as nobody else comes, and places are equal."""
    line = a_line(*(Waiter(one, at) for one, at in came))
    ahead = line.ahead(key, rank, 1.0)
    me = Waiter(key, rank)
    line.join(me)
    assert abs(list(line.in_turn()).index(me) - ahead) <= len(set("abcd"))
