"""What guards are in the trace of a call: a stage for each reading, and one for all of a stream. Nothing where nobody watches."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from gateway.call import Call
from gateway.guards.policy import Guard
from gateway.guards.report import Report
from gateway.watching import Mark, begun

Begun = tuple[Mark | None, Mapping[bytes, bytes]]


@contextmanager
def marked(call: Call, guard: Guard, report: Report, now: Callable[[], float]) -> Iterator[Mapping[bytes, bytes]]:
    """While a guard reads: the headers of a call that it makes for that."""
    mark, carried = begun(call, "guard", now(), guard.name)
    try:
        yield carried
    finally:
        if mark is not None:
            mark.ended, mark.outcome = now(), report.outcomes.get(guard.name)


def streaming(call: Call, guard: Guard, report: Report, now: Callable[[], float]) -> Mapping[bytes, bytes]:
    """The same of a guard that reads a stream, which is one stage however often it is asked: until `streamed`."""
    if call.record.watched is None:
        return {}
    known: dict[str, Begun] = report.streams
    if guard.name not in known:
        known[guard.name] = begun(call, "guard", now(), guard.name)
    return known[guard.name][1]


def streamed(report: Report, now: Callable[[], float]) -> None:
    """The stream is over, or was ended."""
    known: dict[str, Begun] = report.streams
    for name, (mark, _) in known.items():
        if mark is not None:
            mark.ended, mark.outcome = now(), report.outcomes.get(name)
