"""One conversation between two sockets: passes events on both ways, has every answer paid for, and ends it for a reason that both hear."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, final

import msgspec
import structlog

from gateway import errors
from gateway.keys import Key
from gateway.realtime import events
from gateway.realtime.bill import Bill
from gateway.realtime.events import Said, Terms, Told
from gateway.realtime.limits import Limits
from gateway.realtime.websocket import Closed, WebSocket
from gateway.record import Record

log = structlog.stdlib.get_logger(__name__)

WATCH_S: Final = 0.25
MOST_ASKED: Final = 64
LAST_WORDS_S: Final = 2.0  # for an upstream to say what a cancelled answer used
OURS: Final = "event_ps_"  # begins ids of events that had none
NORMAL, GOING_AWAY, POLICY, BROKEN = 1000, 1001, 1008, 1011


class End(Exception):
    """Why it ends: what the client is told in an event, if anything, and in the frame that closes."""

    def __init__(self, code: int, reason: str, error: errors.GatewayError | None = None) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.error = error


@final
class _Running:
    """An answer that is being made, or written down."""

    __slots__ = ("record", "sounds", "texts")

    def __init__(self, record: Record) -> None:
        self.record = record
        self.texts = self.sounds = 0


@final
class Conversation:
    """`key` tells whose it is now, or raises; `public` and `theirs` are the model's names here and there. `opening` is said to the
    upstream first."""

    def __init__(
        self,
        client: WebSocket,
        upstream: WebSocket,
        bill: Bill,
        *,
        key: Callable[[], Key],
        names: tuple[str, str],
        limits: Limits,
        now: Callable[[], float],
        opening: bytes | None = None,
    ) -> None:
        self._client = client
        self._upstream = upstream
        self._bill = bill
        self._key = key
        self._public, self._theirs = names
        self._limits = limits
        self._now = now
        self._opening = opening
        self._terms = Terms()
        self._asked: deque[tuple[str, Record]] = deque()  # by the id of the event that asked for it
        self._voice: Record | None = None  # for the answer that follows when somebody stops speaking
        self._answers: dict[str, _Running] = {}
        self._transcripts: dict[str, _Running] = {}
        self._numbers = 0
        self._spoken_at = self._began = now()
        self._over = False

    async def run(self) -> None:
        """From the first event to the last; everything is settled when it returns."""
        parts: tuple[Coroutine[Any, Any, None], ...] = (self._listen(), self._answer(), self._watch(), self._drain())
        tasks = [asyncio.get_running_loop().create_task(part) for part in parts]
        end = End(
            GOING_AWAY, "server_shutdown", errors.Overloaded("The server is shutting down", code="server_shutdown")
        )
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            end = next(_end_of(task) for task in tasks if task.done())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            try:
                await self._finish(end)
            finally:
                self._settle_rest(left=end.reason == "client_gone")

    # The client's side

    async def _listen(self) -> None:
        """What the client says, until it is gone."""
        if self._opening is not None:
            self._bill.context += len(self._opening)
            await self._say(self._opening)
        while True:
            try:
                message = await self._client.receive()
            except Closed:
                raise End(NORMAL, "client_gone") from None
            self._spoken_at = self._now()
            said = _read(message.data) if message.text else None
            try:
                if said is None:
                    raise errors.BadRequest(
                        "An event is a text with a JSON object that has a type", code="invalid_event"
                    )
                await self._pass_on(said, message.data)
            except errors.GatewayError as error:
                await self._refuse(error, None if said is None else said.event_id)

    async def _pass_on(self, said: Said, text: bytes) -> None:
        match said.type:
            case "response.create":
                await self._ask(said, text)
                return
            case "session.update":
                events.no_servers(said.session, "session")
                text = events.session_named(text, self._public, self._theirs)
                if b"output_tokens" in bytes(
                    said.session
                ):  # it may allow more than what the upstream has confirmed by now
                    self._terms = msgspec.structs.replace(self._terms, most_output=None)
                self._bill.context += len(text)
            case "input_audio_buffer.append":
                self._bill.heard(len(bytes(said.audio)))
            case _:
                self._bill.read(text)
        await self._say(text)

    async def _ask(self, said: Said, text: bytes) -> None:
        """An answer is asked for once it is paid for."""
        if len(self._asked) >= MOST_ASKED:
            raise errors.RateLimited(f"{MOST_ASKED} answers are asked for and have not begun", code="too_many_answers")
        events.no_servers(said.response, "response")
        self._bill.read(text)
        record = await self._bill.hold(self._terms, events.most_output(said.response))
        event_id = said.event_id
        if event_id is None:
            event_id = self._new_id()
            text = events.with_id(text, event_id)
        self._asked.append((event_id, record))
        try:
            await self._say(text)
        except End:
            self._asked.pop()
            self._bill.release(record)  # nobody was there to be asked
            raise

    async def _refuse(self, error: errors.GatewayError, event_id: str | None) -> None:
        """Tells the client; where no answer can be paid for any more, or nobody may ask for one, that is the end."""
        if isinstance(error, errors.BudgetExceeded | errors.Unauthenticated | errors.AccessDenied):
            raise End(POLICY, error.code or error.type, error)
        await self._tell(events.error_event(error, event_id, self._new_id()))

    # The upstream's side

    async def _answer(self) -> None:
        """What the upstream says, until it is gone."""
        while True:
            try:
                message = await self._upstream.receive()
            except Closed as closed:
                error = errors.UpstreamCut(
                    f"The upstream closed the conversation ({closed.code} {closed.reason})".rstrip()
                )
                raise End(BROKEN, "upstream_closed", error) from None
            self._spoken_at = self._now()
            text = message.data
            told = _heard(text) if message.text else None
            if told is not None:
                text = await self._note(told, text)
            await self._tell(text)

    async def _note(self, told: Told, text: bytes) -> bytes:
        """One event, as the client gets it."""
        match told.type:
            case (
                "session.created"
                | "session.updated"
                | "transcription_session.created"
                | "transcription_session.updated"
            ):
                self._terms = events.terms(told.session, self._terms)
            case "input_audio_buffer.speech_started":
                await self._prepare()
            case "input_audio_buffer.committed" if self._terms.transcriber is not None:
                await self._transcribe(told.item_id or "", self._terms.transcriber)
            case "response.created":
                await self._begin(told)
            case "response.done":
                self._settle(told)
            case "conversation.item.input_audio_transcription.completed":
                self._settle_transcript(told.item_id or "", told)
            case "conversation.item.input_audio_transcription.failed":
                self._settle_transcript(told.item_id or "", None)
            case "error":
                return self._failed(told, text)
            case _:
                self._count(told)
        return text

    async def _prepare(self) -> None:
        """Somebody speaks, and the upstream will answer by itself: the answer is paid for before they have finished."""
        if self._voice is not None or not self._terms.speaks_up:
            return
        try:
            self._voice = await self._bill.hold(self._terms)
        except errors.GatewayError as error:
            await self._say(events.event("input_audio_buffer.clear"))  # what was not heard is not answered
            await self._refuse(error, None)

    async def _begin(self, told: Told) -> None:
        id_ = "" if told.response is None else told.response.id or ""
        if self._asked:
            record = self._asked.popleft()[1]
        elif self._voice is not None:
            record, self._voice = self._voice, None
        else:  # nobody asked for it that we know of
            try:
                record = await self._bill.hold(self._terms)
            except errors.GatewayError as error:
                self._answers[id_] = _Running(self._bill.owe())
                await self._cancel()
                await self._refuse(error, None)
                return
        self._answers[id_] = _Running(record)

    def _settle(self, told: Told) -> None:
        answer = told.response
        running = self._answers.pop("" if answer is None else answer.id or "", None)
        record = running.record if running is not None else None
        if record is None:
            record = self._asked.popleft()[1] if self._asked else self._bill.owe()  # its beginning was never told
        if answer is None or answer.usage is None:
            texts, sounds = (running.texts, running.sounds) if running is not None else (0, 0)
            if texts or sounds or answer is None or answer.status not in {"failed", "cancelled"}:
                self._bill.break_off(record, texts, sounds, left=False)
                return
        self._bill.settle(record, None if answer is None else answer.usage, None if answer is None else answer.status)

    async def _transcribe(self, item: str, transcriber: str) -> None:
        try:
            self._transcripts[item] = _Running(await self._bill.hold_transcript(transcriber))
        except errors.GatewayError as error:
            self._transcripts[item] = _Running(self._bill.owe(transcriber))
            await self._refuse(error, None)

    def _settle_transcript(self, item: str, told: Told | None) -> None:
        running = self._transcripts.pop(item, None)
        transcriber = self._terms.transcriber or ""
        record = running.record if running is not None else self._bill.owe(transcriber)
        if told is not None and told.usage is None:
            self._bill.break_off(record, 0, 0, left=False)
        else:
            self._bill.settle(record, None if told is None else told.usage)

    def _failed(self, told: Told, text: bytes) -> bytes:
        """An error about an event that asked for an answer: there will be none."""
        fault = told.error
        if fault is None or fault.event_id is None:
            return text
        for place, (event_id, record) in enumerate(self._asked):
            if event_id == fault.event_id:
                del self._asked[place]
                self._bill.refused(record, fault.code if isinstance(fault.code, str) else None)
                break
        return events.without_id(text) if fault.event_id.startswith(OURS) else text

    def _count(self, told: Told) -> None:
        running = self._answers.get(told.response_id or "")
        if running is not None:
            texts, sounds = events.tokens_of(told)
            running.texts += texts
            running.sounds += sounds

    # The clocks, and the end

    async def _watch(self) -> None:
        """Ends it when its time or its key's is over, or when nobody answers."""
        limits = self._limits
        pinged_at = self._now()
        while True:
            await asyncio.sleep(WATCH_S)
            now = self._now()
            try:
                self._key()
            except errors.GatewayError as error:
                raise End(POLICY, error.code or error.type, error) from None
            if now - self._began > limits.session_s:
                raise End(NORMAL, "session_expired", _timed_out("session_expired", limits.session_s))
            if now - self._spoken_at > limits.idle_s:
                raise End(NORMAL, "idle_timeout", _timed_out("idle_timeout", limits.idle_s))
            if now - pinged_at > limits.ping_s:
                if self._client.pinged:
                    raise End(NORMAL, "client_gone")
                if self._upstream.pinged:
                    raise End(
                        BROKEN, "upstream_silent", errors.UpstreamTimeout("The upstream does not answer any more")
                    )
                self._client.ping()
                self._upstream.ping()
                pinged_at = now

    async def _drain(self) -> None:
        await self._client.draining()
        raise End(
            GOING_AWAY, "server_shutdown", errors.Overloaded("The server is shutting down", code="server_shutdown")
        )

    async def _finish(self, end: End) -> None:
        """Both sides are told. Answers that still run are cancelled, and heard out for what they used, unless nobody is left to hear."""
        if end.error is not None:
            with suppress(Closed, TimeoutError):
                async with asyncio.timeout(LAST_WORDS_S):
                    await self._client.send(events.error_event(end.error, None, self._new_id()))
        if end.reason not in {"client_gone", "upstream_closed", "upstream_silent"}:
            await self._hear_out()
        self._client.shut(end.code, end.reason)
        self._upstream.shut(NORMAL)
        log.info("realtime.ended", reason=end.reason, seconds=round(self._now() - self._began, 3))

    async def _hear_out(self) -> None:
        with suppress(Closed, TimeoutError, errors.GatewayError, End):
            async with asyncio.timeout(LAST_WORDS_S):
                await self._cancel()
                while self._answers or self._asked:
                    message = await self._upstream.receive()
                    told = _heard(message.data) if message.text else None
                    if told is not None and told.type in {"response.created", "response.done", "error"}:
                        await self._note(told, message.data)
                        if told.type == "response.created":
                            await self._cancel()

    def _settle_rest(self, *, left: bool) -> None:
        if self._voice is not None:
            self._bill.release(self._voice)
        for _, record in self._asked:  # the upstream may have begun with it
            self._bill.break_off(record, 0, 0, left=left)
        for running in (*self._answers.values(), *self._transcripts.values()):
            self._bill.break_off(running.record, running.texts, running.sounds, left=left)
        self._voice = None
        self._asked.clear()
        self._answers, self._transcripts = {}, {}

    async def _cancel(self) -> None:
        for id_ in self._answers:
            await self._say(events.event("response.cancel", **({"response_id": id_} if id_ else {})))

    async def _say(self, text: bytes) -> None:
        try:
            await self._upstream.send(text)
        except Closed:
            error = errors.UpstreamCut("The upstream closed the conversation")
            raise End(BROKEN, "upstream_closed", error) from None

    async def _tell(self, text: bytes) -> None:
        try:
            await self._client.send(text)
        except Closed:
            raise End(NORMAL, "client_gone") from None

    def _new_id(self) -> str:
        self._numbers += 1
        return f"{OURS}{self._numbers}"


def _read(text: bytes) -> Said | None:
    try:
        return events.said.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _heard(text: bytes) -> Told | None:
    """None for what is of no interest, or not understood."""
    try:
        return events.told.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _end_of(task: "asyncio.Task[None]") -> End:
    error = task.exception()
    if isinstance(error, End):
        return error
    log.error("realtime.failed", exc_info=error)
    return End(BROKEN, "internal_error", errors.Internal("Something went wrong on our side; the log has the details"))


def _timed_out(code: str, seconds: float) -> errors.GatewayError:
    return errors.RequestTimeout(f"The conversation has reached its limit of {seconds:g} s", code=code)
