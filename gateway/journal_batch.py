"""What a run of journal records says, decoded once and many at a time: the one place that knows how records are told apart.

One call of the decoder for a whole array costs a third of one for each record. A settlement's bytes go on as they are: the ledger
keeps what was journalled.
"""

from collections.abc import Iterator, Sequence
from struct import Struct
from typing import Final, final

import msgspec

from gateway.journal_files import Run
from gateway.journal_records import Closed, Intent, Opened, Settled

TOGETHER: Final = 800  # records: what they say fits into the processor's cache; 4,000 at a time cost half as much again

_ARRAY_16: Final = 0xDC  # MessagePack: more than 15 fields; two bytes of length, then the tag
_ARRAY_32: Final = Struct(">BI")
_INTENT: Final = b"\xa1i"
_SETTLED: Final = b"\xa1s"


class _IntentId(msgspec.Struct, array_like=True, tag="i", gc=False):
    id: str


_decode_settled: Final = msgspec.msgpack.Decoder(list[Settled]).decode
_decode_ids: Final = msgspec.msgpack.Decoder(list[_IntentId]).decode
_decode_intent: Final = msgspec.msgpack.Decoder(Intent).decode
_decode_other: Final = msgspec.msgpack.Decoder(Opened | Closed).decode


class Batch(msgspec.Struct, frozen=True, gc=False):
    """`settled` are the settlements among `records`, `payloads` their bytes. `closed_at`: the journal's end is among the records."""

    records: Sequence[bytes]
    kinds: Sequence[bytes]
    payloads: Sequence[bytes]
    settled: Sequence[Settled]
    closed_at: float | None = None


def batches(run: Run) -> Iterator[Batch]:
    """In order. Raises msgspec.DecodeError for what another release wrote."""
    for start in range(0, len(run.payloads), TOGETHER):
        yield _batch(run.payloads[start : start + TOGETHER])


def _batch(records: Sequence[bytes]) -> Batch:
    kinds = [payload[3:5] if payload[0] == _ARRAY_16 else payload[1:3] for payload in records]
    closed_at = None
    for kind in set(kinds) - {_INTENT, _SETTLED}:
        for payload in [one for one, its in zip(records, kinds, strict=True) if its == kind]:
            other = _decode_other(payload)
            closed_at = other.at if isinstance(other, Closed) else closed_at
    payloads = [payload for payload, kind in zip(records, kinds, strict=True) if kind == _SETTLED]
    return Batch(records, kinds, payloads, settlements(array(payloads)), closed_at)


def array(payloads: Sequence[bytes]) -> bytes:
    """A MessagePack array of records, from their bytes."""
    return _ARRAY_32.pack(0xDD, len(payloads)) + b"".join(payloads)


def settlements(records: bytes) -> list[Settled]:
    """What `array` has put together. Raises msgspec.DecodeError."""
    return _decode_settled(records)


@final
class OpenCalls:
    """The calls that a journal has announced and not settled, as of the batches that were taken.

    Nearly every intent is settled soon after, and then nobody needs to have read more of it than its id.
    """

    def __init__(self, open_: Sequence[Intent] = ()) -> None:
        self._open: dict[str, Intent | bytes] = {intent.id: intent for intent in open_}

    def __len__(self) -> int:
        return len(self._open)

    def take(self, taken: Batch) -> None:
        """In the order of the records: an id is announced again for each attempt, and those that failed are settled as `<id>-<number>`."""
        payloads = taken.records
        announced = [payload for payload, kind in zip(payloads, taken.kinds, strict=True) if kind == _INTENT]
        ids, ends, open_ = iter(_decode_ids(array(announced))), iter(taken.settled), self._open
        for payload, kind in zip(payloads, taken.kinds, strict=True):
            if kind == _INTENT:
                open_[next(ids).id] = payload
            elif kind == _SETTLED:
                end = next(ends)
                found = open_.pop(end.id, None) is not None
                if not found or end.attempts > 1:
                    _end_attempts(open_, end, found=found)

    def intents(self) -> tuple[Intent, ...]:
        return tuple(_decode_intent(one) if isinstance(one, bytes) else one for one in self._open.values())


def _end_attempts(open_: dict[str, Intent | bytes], end: Settled, *, found: bool) -> None:
    """An attempt that was not announced by itself was announced as its request; the end of a request is that of all its attempts."""
    request, dash, _ = end.id.rpartition("-")
    if not dash:
        for number in range(2, end.attempts + 1):
            open_.pop(f"{end.id}-{number}", None)
    elif not found:
        open_.pop(request, None)
