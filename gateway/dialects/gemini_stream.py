"""A stream of Gemini's as OpenAI's chunks: any split of the bytes in, whole events out."""

from collections.abc import Callable
from typing import Final, final

import msgspec

from gateway import errors
from gateway.dialects.events import EventReader
from gateway.dialects.gemini_answer import (
    Candidate,
    GenerateContentResponse,
    Piece,
    call_of,
    decode,
    finish,
    image_of,
    logprobs_of,
    no_candidates,
    sealed,
    usage_out,
)
from gateway.dialects.gemini_faults import failed
from gateway.usage import from_gemini
from gateway.usage_reports import GeminiUsage
from gateway.used import Usage
from gateway.wire import present

DAMAGED: Final = "The upstream sent an event that is not the JSON it should be"
MAX_EVENT_BYTES: Final = 32 * 1024 * 1024  # a picture comes in one
BYTES_PER_TOKEN: Final = 4

_encode: Final = msgspec.json.Encoder().encode


@final
class _Answer:
    """One of the answers that a stream is made of: what has been sent of it."""

    __slots__ = ("calls", "finished", "images")

    def __init__(self) -> None:
        self.calls = 0
        self.images = 0
        self.finished = False


@final
class ContentStream:
    """The state of one stream. `model` is the client's name for it, `created` Unix seconds; `keep_usage`: the client asked for usage."""

    __slots__ = (
        "_answers",
        "_created",
        "_head",
        "_keep_usage",
        "_model",
        "_new_id",
        "_reader",
        "_usage",
        "content",
        "done",
        "error",
        "events",
    )

    def __init__(self, model: str, created: int, new_id: Callable[[], str], *, keep_usage: bool) -> None:
        self._model = model
        self._created = created
        self._new_id = new_id
        self._keep_usage = keep_usage
        self._reader = EventReader(MAX_EVENT_BYTES)
        self._head = b""  # what every chunk begins with, once the answer's id is known
        self._answers: dict[int, _Answer] = {}
        self._usage: GeminiUsage | None = None
        self.content = False
        self.done = False
        self.events = 0
        self.error: errors.GatewayError | None = None

    @property
    def reported(self) -> Usage | None:
        """Counts grow with the stream. Until its end, what has come of it counts if that is more."""
        if self._usage is None:
            return None
        report = self._usage
        if not self._finished:
            thoughts = report.thoughts_token_count or 0
            least = max(report.candidates_token_count or 0, self.events - thoughts)
            report = msgspec.structs.replace(report, candidates_token_count=least)
        return from_gemini(report)

    @property
    def whole(self) -> bool:
        return self._finished and self.error is None

    @property
    def _finished(self) -> bool:
        return bool(self._answers) and all(answer.finished for answer in self._answers.values())

    def feed(self, data: bytes) -> bytes:
        if self.error is not None or self.done:
            return b""
        try:
            payloads = self._reader.feed(data)
        except errors.UpstreamError as error:
            self.error = error
            return b""
        return b"".join([self._chunks(payload) for payload in payloads])

    def close(self) -> bytes:
        """The API has no mark for the end: an answer is whole once it has said why it ended."""
        if self.error is not None or self.done:
            return b""
        out = b"".join([self._chunks(payload) for payload in self._reader.close()])
        if not self.whole:
            return out
        self.done = True
        used = self.reported
        if not self._keep_usage or used is None:
            return out
        return out + b'%b],"usage":%b}\n\n' % (self._head, _encode(usage_out(used)))

    def _chunks(self, payload: bytes) -> bytes:
        if self.error is not None:
            return b""
        try:
            event = decode(payload)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            self.error = errors.UpstreamError(DAMAGED)
            return b""
        if present(event.error):
            self.error = failed(payload)
            return b""
        return self._translated(event)

    def _translated(self, event: GenerateContentResponse) -> bytes:
        if event.usage_metadata is not None:
            self._usage = _merged(self._usage, event.usage_metadata)
        if not event.candidates:
            if event.prompt_feedback is not None and event.prompt_feedback.block_reason is not None:
                self.error = no_candidates(event.prompt_feedback)
            return b""
        if not self._head:
            self._head = b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,"choices":[' % (
                _encode(event.response_id or self._new_id()),
                self._created,
                _encode(self._model),
            )
        out: list[bytes] = []
        try:
            for candidate in event.candidates:
                self._add(candidate, out)
        except errors.UpstreamError as error:
            self.error = error
        return b"".join(out)

    def _add(self, candidate: Candidate, out: list[bytes]) -> None:
        """Raises UpstreamError for an end that is none; what came before it stands in `out`."""
        index = candidate.index
        answer = self._answers.get(index)
        if answer is None:
            answer = self._answers[index] = _Answer()
            out.append(self._chunk(index, b'{"role":"assistant","content":""}'))
        logprobs = logprobs_of(candidate.logprobs_result)
        said = b"null" if logprobs is None else _encode(logprobs)
        for piece in candidate.pieces:
            delta, length = self._delta(piece, answer)
            if delta is not None:
                self.content = True
                self.events += max(1, length // BYTES_PER_TOKEN)
                out.append(self._chunk(index, _encode(delta), said))
                said = b"null"  # once
        if candidate.finish_reason is not None and not answer.finished:
            reason = finish(candidate, called=answer.calls > 0)
            answer.finished = self.content = True
            out.append(self._chunk(index, b"{}", said, b'"%b"' % reason.encode()))

    def _delta(self, piece: Piece, answer: _Answer) -> tuple[dict[str, object] | None, int]:
        """What a part adds to the message, and its length in characters."""
        if piece.function_call is not None:
            call = call_of(piece.function_call, piece.thought_signature, self._new_id, answer.calls)
            answer.calls += 1
            return {"tool_calls": [call]}, len(call.function.arguments) + len(call.function.name)
        if piece.thought:
            return ({"reasoning_content": piece.text}, len(piece.text)) if piece.text else (None, 0)
        if piece.inline_data is not None:
            answer.images += 1
            return {"images": [image_of(piece.inline_data, answer.images - 1)]}, 0
        delta: dict[str, object] = {"content": piece.text} if piece.text else {}
        if piece.thought_signature:
            delta["extra_content"] = sealed(piece.thought_signature)
        return delta or None, len(piece.text or "")

    def _chunk(self, index: int, delta: bytes, logprobs: bytes = b"null", finish_reason: bytes = b"null") -> bytes:
        return b'%b{"index":%d,"delta":%b,"logprobs":%b,"finish_reason":%b}]%b}\n\n' % (
            self._head,
            index,
            delta,
            logprobs,
            finish_reason,
            b',"usage":null' if self._keep_usage else b"",
        )


def _merged(before: GeminiUsage | None, after: GeminiUsage) -> GeminiUsage:
    """Counts are cumulative; what the later report leaves out stays as it was."""
    if before is None:
        return after
    said = {name: value for name, value in msgspec.structs.asdict(after).items() if value is not None}
    return msgspec.structs.replace(before, **said)
