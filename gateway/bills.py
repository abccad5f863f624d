"""What is asked of models for a request, and what that costs: a question's vector, a reranking, a question put anew. Each such part is a
call of its own with a record of its own; it says what it is a part of, so that one answer has one bill.

A part comes through the same door as any call, and its header line has a name that no client can send.
"""

from collections.abc import Mapping
from typing import Final, final

from msgspec.structs import replace

from gateway.journal_records import Routed
from gateway.record import Record

PART_OF: Final = b"part of"  # HTTP's names have no space (RFC 9110 5.1), and the parser refuses one


def note_part(record: Record, headers: Mapping[bytes, bytes]) -> str | None:
    """Says in the record what it is a part of, if it is one; and returns that."""
    whole = headers.get(PART_OF)
    if whole is None:
        return None
    named = whole.decode("latin-1")
    record.routed = replace(record.routed or Routed(), part_of=named)
    return named


@final
class Bills:
    """What the parts of requests under way have cost so far. On the event loop alone."""

    def __init__(self) -> None:
        self._open: dict[str, int] = {}

    def open(self, whole: str) -> None:
        self._open[whole] = 0

    def add(self, whole: str, record: Record) -> None:
        """A part that ended. What ends when nobody waits for it any more is in its own record alone."""
        if whole in self._open:
            self._open[whole] += (record.cost_nanousd or 0) + record.earlier_nanousd

    def close(self, whole: str) -> int:
        """In nano-dollars."""
        return self._open.pop(whole, 0)
