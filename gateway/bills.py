"""What is asked of models for a request, and what that costs: a question's vector, a reranking, a question put anew. Each such part is a
call of its own with a record of its own; it says what it is a part of, so that one answer has one bill.

A part comes through the same door as any call, and its header line has a name that no client can send.
"""

from collections.abc import Mapping
from typing import Final, final

from msgspec.structs import replace

from gateway.journal_records import Routed
from gateway.metering import Meter
from gateway.record import Record

PART_OF: Final = b"part of"  # HTTP's names have no space (RFC 9110 5.1), and the parser refuses one


@final
class Bills:
    """What the parts of requests under way have cost so far. On the event loop alone."""

    def __init__(self) -> None:
        self._open: dict[str, int] = {}

    def open(self, whole: str) -> None:
        self._open[whole] = 0

    def settle(self, meter: Meter, record: Record, headers: Mapping[bytes, bytes], body: bytes) -> None:
        """Closes a record; one of a part says what that is a part of, and is on that one's bill, as long as somebody waits for it."""
        whole = headers.get(PART_OF)
        if whole is None:
            meter.close(record, body)
            return
        named = whole.decode("latin-1")
        record.routed = replace(record.routed or Routed(), part_of=named)
        meter.close(record, body)
        if named in self._open:
            self._open[named] += (record.cost_nanousd or 0) + record.earlier_nanousd

    def close(self, whole: str) -> int:
        """In nano-dollars."""
        return self._open.pop(whole, 0)
