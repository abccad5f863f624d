"""What this process logs, on its way to a collector: events with their fields and traces, never a message that somebody else has written.

A log says what happened, by the rules of this house without content. Here that is made sure of once more: strings are redacted and
short, of an exception its kind and its place are told and not its words, which may quote what was said, and queries of addresses are left
out.
"""

import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, MutableMapping
from types import TracebackType
from typing import Any, Final, final

import msgspec

from admin.logs import LEVELS

MOST_FIELD: Final = 300  # characters
MOST_FIELDS: Final = 32
MOST_FRAMES: Final = 30
OWN: Final = "telemetry."  # what telemetry says of itself must not make it say more
_NO_FIELDS: Final = frozenset({"event", "level", "timestamp", "exc_info", "stack_info", "stack", "trace_id", "span_id"})
_ADDRESSES: Final = frozenset({"path", "url", "address"})

Value = str | bool | int | float
Inside = Callable[[], tuple[int, int] | None]
"""The trace and the span that the running task is in."""


class Event(msgspec.Struct, frozen=True):
    """`at` is Unix seconds. `error` is an exception's kind, `frames` where it was raised, outermost first."""

    at: float
    level: str
    name: str
    logger: str
    fields: Mapping[str, Value]
    error: str | None = None
    frames: tuple[str, ...] = ()
    trace: int = 0
    span: int = 0


@final
class ProcessLogs:
    """A processor of structlog's, which changes nothing but the trace that an event is in. `room`: of events that nobody took yet."""

    def __init__(
        self, level: str, room: int, redact: Callable[[str], str], inside: Inside, unix: Callable[[], float] = time.time
    ) -> None:
        self._least = LEVELS[level]
        self._redact = redact
        self._inside = inside
        self._unix = unix
        self._waiting: deque[Event] = deque(maxlen=room)
        self.dropped = 0

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ARG002 — structlog's
        if "trace_id" not in event and (found := self._inside()) is not None:
            event["trace_id"], event["span_id"] = f"{found[0]:032x}", f"{found[1]:016x}"
        level, name = str(event.get("level", method)), str(event.get("event", ""))
        if LEVELS.get(level, LEVELS["error"]) >= self._least and not name.startswith(OWN):
            self.dropped += len(self._waiting) == self._waiting.maxlen
            self._waiting.append(self._event(level, name, event))
        return event

    def taken(self, most: int) -> list[Event]:
        """The oldest ones; whoever takes them has them."""
        found: list[Event] = []
        while self._waiting and len(found) < most:
            found.append(self._waiting.popleft())
        return found

    def _event(self, level: str, name: str, event: Mapping[str, Any]) -> Event:
        error = _error(event.get("exc_info"))
        named = ((field, value) for field, value in event.items() if field not in _NO_FIELDS)
        return Event(
            at=self._unix(),
            level=level,
            name=self._short(name),
            logger=str(event.get("logger", "")),
            fields={
                field: self._value(field, value) for field, value in list(named)[:MOST_FIELDS] if value is not None
            },
            error=None if error is None else type(error).__qualname__,
            frames=() if error is None else _frames(error.__traceback__),
            trace=int(event.get("trace_id", "0"), 16),
            span=int(event.get("span_id", "0"), 16),
        )

    def _value(self, field: str, value: Any) -> Value:
        if isinstance(value, (bool, int, float)):
            return value
        text = str(value)
        return self._short(text.partition("?")[0] if field in _ADDRESSES else text)

    def _short(self, text: str) -> str:
        return self._redact(text[: 4 * MOST_FIELD])[:MOST_FIELD]


def _error(given: Any) -> BaseException | None:
    """Of what structlog takes for `exc_info`."""
    if isinstance(given, BaseException):
        return given
    if isinstance(given, tuple):
        return given[1] if len(given) > 1 and isinstance(given[1], BaseException) else None
    return sys.exc_info()[1] if given else None


def _frames(found: TracebackType | None) -> tuple[str, ...]:
    """Without the lines themselves."""
    frames = traceback.extract_tb(found, limit=-MOST_FRAMES)
    return tuple(f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames)
