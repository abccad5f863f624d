"""Google's Gemini API for clients that speak it themselves: https://ai.google.dev/api. The model and the method stand in the path."""

import re
from collections.abc import Mapping
from typing import Any, Final, final
from urllib.parse import quote

import msgspec
from msgspec import Raw

from gateway import errors
from gateway.bodies import NULL, UpstreamFault
from gateway.catalog import Deployment
from gateway.dialects.gemini_faults import failed, fault
from gateway.native.bounds import bounded, fields_of, one_reading
from gateway.native.gemini_stream import GeminiEvents
from gateway.units.ask import Ask, Headers
from gateway.units.door import Follower, NativeDoor, Sent, Told
from gateway.usage import from_gemini
from gateway.usage_reports import GeminiUsage
from gateway.used import NOTHING
from gateway.wire import present

SPEAKS: Final = frozenset(("generateContent", "streamGenerateContent"))
EMBEDS: Final = frozenset(("embedContent", "batchEmbedContents"))
METHODS: Final = SPEAKS | EMBEDS | {"countTokens"}
_VERSION: Final = re.compile(r"/v\d+(?:alpha|beta)?\d*$")


class _Answer(msgspec.Struct, gc=False, rename="camel"):
    usage_metadata: GeminiUsage | None = None
    error: Raw = NULL


_answer: Final = msgspec.json.Decoder(_Answer)


@final
class Gemini(NativeDoor):
    """One call of `method` in a `version` of the API. `model` is the public name; `as_array`: the client did not ask for events."""

    plays = False

    def __init__(self, version: str, method: str, model: str, *, as_array: bool) -> None:
        self._version = version
        self._method = method
        self._model = model
        self._as_array = as_array
        self._fields: Mapping[str, Any] = {}

    def read(self, body: bytes, headers: Headers) -> Ask:  # noqa: ARG002 — the port's name: a body is JSON here
        self._fields = fields = fields_of(body)
        if self._method == "countTokens":
            return Ask(model=self._model, most=NOTHING, flat_nanousd=0)
        return bounded(
            self._model,
            body,
            fields,
            stream=self._method == "streamGenerateContent",
            speaks=self._method in SPEAKS,
        )

    def sent(self, ask: Ask, body: bytes, deployment: Deployment, name: str) -> Sent:
        place = name if "/" in name else f"models/{name}"
        key = deployment.api_key
        return Sent(
            f"/{self._version}/{quote(place, safe='/')}:{self._method}{'?alt=sse' if ask.stream else ''}",
            (self._named(body, place),),
            address=_VERSION.sub("", deployment.base_url),
            headers=(
                ("content-type", "application/json"),
                *((("x-goog-api-key", key),) if key else ()),
                *deployment.headers,
            ),
        )

    def told(self, ask: Ask, deployment: Deployment, body: bytes, *, json: bool) -> Told:  # noqa: ARG002 — every answer is JSON here
        try:
            read = _answer.decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise errors.UpstreamError(f"The upstream's answer is not the JSON it should be: {error}") from None
        if present(read.error):
            raise failed(body)
        if self._method == "countTokens":
            return Told(body, NOTHING)
        return Told(body, None if read.usage_metadata is None else from_gemini(read.usage_metadata))

    def follower(self, content_type: bytes) -> Follower | None:
        return GeminiEvents(as_array=self._as_array) if content_type.startswith(b"text/event-stream") else None

    def read_fault(self, status: int, body: bytes) -> UpstreamFault:  # noqa: ARG002 — the body says it all
        return fault(body)

    def _named(self, body: bytes, place: str) -> bytes:
        """Bodies may repeat the model: then under its name at the deployment."""
        fields = dict(self._fields)
        named = "model" in fields
        if named:
            fields["model"] = place
        for inside in ("requests", "generateContentRequest", "generate_content_request"):
            if inside in fields:
                named = True
                fields[inside] = _all_named(fields[inside], place)
        return msgspec.json.encode(fields) if named else one_reading(body, fields)


def _all_named(value: Any, place: str) -> Any:
    if isinstance(value, list):
        return [_all_named(one, place) for one in value]
    return {**value, "model": place} if isinstance(value, dict) else value
