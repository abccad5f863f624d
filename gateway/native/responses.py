"""`/openai/v1/responses`: OpenAI's own, where the provider keeps what is stored. What goes on in its background could not be billed."""

from collections.abc import Callable
from typing import Final, final

import msgspec
from msgspec import Raw

from gateway import bodies, errors, prompt_bound, wire
from gateway.bodies import NULL, UpstreamFault
from gateway.catalog import Deployment
from gateway.dialects.events import EventReader, payload
from gateway.native.servers import refuse_servers
from gateway.responses.native import Answer, answer
from gateway.targets import authorization
from gateway.units.ask import Ask, Headers
from gateway.units.door import Follower, NativeDoor, Sent, Told, json_only
from gateway.units.events import DAMAGED, EVENT_STREAM, MAX_EVENT_BYTES
from gateway.usage import usage
from gateway.used import Usage
from gateway.wire import present, read_fault

BYTES_PER_TOKEN: Final = 4
ENDS: Final = frozenset(("response.completed", "response.incomplete", "response.failed"))


class _Asked(msgspec.Struct, gc=False):
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: Raw = NULL
    prompt: Raw = NULL
    tools: Raw = NULL


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    response: Answer | None = None
    delta: Raw = NULL


_asked: Final = msgspec.json.Decoder(_Asked)
_event: Final = msgspec.json.Decoder(_Event)


@final
class OpenAIResponses(NativeDoor):
    """One call. `name` is the public one, for a client's."""

    plays = False

    def __init__(self, name: Callable[[str], str]) -> None:
        self._name = name

    def read(self, body: bytes, headers: Headers) -> Ask:
        json_only(headers)
        asked = wire.parse(bodies.responses_decoder, body)
        more = wire.parse(_asked, body)
        if more.background:
            raise errors.BadRequest(
                "What goes on in the background here cannot be metered; /v1/responses does it",
                param="background",
                code="unsupported_parameter",
            )
        refuse_servers(more.tools, "tools", "/v1/responses calls those of servers that are registered")
        tokens = prompt_bound.upper_bound(body, asked)
        if more.previous_response_id is not None or present(more.conversation) or present(more.prompt):
            tokens += prompt_bound.FILE_TOKENS  # what the provider keeps, and puts in front
        plain = prompt_bound.text_only(body)
        return Ask(
            model=self._name(asked.model),
            stream=asked.stream is True,
            user=asked.user,
            speaks=True,
            most=usage(tokens, wire.asked_tokens(asked) or 0, audio_input=0 if plain else tokens),
            likely=usage(len(body) // BYTES_PER_TOKEN),
        )

    def sent(self, ask: Ask, body: bytes, deployment: Deployment, name: str) -> Sent:  # noqa: ARG002 — the port's names
        if not deployment.responses:
            raise errors.BadRequest(
                f"Deployment {deployment.id!r} does not speak /v1/responses itself; at /v1/responses it is translated for",
                param="model",
                code="unsupported_endpoint",
            )
        headers = (("content-type", "application/json"), *authorization(deployment, None), *deployment.headers)
        sent = wire.rewrite(body, name, ask_usage=False)
        return Sent("/responses", (sent,), address=deployment.base_url, headers=headers)

    def told(self, ask: Ask, deployment: Deployment, body: bytes, *, json: bool) -> Told:  # noqa: ARG002 — every answer is JSON here
        return Told(*answer(body))

    def follower(self, content_type: bytes) -> Follower | None:
        return ResponseEvents() if content_type.startswith(b"text/event-stream") else None

    def read_fault(self, status: int, body: bytes) -> UpstreamFault:  # noqa: ARG002 — the body says it all
        return read_fault(body)


@final
class ResponseEvents:
    """The state of one stream, whose events go on byte for byte. See `gateway.units.door.Follower`."""

    def __init__(self) -> None:
        self.content_type = EVENT_STREAM
        self._reader = EventReader(MAX_EVENT_BYTES)
        self.content = False
        self.whole = False
        self.received = 0
        self.usage: Usage | None = None
        self.error: errors.GatewayError | None = None

    def feed(self, data: bytes) -> bytes:
        if self.error is not None:
            return b""
        try:
            events = self._reader.events(data)
        except errors.UpstreamError as error:
            self.error = error
            return b""
        return b"".join([event + b"\n\n" for event in events if self._passes(payload(event))])

    def close(self) -> bytes:
        return self.feed(b"\n\n")

    def _passes(self, data: bytes) -> bool:
        """A failure that the upstream tells is an end as well: with its usage, and in the client's own words."""
        if self.error is not None:
            return False
        if not data or data == b"[DONE]":
            return self.content
        try:
            read = _event.decode(data)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            self.error = errors.UpstreamError(DAMAGED)
            return False
        if read.type in ENDS and read.response is not None:
            self.usage = read.response.used
            self.whole = True
        elif read.type == "error" and not self.content:
            self.error = errors.UpstreamFailed(read_fault(data).message or "The upstream reported an error")
            return False
        elif read.type == "error":
            self.whole = True
        elif read.type.endswith(".delta"):
            self.received += max(1, len(bytes(read.delta)) // BYTES_PER_TOKEN)
        self.content = True
        return True
