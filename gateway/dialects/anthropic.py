"""Anthropic's Messages API behind `gateway.dialect`: https://docs.claude.com/en/api/messages."""

from collections.abc import Callable, Mapping
from typing import Final, final

from gateway import errors
from gateway.bodies import UpstreamFault
from gateway.dialect import NO_HEADERS, Outgoing, Stream
from gateway.dialects.anthropic_answer import completion
from gateway.dialects.anthropic_faults import fault
from gateway.dialects.anthropic_request import messages_request
from gateway.dialects.anthropic_stream import MessageStream
from gateway.used import Usage

VERSION: Final = "2023-06-01"  # of the API: https://docs.claude.com/en/api/versioning


@final
class Anthropic:
    """`unix` is the clock: answers carry no time of their own, and OpenAI's do."""

    endpoints: frozenset[str] = frozenset({"chat"})

    def __init__(self, unix: Callable[[], float]) -> None:
        self._unix = unix

    def authorization(self, api_key: str) -> tuple[tuple[str, str], ...]:
        """Without a key the version alone: a proxy with a key of its own wants that, too."""
        version = (("anthropic-version", VERSION),)
        return (("x-api-key", api_key), *version) if api_key else version

    def request(self, endpoint: str, body: bytes, model: str, headers: Mapping[bytes, bytes] = NO_HEADERS) -> Outgoing:  # noqa: ARG002  # nothing of the client's goes along
        if endpoint not in self.endpoints:
            raise errors.BadRequest(f"Anthropic has no {endpoint}", param="model", code="unsupported_endpoint")
        return messages_request(body, model)

    def answer(self, endpoint: str, body: bytes, model: str, asked: bytes = b"") -> tuple[bytes, Usage | None]:  # noqa: ARG002  # there is one endpoint
        return completion(body, model, int(self._unix()))

    def stream(self, endpoint: str, model: str, *, keep_usage: bool, asked: bytes = b"") -> Stream:  # noqa: ARG002  # there is one endpoint
        return MessageStream(model, int(self._unix()), keep_usage=keep_usage)

    def fault(self, status: int, body: bytes, headers: Mapping[bytes, bytes]) -> UpstreamFault:  # noqa: ARG002  # the body says it all
        return fault(body)
