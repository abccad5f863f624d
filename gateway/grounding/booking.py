"""On what account searches are made that belong to a request: its tags and its trace, so that one answer has one bill."""

from collections.abc import Mapping
from typing import Final

import msgspec

from gateway.grounding.ports import Booking

TAGS: Final = b"x-penstock-tags"
TRACE: Final = b"traceparent"
NOTHING: Final = Booking()


def of(headers: Mapping[bytes, bytes], whole: str | None = None, *, granted: bool = False) -> Booking:
    tags, trace = headers.get(TAGS), headers.get(TRACE)
    named = () if tags is None else tuple(one.strip() for one in tags.decode("latin-1").split(","))
    return Booking(
        tuple(one for one in named if one), None if trace is None else trace.decode("latin-1"), granted, whole
    )


def within(booking: Booking, carried: Mapping[bytes, bytes]) -> Booking:
    """The same below a span, where there is one."""
    trace = carried.get(TRACE)
    return booking if trace is None else msgspec.structs.replace(booking, trace=trace.decode("latin-1"))
