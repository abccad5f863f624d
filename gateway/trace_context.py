"""Which trace a request belongs to: W3C Trace Context in, a decision about sampling, and the line that goes upstream."""

import random
import re
from collections.abc import Mapping
from typing import Final

import msgspec

_PARENT: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_LOW: Final = (1 << 64) - 1


class Context(msgspec.Struct, frozen=True):
    """Of one request. `parent` is the client's span, None where the trace begins here; `state` its `tracestate`."""

    trace: int
    parent: int | None
    sampled: bool
    state: bytes | None = None

    def lines(self, span: int) -> bytes:
        """The header lines for an upstream, whose parent is `span`."""
        line = b"traceparent: %b\r\n" % self.parent_line(span)
        return line if self.state is None else b"%btracestate: %b\r\n" % (line, self.state)

    def carried(self, span: int) -> Mapping[bytes, bytes]:
        """The same as headers, for a call that is made here."""
        told = {b"traceparent": self.parent_line(span)}
        return told if self.state is None else {**told, b"tracestate": self.state}

    def parent_line(self, span: int) -> bytes:
        return b"00-%032x-%016x-%02x" % (self.trace, span, self.sampled)


class Sampler(msgspec.Struct, frozen=True):
    """`share` of the traces that begin here are kept, by their ids, so that every process decides alike.

    `follows`: who began a trace has decided for it (parent-based).
    """

    share: float = 1.0
    follows: bool = True

    def keeps(self, trace: int) -> bool:
        return trace & _LOW < round(self.share * (_LOW + 1))  # as OpenTelemetry's TraceIdRatioBased


def context(headers: Mapping[bytes, bytes], sampler: Sampler) -> Context:
    """The trace that a client names; a new one where it names none, or none that is valid (W3C Trace Context 3.2)."""
    found = _PARENT.fullmatch(headers.get(b"traceparent", b""))
    if found is not None and found[1] != b"ff" and (found[1] != b"00" or found[5] is None):
        trace, parent = int(found[2], 16), int(found[3], 16)
        if trace and parent:
            told = bool(int(found[4], 16) & 1)
            state = headers.get(b"tracestate")
            return Context(trace, parent, told if sampler.follows else sampler.keeps(trace), state)
    trace = random.getrandbits(128) or 1
    return Context(trace, None, sampler.keeps(trace))


def named(headers: Mapping[bytes, bytes]) -> Mapping[str, str]:
    """For a log: the trace that a client names, if it names one."""
    found = context(headers, Sampler())
    if found.parent is None:
        return {}
    return {"trace_id": f"{found.trace:032x}", "span_id": f"{found.parent:016x}"}


def new_span() -> int:
    return random.getrandbits(64) or 1
