"""Amazon Bedrock's runtime for clients that speak it themselves: https://docs.aws.amazon.com/bedrock/latest/APIReference

The model stands in the path, so bodies go on as they came. A deployment's `api_key` is a Bedrock API key; without one its requests are
signed.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, final
from urllib.parse import quote

import msgspec

from gateway import errors, wire
from gateway.bodies import UpstreamFault
from gateway.catalog import Deployment
from gateway.native.bedrock_stream import ConverseEvents, InvokeEvents
from gateway.native.bedrock_usage import from_body, from_headers
from gateway.native.bounds import bounded, fields_of, one_reading
from gateway.units.ask import Ask, Headers
from gateway.units.door import Follower, Lines, NativeDoor, Sent, Told
from gateway.used import NOTHING, Usage

STREAMS: Final = frozenset(("converse-stream", "invoke-with-response-stream"))
OPERATIONS: Final = STREAMS | {"converse", "invoke", "count-tokens"}
EVENTSTREAM: Final = b"application/vnd.amazon.eventstream"
LITELLM: Final = (
    "x-litellm-"  # of headers that are LiteLLM's arguments: the same deployment is also called by way of it
)
CARRIED: Final = (
    "x-amzn-bedrock-trace",
    "x-amzn-bedrock-guardrailidentifier",
    "x-amzn-bedrock-guardrailversion",
    "x-amzn-bedrock-performanceconfig-latency",
)
TOO_LONG: Final = ("too long", "too many input tokens", "maximum context length")

# Makes the header lines that sign a request: its deployment, region, method, URL, headers and body.
Sign = Callable[[Deployment, str, str, str, Mapping[str, str], bytes], Lines]


class _Fault(msgspec.Struct, gc=False):
    message: str | None = None
    other: str | None = msgspec.field(default=None, name="Message")


_fault: Final = msgspec.json.Decoder(_Fault)


@final
class Bedrock(NativeDoor):
    """One call of an operation. `model` is the public name."""

    plays = False
    shown = (
        b"x-amzn-bedrock-input-token-count",
        b"x-amzn-bedrock-output-token-count",
        b"x-amzn-bedrock-cache-read-input-token-count",
        b"x-amzn-bedrock-cache-write-input-token-count",
        b"x-amzn-bedrock-content-type",
        b"x-amzn-bedrock-performanceconfig-latency",
    )

    def __init__(self, operation: str, model: str, sign: Sign) -> None:
        self._operation = operation
        self._model = model
        self._sign = sign
        self._headers: Headers = {}

    def read(self, body: bytes, headers: Headers) -> Ask:
        self._headers = headers
        if self._operation == "count-tokens":
            fields_of(body)
            return Ask(model=self._model, most=NOTHING, flat_nanousd=0)
        return bounded(self._model, body, fields_of(body), stream=self._operation in STREAMS)

    def sent(self, ask: Ask, body: bytes, deployment: Deployment, name: str) -> Sent:
        region = region_of(deployment)
        address = deployment.base_url.removesuffix("/v1") or f"https://bedrock-runtime.{region}.amazonaws.com"
        path = f"/model/{quote(name, safe='')}/{self._operation}"
        body = one_reading(body, fields_of(body))
        headers = {"content-type": "application/json", "accept": self._accepts(ask)}
        for carried in CARRIED:
            value = self._headers.get(carried.encode())
            if value is not None:
                headers[carried] = value.decode("latin-1")
        own = tuple((key, value) for key, value in deployment.headers if not key.lower().startswith(LITELLM))
        signed = None
        if deployment.api_key:
            headers["authorization"] = f"Bearer {deployment.api_key}"
        else:
            signed = partial(self._sign, deployment, region, "POST", address + path, dict(headers), body)
        return Sent(path, (body,), address=address, headers=(*headers.items(), *own), signed=signed)

    def told(self, ask: Ask, deployment: Deployment, body: bytes, *, json: bool) -> Told:  # noqa: ARG002 — every answer is JSON here
        if self._operation == "count-tokens":
            wire.read_answer(body)
            return Told(body, NOTHING)
        return Told(body, from_body(body))

    def told_by(self, headers: Headers) -> Usage | None:
        return from_headers(headers)

    def follower(self, content_type: bytes) -> Follower | None:
        if not content_type.startswith(EVENTSTREAM):
            return None
        return ConverseEvents() if self._operation == "converse-stream" else InvokeEvents()

    def read_fault(self, status: int, body: bytes) -> UpstreamFault:
        try:
            read = _fault.decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return wire.read_fault(body)
        message = read.message or read.other
        long = status == 400 and any(words in (message or "").lower() for words in TOO_LONG)
        return UpstreamFault(message, None, None, "context_length_exceeded" if long else None)

    def _accepts(self, ask: Ask) -> str:
        return EVENTSTREAM.decode() if ask.stream else "application/json"


def region_of(deployment: Deployment) -> str:
    """Raises BadRequest where the configuration names none."""
    named = option(deployment, "aws-region-name") or deployment.region
    if named is None:
        raise errors.BadRequest(
            f"Deployment {deployment.id!r} names no region: set its header x-litellm-aws-region-name",
            param="model",
            code="unsupported_endpoint",
        )
    return named


def option(deployment: Deployment, name: str) -> str | None:
    """One of LiteLLM's arguments that a deployment has as a header."""
    return next((value for key, value in deployment.headers if key.lower() == LITELLM + name), None)
