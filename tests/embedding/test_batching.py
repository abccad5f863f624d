"""The queue as pure values: everything runs once, in turn, within the budget."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding.batching import WIDTHS, Queue, Slot, Ticket, width
from embedding.errors import Overloaded

requests = st.lists(st.lists(st.integers(1, 256), min_size=1, max_size=20), min_size=1, max_size=12)


def queue_of(lengths: list[list[int]], budget: int = 512) -> tuple[Queue, list[Ticket]]:
    queue = Queue(batch_tokens=budget, max_tokens=10**9)
    return queue, [queue.add([range(length) for length in request]) for request in lengths]


@given(requests)
def test_everything_is_taken_once_and_within_the_budget(lengths: list[list[int]]) -> None:
    """Whatever the mix of lengths and requests."""
    queue, tickets = queue_of(lengths)
    taken: list[Slot] = []
    while batch := queue.take():
        widest = max(len(slot.ticket.sequences[slot.position]) for slot in batch)
        narrowest = min(len(slot.ticket.sequences[slot.position]) for slot in batch)
        assert widest * len(batch) <= 512 or len(batch) == 1
        assert width(widest) == width(narrowest)
        taken += batch
    assert len(taken) == len(set(taken)) == sum(map(len, lengths))
    assert (len(queue), queue.tokens) == (0, 0)
    assert {slot.ticket for slot in taken} == set(tickets)


@given(requests, st.data())
def test_what_is_discarded_is_not_taken_and_not_counted(lengths: list[list[int]], data: st.DataObject) -> None:
    """Also in the middle of its run, and also twice."""
    queue, tickets = queue_of(lengths)
    queue.take()
    gone = data.draw(st.sampled_from(tickets))
    queue.discard(gone)
    queue.discard(gone)
    rest: list[Slot] = []
    while batch := queue.take():
        rest += batch
    assert gone not in {slot.ticket for slot in rest}
    assert queue.tokens == 0


@given(st.integers(1, 256))
def test_a_newcomer_is_in_the_next_batch(length: int) -> None:
    """However much waits before it."""
    queue, _ = queue_of([[200] * 100, [20] * 500, [100] * 100])
    for _ in range(7):
        queue.take()
    ticket = queue.add([range(length)])
    upcoming = [queue.take() for _ in range(3)]
    assert ticket in {slot.ticket for batch in upcoming for slot in batch}


def test_a_stream_of_newcomers_does_not_starve_the_bulk() -> None:
    """Turns are by tokens served, not by size of request."""
    queue, (bulk,) = queue_of([[200] * 50])
    batches = 0
    while bulk:
        queue.add([range(200)])
        queue.add([range(200)])
        queue.take()
        batches += 1
        assert batches < 1_500  # the share of one among all that wait, and these get more with every turn


def test_padding_is_at_most_half() -> None:
    """Lanes are narrow enough that a batch is mostly text, and every length has one."""
    assert all(narrow < wide <= 2 * narrow for narrow, wide in pairwise(WIDTHS))
    assert all(length <= width(length) for length in range(1, 10_000))
    assert all(width(length) <= length * 1.5 for length in range(17, 10_000))


def test_the_bound_counts_what_waits_only() -> None:
    """What is in service has left the queue."""
    queue = Queue(batch_tokens=10, max_tokens=10)
    queue.add([range(10)])
    with pytest.raises(Overloaded):
        queue.add([range(1)])
    queue.take()
    queue.add([range(10)])
