"""What providers do wrong, and what has to come of it: one row per fault, one column per kind of call."""

from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from gateway.resilience.failures import Failure
from tests.faults.doors import CLAUDE, DOORS, TEXT, Door, end_alone, overheated, unfinished
from tests.upstream.behaviour import Behaviour

Scene = Literal["elsewhere", "stand-in", "down"]
# What an attempt is settled at. `opened`: as it came, where the opening had told of the prompt; `told`: the provider had said all.
Bill = Literal["unsent", "free", "came", "opened", "worst", "told", "served"]

SCENES: Final[tuple[Scene, ...]] = ("elsewhere", "stand-in", "down")
REFUSED: Final = "http://127.0.0.1:{closed}/v1"
UNKNOWN: Final = "http://nowhere.invalid/v1"  # RFC 6761: no resolver knows it
GOOD: Final = Behaviour(text=TEXT)
SILENT: Final = {"first_token_s": 1.5, "stall_s": 1.5, "attempt_s": 1.5, "total_s": 30.0}
PATIENT: Final = {"first_token_s": 20.0, "stall_s": 20.0, "total_s": 30.0, "connect_s": 5.0}
WORDS: Final = 3  # of a stream before its fault
FLAPS: Final = 16  # calls of one that is well and ill by turns
OPENS_AT: Final = 10  # of them: its first failure is call 2, the first failure among eight calls or more is call 10


class Fault(msgspec.Struct, frozen=True):
    """One way to fail in one kind of call. `failure` None: slow, but no failure. `what`: what the place does, or an address.

    `status` and `code` (OpenAI's) are what a client is told if nothing answers; `health` is what is shown of the place afterwards.
    """

    name: str
    door: Door
    what: Behaviour | str
    failure: Failure | None
    status: int = 502
    code: str = "upstream_error"
    bill: Bill = "worst"
    health: str | None = "open"
    begun: bool = False  # the client has seen a part of it
    silent: bool = False  # short limits are what ends it
    flaps: bool = False  # every second call only
    retry_after: str | None = None

    @property
    def free(self) -> bool:
        """Whether going elsewhere costs no retry."""
        return self.failure in {"connect", "credentials"}

    def tells(self, status: int, code: str | None) -> bool:
        """Whether that may be what a client hears if nothing answers. A resolver that is away itself takes its time to say nothing."""
        heard = [(self.status, self.code), *([(504, "connect_timeout")] if self.what == UNKNOWN else [])]
        return (status, code) in [(one, self.door.code(one, name)) for one, name in heard]

    @property
    def timeouts(self) -> dict[str, float]:
        return SILENT if self.silent else PATIENT


class Case(msgspec.Struct, frozen=True):
    """A fault, and what stands beside it: a deployment that works, another model that works, or nothing that does."""

    fault: Fault
    scene: Scene

    def __str__(self) -> str:
        return f"{self.fault.name} / {self.fault.door} / {self.scene}"


def cases() -> Iterator[Case]:
    for fault in faults():
        for scene in SCENES:
            if scene == "elsewhere" or (fault.failure is not None and not fault.begun and not fault.flaps):
                yield Case(fault, scene)


def faults() -> Iterator[Fault]:
    for door in DOORS:
        yield from _refusals(door)
        yield from _nobody(door)
        yield from _nonsense(door)
        yield from _streams(door) if door.stream else _whole_answers(door)


def _refusals(door: Door) -> Iterator[Fault]:
    def says(status: int, **fields: str) -> Behaviour:
        headers = tuple((name.replace("_", "-"), value) for name, value in fields.items())
        return Behaviour(status=status, error_message="the first", headers=headers)

    limited: Final = {"status": 429, "code": "rate_limit_exceeded", "bill": "free", "health": "cooling"}
    later: Final = says(429, retry_after="600")
    yield Fault("429 with retry-after", door, later, "rate_limited", **limited, retry_after="600")  # type: ignore[arg-type]
    yield Fault("429 without", door, says(429), "rate_limited", **limited)  # type: ignore[arg-type]
    yield Fault("500", door, says(500), "server", bill="free")
    yield Fault("503", door, says(503), "overloaded", 503, "upstream_overloaded", "free")
    yield Fault("a flapping deployment", door, says(500), "server", bill="free", flaps=True)
    yield Fault("401", door, says(401), "credentials", 502, "upstream_credentials", "free", "credentials_refused")


def _nobody(door: Door) -> Iterator[Fault]:
    yield Fault("connection refused", door, REFUSED, "connect", 502, "upstream_unreachable", "unsent")
    yield Fault("no such host", door, UNKNOWN, "connect", 502, "upstream_unreachable", "unsent")
    silence = Behaviour(fault="silence")
    yield Fault("no response", door, silence, "timeout", 504, "upstream_timeout", silent=True)


def _nonsense(door: Door) -> Iterator[Fault]:
    page = Behaviour(content_type="text/html", body="<html><title>Welcome to nginx!</title></html>")
    yield Fault("empty 200", door, Behaviour(body=""), "malformed", bill="came")
    half = Behaviour(content_type="application/json", body='{"id": "x", "data": [')
    yield Fault("wrong content type", door, page, "malformed", bill="came")
    yield Fault("truncated JSON", door, half, "malformed", bill="came")


def _whole_answers(door: Door) -> Iterator[Fault]:
    stalled = Behaviour(text=TEXT, fault="silence", fault_after=0)
    cut = Behaviour(text=TEXT, length_excess=100)
    chunk = Behaviour(text=TEXT, framing="chunked", fault="bad_framing", fault_after=0)
    error = Behaviour(body=overheated(door))
    drip = Behaviour(text=TEXT, segment_bytes=64, segment_gap_s=0.1)
    yield Fault("cut in the middle", door, cut, "cut")
    yield Fault("stalled in the middle", door, stalled, "timeout", 504, "upstream_timeout", silent=True)
    yield Fault("malformed chunk", door, chunk, "malformed")
    yield Fault("error inside a 200", door, error, "server", bill="free")
    yield Fault("slow drip", door, drip, None, 200, bill="served", health=None)
    if door.api != "embeddings":
        late = Behaviour(text=TEXT, headers_after_s=30)
        slow = Behaviour(text=TEXT, headers_after_s=0.8)
        yield Fault("first token too late", door, late, "timeout", 504, "upstream_timeout", silent=True)
        yield Fault("slow first token", door, slow, None, 200, bill="served", health=None)


def _streams(door: Door) -> Iterator[Fault]:
    late = Behaviour(text=TEXT, first_token_after_s=30)
    slow = Behaviour(text=TEXT, first_token_after_s=0.8)
    drip = Behaviour(text=TEXT, gap_s=0.1, segment_bytes=64)
    came: Bill = "opened" if door.place is CLAUDE else "came"
    yield Fault("first token too late", door, late, "timeout", 504, "upstream_timeout", came, silent=True)
    yield Fault("slow first token", door, slow, None, 200, bill="served", health=None)
    yield Fault("slow drip", door, drip, None, 200, bill="served", health=None)
    for name, after, begun in (("before content", 1, False), ("in the middle", door.opening + WORDS, True)):

        def broken(fault: str, after: int = after) -> Behaviour:
            return Behaviour(text=TEXT, fault=fault, fault_after=after)  # type: ignore[arg-type]  # one of its literals

        yield Fault(f"cut {name}", door, broken("fin"), "cut", bill=came, begun=begun)
        yield Fault(f"reset {name}", door, broken("rst"), "cut", bill=came, begun=begun)
        yield Fault(
            f"stalled {name}", door, broken("silence"), "timeout", 504, "upstream_timeout", came, begun=begun, silent=True
        )  # fmt: skip
        yield Fault(f"malformed event {name}", door, broken("bad_json_event"), "malformed", bill=came, begun=begun)
        yield Fault(f"malformed chunk {name}", door, broken("bad_framing"), "malformed", bill=came, begun=begun)
        yield Fault(
            f"error event {name}", door, broken("error_event"), "server", bill=came if begun else "free", begun=begun
        )  # fmt: skip
    yield Fault("the end alone", door, Behaviour(body=end_alone(door)), "malformed", bill="came")
    yield Fault("ends without a reason", door, Behaviour(body=unfinished(door)), "malformed", bill=came, begun=True)
    endless = Behaviour(text=TEXT, done=False)
    if door.place is CLAUDE:
        yield Fault("the end is missing", door, endless, "malformed", bill="told", begun=True)
    elif not door.native:
        yield Fault("the end is missing", door, endless, None, 200, bill="served", health=None)
