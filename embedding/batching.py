"""Which sequences run together, and whose turn it is. Values in, values out: no clock, no await, no model.

A batch holds sequences of about the same length, because padding costs as much as text, and at most a budget of tokens,
because beyond about a thousand a CPU gains nothing and everybody else waits.

Turns follow weighted fair queueing (Demers et al. 1989) with tokens as the cost and equal weights. Virtual time moves by
the tokens served, divided by the requests that share them; a request starts at the time of its arrival and moves ahead
by the tokens that were run for it; who is furthest behind is next. So a request of one sentence waits for the batch in
service, not for the thousand documents before it, and a stream of sentences never starves the thousand documents.
"""

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from embedding.errors import Overloaded

Sequences = Sequence[Sequence[int]]

WIDTHS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192)


class Ticket:
    """The waiting sequences of one request. `time` is its place in virtual time, `tokens` what still waits."""

    __slots__ = ("_waiting", "arrival", "sequences", "time", "tokens")

    def __init__(self, sequences: Sequences, time: int, arrival: int) -> None:
        self.sequences = sequences
        self.time = time
        self.arrival = arrival
        self.tokens = sum(map(len, sequences))
        self._waiting: defaultdict[int, deque[int]] = defaultdict(deque)
        for position in sorted(range(len(sequences)), key=lambda at: -len(sequences[at])):
            self._waiting[width(len(sequences[position]))].append(position)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @property
    def widest(self) -> int:
        return next(iter(self._waiting))

    @property
    def turn(self) -> tuple[int, int, int]:
        """Who has the least is served first; among equals the smallest, then the oldest."""
        return self.time, self.tokens, self.arrival

    def take(self, lane: int, room: int) -> list[int]:
        """Up to `room` positions of one width, longest first."""
        queue = self._waiting.get(lane)
        if not queue:
            return []
        taken = [queue.popleft() for _ in range(min(room, len(queue)))]
        if not queue:
            del self._waiting[lane]
        tokens = sum(len(self.sequences[position]) for position in taken)
        self.time += tokens
        self.tokens -= tokens
        return taken


@dataclass(frozen=True, slots=True)
class Slot:
    """One row of a batch: which sequence of which request."""

    ticket: Ticket
    position: int


class Queue:
    """Everything that waits for the model. Used by one thread."""

    def __init__(self, *, batch_tokens: int, max_tokens: int) -> None:
        self._batch_tokens = batch_tokens
        self._max_tokens = max_tokens
        self._tickets: list[Ticket] = []
        self._now = 0
        self._arrivals = 0
        self.tokens = 0

    def __len__(self) -> int:
        return len(self._tickets)

    def add(self, sequences: Sequences) -> Ticket:
        """Overloaded when the work ahead would pass the bound."""
        ticket = Ticket(sequences, self._now, self._arrivals)
        if self.tokens + ticket.tokens > self._max_tokens:
            raise Overloaded(
                f"The embedding queue is full: {self.tokens} tokens wait and {self._max_tokens} may. Try again shortly."
            )
        self._arrivals += 1
        self._tickets.append(ticket)
        self.tokens += ticket.tokens
        return ticket

    def discard(self, ticket: Ticket) -> None:
        """Forgets what has not been taken yet; no effect on a request that is through."""
        if ticket in self._tickets:
            self._tickets.remove(ticket)
            self.tokens -= ticket.tokens

    def take(self) -> list[Slot]:
        """The next batch: the request whose turn it is, filled up with others' sequences of the same width."""
        if not self._tickets:
            return []
        turns = sorted(self._tickets, key=lambda ticket: ticket.turn)
        lane = turns[0].widest
        room = max(1, self._batch_tokens // lane)
        batch: list[Slot] = []
        for ticket in turns:
            batch += (Slot(ticket, position) for position in ticket.take(lane, room - len(batch)))
            if len(batch) == room:
                break
        self._tickets = [ticket for ticket in self._tickets if ticket]
        tokens = sum(len(slot.ticket.sequences[slot.position]) for slot in batch)
        self._now += -(-tokens // len(turns))
        self.tokens -= tokens
        return batch


def width(length: int) -> int:
    """The lane of a length: sequences of one lane share batches, so padding is at most a third, or half below 32."""
    return next((lane for lane in WIDTHS if length <= lane), length)
