"""What a run of journal records says, decoded once and many at a time: the one place that knows how records are told apart.

One call of the decoder for a whole array costs a third of one for each record. A settlement's bytes go on as they are: the ledger
keeps what was journalled.
"""

from collections.abc import Iterator, Sequence
from struct import Struct
from typing import Final, final

import msgspec

from gateway.journal_files import Run
from gateway.journal_heads import Batch, BeganId, End, IntentId, Opening
from gateway.journal_records import Began, Closed, Ended, Intent, Opened, Party, Settled, party_of

TOGETHER: Final = 800  # records: what they say fits into the processor's cache; 4,000 at a time cost half as much again

_ARRAY_16: Final = 0xDC  # MessagePack: more than 15 fields; two bytes of length, then the tag
_ARRAY_32: Final = Struct(">BI")
_INTENTS: Final = frozenset(b"ib")  # tags, which are one letter each
_ENDS: Final = frozenset(b"se")


_decode_ends: Final = msgspec.msgpack.Decoder(list[End]).decode
_decode_ids: Final = msgspec.msgpack.Decoder(list[IntentId | BeganId]).decode
_decode_intent: Final = msgspec.msgpack.Decoder(Intent | Began).decode
_decode_other: Final = msgspec.msgpack.Decoder(Opened | Closed).decode


def batches(run: Run) -> Iterator[Batch]:
    """In order. Raises msgspec.DecodeError for what another release wrote."""
    for start in range(0, len(run.payloads), TOGETHER):
        yield _read(run.payloads[start : start + TOGETHER])


def _read(records: Sequence[bytes]) -> Batch:
    kinds = [payload[4] if payload[0] == _ARRAY_16 else payload[2] for payload in records]
    closed_at = None
    for kind in set(kinds) - _INTENTS - _ENDS:
        for payload in [one for one, its in zip(records, kinds, strict=True) if its == kind]:
            other = _decode_other(payload)
            closed_at = other.at if isinstance(other, Closed) else closed_at
    announced = [payload for payload, kind in zip(records, kinds, strict=True) if kind in _INTENTS]
    opened = [(one.id, payload) for one, payload in zip(_decode_ids(array(announced)), announced, strict=True)]
    payloads = [payload for payload, kind in zip(records, kinds, strict=True) if kind in _ENDS]
    return Batch(opened, _decode_ends(array(payloads)), payloads, kinds, closed_at)


def array(payloads: Sequence[bytes]) -> bytes:
    """A MessagePack array of records, from their bytes."""
    return _ARRAY_32.pack(0xDD, len(payloads)) + b"".join(payloads)


def settlements(records: bytes) -> list[Settled]:
    """What `array` has put together, whichever form each was written in. Raises msgspec.DecodeError."""
    parties: dict[bytes, Party] = {}
    found = []
    for end in _decode_ends(records):
        if type(end) is Ended:
            raw = bytes(end.party)
            party = parties.get(raw)
            if party is None:
                party = parties[raw] = party_of(end.party)
            found.append(end.settled(party))
        else:
            assert isinstance(end, Settled)
            found.append(end)
    return found


@final
class OpenCalls:
    """The calls that a journal has announced and not settled, as of the batches that were taken.

    Nearly every intent is settled soon after, and then nobody needs to have read more of it than its id.
    """

    def __init__(self, open_: Sequence[Intent] = ()) -> None:
        self._open: dict[str, Opening] = {intent.id: intent for intent in open_}

    def __len__(self) -> int:
        return len(self._open)

    def take(self, taken: Batch) -> None:
        """In the order of the records: an id is announced again for each attempt, and those that failed are settled as `<id>-<number>`."""
        open_ = self._open
        ids = [end.id for end in taken.ends]
        if max([end.attempts for end in taken.ends], default=0) < 2 and "-" not in "".join(ids):
            open_.update(taken.opened)  # no call has had more than one attempt: each begins before it ends
            for id_ in ids:
                open_.pop(id_, None)
            return
        opened, ends = iter(taken.opened), iter(taken.ends)
        for kind in taken.kinds:
            if kind in _INTENTS:
                id_, what = next(opened)
                open_[id_] = what
            elif kind in _ENDS:
                end = next(ends)
                found = open_.pop(end.id, None) is not None
                if not found or end.attempts > 1:
                    _end_attempts(open_, end, found=found)

    def intents(self) -> tuple[Intent, ...]:
        return tuple(_intent(one) for one in self._open.values())


def _intent(opening: Opening) -> Intent:
    if not isinstance(opening, bytes):
        return opening
    read = _decode_intent(opening)
    return read.intent() if isinstance(read, Began) else read


def _end_attempts(open_: dict[str, Opening], end: End, *, found: bool) -> None:
    """An attempt that was not announced by itself was announced as its request; the end of a request is that of all its attempts."""
    request, dash, _ = end.id.rpartition("-")
    if not dash:
        for number in range(2, end.attempts + 1):
            open_.pop(f"{end.id}-{number}", None)
    elif not found:
        open_.pop(request, None)
