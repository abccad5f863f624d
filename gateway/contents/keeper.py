"""Brings what was said into the database, redacted, by a thread of its own: nobody waits for it, and what finds no room is lost."""

import threading
from collections import deque
from typing import Final, final

import msgspec
import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from gateway.contents import store
from gateway.contents.redaction import Redact
from gateway.contents.spoken import Spoken, texts
from gateway.contents.store import Content
from gateway.database import appending

ROOM: Final = 2_000
ROOM_BYTES: Final = 64 * 1024 * 1024
AT_ONCE: Final = 200
INTERVAL_S: Final = 0.5

log = structlog.stdlib.get_logger(__name__)


class Kept(msgspec.Struct, frozen=True):
    """What was said in one request, before anybody has looked at it. `at` is Unix seconds."""

    id: str
    at: float
    key_id: str | None
    team_id: str | None
    org_id: str | None
    session: str | None
    spoken: Spoken

    @property
    def size(self) -> int:
        return len(self.spoken.request) + len(self.spoken.answer)


@final
class Keeper:
    """`offer` on the event loop; the thread starts with the first. `close` waits for what is there."""

    def __init__(self, engine: Engine, redact: Redact) -> None:
        self._engine = engine
        self._redact = redact
        self._waiting: deque[Kept] = deque()
        self._bytes = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.kept = 0
        self.dropped = 0

    def offer(self, one: Kept) -> None:
        """Returns at once."""
        if len(self._waiting) >= ROOM or self._bytes + one.size > ROOM_BYTES:
            self.dropped += 1
            return
        with self._lock:
            self._bytes += one.size
        self._waiting.append(one)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="penstock-contents", daemon=True)
            self._thread.start()

    def close(self, within_s: float) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(within_s)

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL_S):
            self._write()
        self._write()

    def _write(self) -> None:
        while self._waiting:
            some = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
            with self._lock:
                self._bytes -= sum(one.size for one in some)
            try:
                contents = [self._content(one) for one in some]
                with appending(self._engine) as tx:
                    store.add(tx, contents)
                self.kept += len(some)
            except Exception as error:  # noqa: BLE001 — a thread's border: what was said is gone, what comes is not
                self.dropped += len(some)
                reason = str(error).splitlines()[0] if isinstance(error, SQLAlchemyError) else type(error).__name__
                log.error("contents.lost", requests=len(some), reason=reason)  # noqa: TRY400 — a traceback could hold what was said

    def _content(self, one: Kept) -> Content:
        request, answer = texts(one.spoken)
        return Content(
            id=one.id,
            at=one.at,
            key_id=one.key_id,
            team_id=one.team_id,
            org_id=one.org_id,
            session=one.session,
            request=_storable(self._redact(request)),
            answer=None if answer is None else _storable(self._redact(answer)),
        )


def _storable(text: str) -> str:
    """PostgreSQL knows no NUL."""
    return text.replace("\x00", "\ufffd")
