"""The money of one conversation: what each response may cost is held before it is made, and settled once, by whatever ends it."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, final

import msgspec

from gateway import errors
from gateway.catalog import Deployment, Model
from gateway.ids import RequestIds
from gateway.keys import Key
from gateway.metering import Meter
from gateway.need import Offer
from gateway.prompt_bound import CALL_TOKENS, FILE_TOKENS
from gateway.realtime.events import BYTES_PER_TOKEN, HEARD_BYTES_PER_TOKEN, Report, Terms
from gateway.record import LEFT, Record
from gateway.snapshot import Current
from gateway.units.ask import Ask
from gateway.usage import usage

RESPONSE: Final = "realtime"
TRANSCRIPT: Final = "realtime_transcription"
LEAST_HEARD_S: Final = 1.0
HEARD_BYTES_PER_S: Final = 8_000  # of base64, at least: G.711
TRANSCRIPT_TOKENS_PER_S: Final = 32  # as `gateway.units.transcription` has it
SPOKEN_TOKENS_PER_S: Final = 8


class Party(msgspec.Struct, frozen=True):
    """Who talks to what. `name` is the model's public name, `wild` what stands for a `*` of the deployment's."""

    name: str
    model: Model
    deployment: Deployment
    wild: str
    tags: list[str] | None


@final
class Bill:
    """`owner` is whose it is, `key` tells that for now, or raises. `unix` and `now` are clocks, `finished` is given each record once.

    `context`: tokens that the next answer may have to read, at most; `likely`: as many as it probably will.
    """

    def __init__(
        self,
        party: Party,
        *,
        owner: Key,
        key: Callable[[], Key],
        current: Current,
        meter: Meter,
        finished: Callable[[Record], None],
        unix: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self._party = party
        self._owner = owner
        self._key = key
        self._current = current
        self._meter = meter
        self._finished = finished
        self._unix = unix
        self._now = now
        self._ids = RequestIds()
        self._transcribers: dict[str, Deployment] = {}
        self.context = CALL_TOKENS
        self.likely = 0
        self.heard_bytes = 0  # of sound, not yet part of a turn
        self.voiced = False  # there was more than text

    def read(self, text: bytes) -> None:
        """A client's event that may become a part of the conversation."""
        self.context += len(text)
        self.likely += len(text) // BYTES_PER_TOKEN
        self.voiced = self.voiced or b"audio" in text or b"image" in text

    def heard(self, size: int) -> None:
        """Sound of so many bytes, in base64."""
        self.voiced = True
        self.heard_bytes += size
        self.context += size // HEARD_BYTES_PER_TOKEN + 1
        self.likely += size // 6400  # ten tokens a second of PCM at 24 kHz

    async def hold(self, terms: Terms, most_output: int | None = None) -> Record:
        """Sets aside what an answer may cost. Raises what `Meter.open` raises, which is recorded, and what the key has become."""
        record = self._record(RESPONSE)
        await self._open(record, lambda: self._offer(terms, most_output))
        return record

    async def hold_transcript(self, transcriber: str) -> Record:
        """The same for a turn that is about to be written down by another model, at that one's price."""
        record = self._record(TRANSCRIPT)
        await self._open(record, lambda: self._transcript_offer(transcriber))
        return record

    def owe(self, transcriber: str | None = None) -> Record:
        """For what the upstream does unasked where nothing is left: it is owed all the same. With a `transcriber` it is a transcript."""
        record = self._record(RESPONSE if transcriber is None else TRANSCRIPT)
        offer = self._offer(Terms(), None) if transcriber is None else self._transcript_offer(transcriber)
        self._meter.open_owing(self._current.snapshot.rules, record, offer)
        record.sent = True
        return record

    def settle(self, record: Record, report: Report | None, status: str | None = None) -> None:
        """An answer has ended, and the upstream says what it used. Without a report it did nothing."""
        record.usage, record.usage_source = (report or Report()).used, "provider"
        if record.endpoint == RESPONSE and report is not None:
            self.context = CALL_TOKENS + (report.input_tokens or 0) + (report.output_tokens or 0)
            self.likely = self.context - CALL_TOKENS
        failed = status == "failed"
        self._close(record, 502 if failed else 200, "upstream_error" if failed else None)

    def break_off(self, record: Record, texts: int, sounds: int, *, left: bool) -> None:
        """An answer that nobody heard the end of: what came of it counts. `left`: it was the client who did not."""
        used = usage(self.likely, texts + sounds, audio_output=sounds)
        if record.endpoint == TRANSCRIPT:
            worst = None if record.ticket is None else record.ticket.offer.worst
            used = worst or used
        record.usage, record.usage_source = used, "estimated"
        self._close(record, 499 if left else 502, LEFT if left else "upstream_error")

    def release(self, record: Record) -> None:
        """What was set aside was never asked for: nothing is owed, and nothing happened."""
        self._meter.release(record)

    def refused(self, record: Record, code: str | None) -> None:
        """The upstream did not want to answer."""
        record.refused = True
        self._close(record, 400, code or "invalid_request_error")

    async def _open(self, record: Record, offer: Callable[[], Offer]) -> None:
        try:
            record.key = self._owner = self._key()
            offered, rules = offer(), self._current.snapshot.rules
            if not self._meter.open_at_once(rules, record, offered):
                await self._borrow(record, self._meter.open_borrowing(rules, record, offered))
        except errors.GatewayError as error:
            self._close(record, error.status, error.code or error.type)
            raise
        record.sent = True

    async def _borrow(self, record: Record, opening: Coroutine[Any, Any, None]) -> None:
        """Whoever is cancelled meanwhile does not know whether it was lent: that is seen to the end, and given back."""
        task = asyncio.get_running_loop().create_task(opening)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            with suppress(errors.GatewayError):
                await task
            self._meter.release(record)
            raise

    def _transcript_offer(self, transcriber: str) -> Offer:
        seconds = max(LEAST_HEARD_S, self.heard_bytes / HEARD_BYTES_PER_S)
        self.heard_bytes = 0
        sound = int(seconds * TRANSCRIPT_TOKENS_PER_S) + 1
        most = usage(sound, int(seconds * SPOKEN_TOKENS_PER_S) + 1, audio_input=sound, seconds=seconds)
        ask = Ask(model=self._party.name, most=most, likely=most)
        return self._meter.offer(self._transcriber(transcriber), transcriber, ask, b"")

    def _offer(self, terms: Terms, most_output: int | None) -> Offer:
        party = self._party
        cap = (terms.most_output if most_output is None else most_output) or 0
        sound = 0 if terms.text_only and not self.voiced else self.context
        most = usage(self.context, cap, audio_input=sound)
        return self._meter.offer(
            party.deployment, party.wild, Ask(model=party.name, most=most, likely=most, speaks=True), b""
        )

    def _transcriber(self, name: str) -> Deployment:
        known = self._transcribers.get(name)
        if known is None:
            deployment = self._party.deployment
            known = self._transcribers[name] = msgspec.structs.replace(
                deployment,
                id=f"{deployment.id}/transcription",
                target="*",
                price=None,
                max_input_tokens=FILE_TOKENS,
                max_output_tokens=None,
            )
        return known

    def _record(self, endpoint: str) -> Record:
        party, at = self._party, self._unix()
        record = Record(self._ids.at(at), endpoint, at, self._now())
        record.key = self._owner
        record.model, record.metric_model = party.name, party.model.name
        record.deployment, record.provider = party.deployment.id, party.deployment.provider
        record.tags = party.tags
        record.stream = True
        record.attempts = 1
        return record

    def _close(self, record: Record, status: int, code: str | None) -> None:
        record.status, record.error_code, record.finished_at = status, code, self._now()
        self._meter.close(record, b"")
        self._finished(record)
