"""`/v1/audio/transcriptions` and `/v1/audio/translations`: a recording in, its text out, in six formats or as events.

Billed by the second or by tokens. Where the answer says nothing (plain text, subtitles), the length that the recording's container says
counts; where that is silent too, what subtitles say; else what was held.
"""

import re
from math import ceil
from typing import Final, final

import msgspec

from gateway import errors, wire
from gateway.catalog import Deployment
from gateway.units.ask import Ask, Headers
from gateway.units.door import Sent, Told, posted
from gateway.units.duration import exact_seconds, most_seconds
from gateway.units.forms import read_form
from gateway.usage import from_transcription, usage
from gateway.usage_reports import TranscriptionUsage
from gateway.used import Usage

MOST_TOKENS_PER_S: Final = 32  # Gemini's; OpenAI has 10
LIKELY_TOKENS_PER_S: Final = 10
LIKELY_OUTPUT_TOKENS_PER_S: Final = 4  # three words
MAX_MODEL_BYTES: Final = 512

_CUE = re.compile(r"-->\s*(?:(\d+):)?(\d+):(\d+)[.,](\d+)")


class _Answer(msgspec.Struct, gc=False):
    duration: float | None = None
    usage: TranscriptionUsage | None = None


_answer = msgspec.json.Decoder(_Answer, strict=False)  # some write the duration as a text
_usage = msgspec.json.Decoder(TranscriptionUsage)


@final
class Transcription:
    """`path` behind the base URL."""

    plays = False

    def __init__(self, path: str, *, streams: bool) -> None:
        self._path = path
        self._streams = streams

    def read(self, body: bytes, headers: Headers) -> Ask:
        form = read_form(body, headers.get(b"content-type"))
        model = form.required("model")
        if len(model) > MAX_MODEL_BYTES:
            raise errors.BadRequest("Invalid 'model': the name is too long", param="model", code="invalid_type")
        files = form.files("file")
        if len(files) != 1 or len([part for part in form.parts if part.file]) != 1:
            raise errors.BadRequest(
                "The form needs one recording, as 'file'", param="file", code="missing_required_parameter"
            )
        stream = form.truth("stream")
        if stream and not self._streams:
            raise errors.BadRequest("This endpoint does not stream", param="stream", code="unsupported_parameter")
        recording = form.bytes_of(files[0])
        prompt = form.text_bytes("model")
        most, exact = most_seconds(recording), exact_seconds(recording)
        probable = most if exact is None else exact
        return Ask(
            model=model,
            stream=stream,
            user=form.text("user"),
            most=_usage_of(most, MOST_TOKENS_PER_S, prompt, 0),
            exact=usage(seconds=exact or 0.0),
            likely=_usage_of(probable, LIKELY_TOKENS_PER_S, prompt // 4, ceil(probable * LIKELY_OUTPUT_TOKENS_PER_S)),
            speaks=True,
            pieces=form.around("model"),
            content_type=form.content_type,
        )

    def sent(self, ask: Ask, body: bytes, deployment: Deployment, name: str) -> Sent:  # noqa: ARG002 — the port's names
        return posted(self._path, ask, name)

    def told(self, ask: Ask, deployment: Deployment, body: bytes, *, json: bool) -> Told:  # noqa: ARG002 — the port's names
        if not json:
            return Told(body, ask=msgspec.structs.replace(ask, likely=_by_subtitles(ask.likely, body)))
        try:
            answer = _answer.decode(body)
        except (msgspec.ValidationError, UnicodeDecodeError):
            answer = _Answer()  # some call their text/plain JSON
        except (msgspec.DecodeError, RecursionError) as error:
            raise errors.UpstreamError(f"The upstream's answer is not the JSON it should be: {error}") from None
        else:
            _refuse_error(body)
        used = None if answer.usage is None else from_transcription(answer.usage)
        if answer.duration and (used is None or not used.seconds):
            seconds = usage(seconds=answer.duration).seconds
            used = usage(seconds=seconds) if used is None else msgspec.structs.replace(used, seconds=seconds)
        return Told(body, used)

    def event_usage(self, report: msgspec.Raw) -> Usage | None:
        try:
            return from_transcription(_usage.decode(report))
        except msgspec.DecodeError as error:
            raise errors.UpstreamError(f"The upstream's usage is damaged: {error}") from None


def _usage_of(seconds: float, tokens_per_s: int, prompt: int, output: int) -> Usage:
    sound = ceil(seconds * tokens_per_s)
    return usage(prompt + sound, output, audio_input=sound, seconds=seconds)


def _refuse_error(body: bytes) -> None:
    """An error inside a 200."""
    if b'"error"' in body:
        wire.read_answer(body)


def _by_subtitles(likely: Usage, body: bytes) -> Usage:
    """SubRip's and WebVTT's last cue ends where the speech does."""
    cues = _CUE.findall(body[-4096:].decode("utf-8", "replace")) if b"-->" in body else []
    if not cues:
        return likely
    hours, minutes, seconds, fraction = cues[-1]
    end = int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{fraction}")
    return msgspec.structs.replace(likely, seconds=usage(seconds=end).seconds)
