"""The stage that listens, for keys whose calls are recorded. It is there only where somebody's are."""

from collections.abc import Coroutine
from typing import Any, Final, final

from gateway.call import Call
from gateway.completion import Answers
from gateway.contents.keeper import Keeper, Kept
from gateway.contents.spoken import ENDPOINTS, Spoken
from gateway.contents.tee import Tee
from gateway.keys import Key

SWITCH: Final = "record_content"  # of a key's metadata: true or false, above what holds for all
SESSION: Final = b"x-penstock-session"
MOST_SESSION: Final = 200


def recorded(key: Key | None, everybody: bool) -> bool:
    """Whether what this key says is kept."""
    own = None if key is None else key.metadata.get(SWITCH)
    return own if isinstance(own, bool) else everybody


@final
class Listening:
    """Before the dispatch, and before a cache. `everybody`: all keys that do not say otherwise; `max_bytes` of each of the two."""

    def __init__(self, dispatch: Answers, keeper: Keeper, *, everybody: bool, max_bytes: int) -> None:
        self.dispatch = dispatch
        self._keeper = keeper
        self._everybody = everybody
        self._max_bytes = max_bytes

    def answer(self, call: Call) -> Coroutine[Any, Any, None]:
        record = call.record
        copied = record.routed is not None and record.routed.shadow_of is not None
        if copied or call.endpoint.name not in ENDPOINTS or not recorded(record.key, self._everybody):
            return self.dispatch.answer(call)
        return self._listen(call)

    async def _listen(self, call: Call) -> None:
        record, exchange, came = call.record, call.exchange, call.body
        tee = Tee(exchange, self._max_bytes)
        call.exchange = tee
        try:
            await self.dispatch.answer(call)
        finally:
            call.exchange = exchange
            body, guarded = _kept(call, came), call.guarded
            asked = body if len(body) <= self._max_bytes else b""
            hide = None if guarded is None else guarded.hide
            spoken = Spoken(call.endpoint.name, asked, tee.content, tee.streamed, record.usage, hide)
            if record.watched is not None:
                record.watched.content = spoken
            key, session = record.key, exchange.headers.get(SESSION)
            self._keeper.offer(
                Kept(
                    id=record.id,
                    at=record.at,
                    key_id=None if key is None else key.id,
                    team_id=None if key is None else key.team_id,
                    org_id=None if key is None else key.org_id,
                    session=None if session is None else session[:MOST_SESSION].decode("latin-1"),
                    spoken=spoken,
                )
            )


def _kept(call: Call, came: bytes) -> bytes:
    """As the client wrote it, so that it can be asked again; as guards left it, where they changed it; nothing of what they refuse."""
    guarded, routed = call.guarded, call.record.routed
    if guarded is not None:
        return call.exchange.body if guarded.body is came else guarded.body
    return b"" if routed is not None and routed.guards else call.exchange.body
