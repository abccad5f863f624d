"""`/v1/audio/speech`: text in, sound or events out. Billed by the character, or by tokens of text and sound."""

from typing import Annotated, Final, Literal, final

import msgspec
from msgspec import Meta

from gateway import bodies, errors, wire
from gateway.catalog import Deployment
from gateway.units.ask import Ask, Headers
from gateway.units.door import Sent, Told, json_only, renamed
from gateway.usage import usage
from gateway.usage_reports import TranscriptionUsage
from gateway.used import Usage

BYTES_PER_TOKEN: Final = 4
# OpenAI's tokens of sound: about 21 a second, and a second is about 15 characters at the usual speed; it may be four times slower.
MOST_TOKENS_PER_CHARACTER: Final = 8
LIKELY_TOKENS_PER_CHARACTER: Final = 2


class SpeechRequest(msgspec.Struct, gc=False):
    model: bodies.ModelName
    input: Annotated[str, Meta(min_length=1)]
    instructions: str | None = None
    stream_format: Literal["sse", "audio"] | None = None
    user: str | None = None


_request = msgspec.json.Decoder(SpeechRequest)
_usage = msgspec.json.Decoder(TranscriptionUsage)


@final
class Speech:
    plays = True

    def read(self, body: bytes, headers: Headers) -> Ask:
        json_only(headers)
        asked = wire.parse(_request, body)
        characters = len(asked.input)
        text = len(asked.input.encode()) + len((asked.instructions or "").encode())
        most, likely = characters * MOST_TOKENS_PER_CHARACTER, characters * LIKELY_TOKENS_PER_CHARACTER
        return Ask(
            model=asked.model,
            stream=asked.stream_format == "sse",
            user=asked.user,
            most=usage(text, most, audio_output=most, characters=characters),
            exact=usage(characters=characters),
            likely=usage(text // BYTES_PER_TOKEN, likely, audio_output=likely),
        )

    def sent(self, ask: Ask, body: bytes, deployment: Deployment, name: str) -> Sent:  # noqa: ARG002 — the port's names
        return renamed("/audio/speech", body, name)

    def told(self, ask: Ask, deployment: Deployment, body: bytes, *, json: bool) -> Told:  # noqa: ARG002 — the port's names
        """A JSON object in place of sound: an error inside a 200, or a server's own way to wrap it."""
        reported = wire.read_answer(body).usage
        return Told(
            body, None if reported is None else usage(reported.prompt_tokens or 0, reported.completion_tokens or 0)
        )

    def event_usage(self, report: msgspec.Raw) -> Usage | None:
        try:
            told = _usage.decode(report)
        except msgspec.DecodeError as error:
            raise errors.UpstreamError(f"The upstream's usage is damaged: {error}") from None
        output = told.output_tokens or 0
        return usage(told.input_tokens or 0, output, audio_output=output)
