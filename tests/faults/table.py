"""What providers do wrong, and what has to come of it: one row per fault, one column per kind of call."""

from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from gateway.resilience.failures import Failure
from tests.upstream.behaviour import Behaviour

Mode = Literal["chat", "stream", "embeddings"]
Scene = Literal["elsewhere", "stand-in", "down"]
Bill = Literal["unsent", "free", "came", "worst", "served"]  # what an attempt is settled at

MODES: Final[tuple[Mode, ...]] = ("chat", "stream", "embeddings")
SCENES: Final[tuple[Scene, ...]] = ("elsewhere", "stand-in", "down")
REFUSED: Final = "http://127.0.0.1:{closed}/v1"
UNKNOWN: Final = "http://nowhere.invalid/v1"  # RFC 6761: no resolver knows it
TEXT: Final = "water turns the wheel and the wheel turns the mill"
GOOD: Final = Behaviour(text=TEXT)
SILENT: Final = {"first_token_s": 1.5, "stall_s": 1.5, "attempt_s": 1.5, "total_s": 30.0}
PATIENT: Final = {"first_token_s": 20.0, "stall_s": 20.0, "total_s": 30.0, "connect_s": 5.0}
HALF: Final = 4  # pieces of a stream before its fault: the role, and three words


class Fault(msgspec.Struct, frozen=True):
    """One way to fail in one kind of call. `failure` None: slow, but no failure. `what`: what the place does, or an address.

    `status` and `code` are what a client is told if nothing answers; `health` is what is shown of the place afterwards.
    """

    name: str
    mode: Mode
    what: Behaviour | str
    failure: Failure | None
    status: int = 502
    code: str = "upstream_error"
    bill: Bill = "worst"
    health: str | None = "open"
    begun: bool = False  # the client has seen a part of it
    silent: bool = False  # short limits are what ends it
    retry_after: str | None = None

    @property
    def free(self) -> bool:
        """Whether going elsewhere costs no retry."""
        return self.failure in {"connect", "credentials"}

    def tells(self, status: int, code: str | None) -> bool:
        """Whether that may be what a client hears if nothing answers. A resolver that is away itself takes its time to say nothing."""
        return (status, code) == (self.status, self.code) or (
            self.what == UNKNOWN and (status, code) == (504, "connect_timeout")
        )

    @property
    def timeouts(self) -> dict[str, float]:
        return SILENT if self.silent else PATIENT


class Case(msgspec.Struct, frozen=True):
    """A fault, and what stands beside it: a deployment that works, another model that works, or nothing that does."""

    fault: Fault
    scene: Scene

    def __str__(self) -> str:
        return f"{self.fault.name} / {self.fault.mode} / {self.scene}"


def cases() -> Iterator[Case]:
    for fault in faults():
        for scene in SCENES:
            if scene == "elsewhere" or (fault.failure is not None and not fault.begun):
                yield Case(fault, scene)


def faults() -> Iterator[Fault]:
    for mode in MODES:
        yield from _refusals(mode)
        yield from _nobody(mode)
        yield from _nonsense(mode)
    yield from _whole_answers()
    yield from _streams()


def _refusals(mode: Mode) -> Iterator[Fault]:
    def says(status: int, **fields: str) -> Behaviour:
        headers = tuple((name.replace("_", "-"), value) for name, value in fields.items())
        return Behaviour(status=status, error_message="the first", headers=headers)

    limited: Final = {"status": 429, "code": "rate_limit_exceeded", "bill": "free", "health": "cooling"}
    yield Fault("429 with retry-after", mode, says(429, retry_after="30"), "rate_limited", **limited, retry_after="30")  # type: ignore[arg-type]
    yield Fault("429 without", mode, says(429), "rate_limited", **limited)  # type: ignore[arg-type]
    yield Fault("500", mode, says(500), "server", bill="free")
    yield Fault("503", mode, says(503), "overloaded", 503, "upstream_overloaded", "free")
    yield Fault("401", mode, says(401), "credentials", 502, "upstream_credentials", "free", "credentials_refused")


def _nobody(mode: Mode) -> Iterator[Fault]:
    yield Fault("connection refused", mode, REFUSED, "connect", 502, "upstream_unreachable", "unsent")
    yield Fault("no such host", mode, UNKNOWN, "connect", 502, "upstream_unreachable", "unsent")
    silence = Behaviour(fault="silence")
    yield Fault("no response", mode, silence, "timeout", 504, "upstream_timeout", silent=True)


def _nonsense(mode: Mode) -> Iterator[Fault]:
    page = Behaviour(content_type="text/html", body="<html><title>Welcome to nginx!</title></html>")
    yield Fault("empty 200", mode, Behaviour(body=""), "malformed", bill="came")
    half = Behaviour(content_type="application/json", body='{"id": "x", "data": [')
    yield Fault("wrong content type", mode, page, "malformed", bill="came")
    yield Fault("truncated JSON", mode, half, "malformed", bill="came")


def _whole_answers() -> Iterator[Fault]:
    for mode in ("chat", "embeddings"):
        stalled = Behaviour(text=TEXT, fault="silence", fault_after=0)
        cut = Behaviour(text=TEXT, length_excess=100)
        chunk = Behaviour(text=TEXT, framing="chunked", fault="bad_framing", fault_after=0)
        error = Behaviour(body='{"error": {"message": "overheated", "type": "server_error"}}')
        drip = Behaviour(text=TEXT, segment_bytes=64, segment_gap_s=0.1)
        yield Fault("cut in the middle", mode, cut, "cut")
        yield Fault("stalled in the middle", mode, stalled, "timeout", 504, "upstream_timeout", silent=True)
        yield Fault("malformed chunk", mode, chunk, "malformed")
        yield Fault("error inside a 200", mode, error, "server", bill="free")
        yield Fault("slow drip", mode, drip, None, 200, bill="served", health=None)
    late = Behaviour(text=TEXT, headers_after_s=30)
    slow = Behaviour(text=TEXT, headers_after_s=0.8)
    yield Fault("first token too late", "chat", late, "timeout", 504, "upstream_timeout", silent=True)
    yield Fault("slow first token", "chat", slow, None, 200, bill="served", health=None)


def _streams() -> Iterator[Fault]:
    late = Behaviour(text=TEXT, first_token_after_s=30)
    slow = Behaviour(text=TEXT, first_token_after_s=0.8)
    drip = Behaviour(text=TEXT, gap_s=0.1, segment_bytes=64)
    yield Fault("first token too late", "stream", late, "timeout", 504, "upstream_timeout", "came", silent=True)
    yield Fault("slow first token", "stream", slow, None, 200, bill="served", health=None)
    yield Fault("slow drip", "stream", drip, None, 200, bill="served", health=None)
    for name, after, begun in (("before content", 1, False), ("in the middle", HALF, True)):

        def broken(fault: str, after: int = after) -> Behaviour:
            return Behaviour(text=TEXT, fault=fault, fault_after=after)  # type: ignore[arg-type]  # one of its literals

        yield Fault(f"cut {name}", "stream", broken("fin"), "cut", bill="came", begun=begun)
        yield Fault(f"reset {name}", "stream", broken("rst"), "cut", bill="came", begun=begun)
        yield Fault(
            f"stalled {name}", "stream", broken("silence"), "timeout", 504, "upstream_timeout", "came", begun=begun, silent=True
        )  # fmt: skip
        yield Fault(
            f"malformed event {name}", "stream", broken("bad_json_event"), "malformed", bill="came", begun=begun
        )
        yield Fault(f"malformed chunk {name}", "stream", broken("bad_framing"), "malformed", bill="came", begun=begun)
        yield Fault(
            f"error event {name}", "stream", broken("error_event"), "server", bill="came" if begun else "free", begun=begun
        )  # fmt: skip
    nothing = Behaviour(body="data: [DONE]\n\n")
    yield Fault("[DONE] alone", "stream", nothing, "malformed", bill="came")
    said = '{"choices": [{"index": 0, "delta": {"content": "water turns"}, "finish_reason": null}]}'
    unfinished = Behaviour(body=f"data: {said}\n\n")
    yield Fault("ends without finish_reason", "stream", unfinished, "malformed", bill="came", begun=True)
    yield Fault("[DONE] is missing", "stream", Behaviour(text=TEXT, done=False), None, 200, bill="served", health=None)
