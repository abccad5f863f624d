"""Google's Gemini API behind `gateway.dialect`: https://ai.google.dev/api/generate-content."""

from collections.abc import Callable, Mapping
from typing import final

from gateway import errors
from gateway.bodies import UpstreamFault
from gateway.dialect import NO_HEADERS, Outgoing, Stream
from gateway.dialects.gemini_answer import completion
from gateway.dialects.gemini_embeddings import embed_request, embeddings
from gateway.dialects.gemini_faults import fault
from gateway.dialects.gemini_request import generate_request
from gateway.dialects.gemini_stream import ContentStream
from gateway.used import Usage


@final
class Gemini:
    """`unix` is the clock, `new_id` makes what is unique: answers carry no time of their own, and not always an id."""

    endpoints: frozenset[str] = frozenset({"chat", "embeddings"})

    def __init__(self, unix: Callable[[], float], new_id: Callable[[], str]) -> None:
        self._unix = unix
        self._new_id = new_id

    def authorization(self, api_key: str) -> tuple[tuple[str, str], ...]:
        return (("x-goog-api-key", api_key),) if api_key else ()

    def request(self, endpoint: str, body: bytes, model: str, headers: Mapping[bytes, bytes] = NO_HEADERS) -> Outgoing:  # noqa: ARG002  # nothing of the client's goes along
        match endpoint:
            case "chat":
                return generate_request(body, model)
            case "embeddings":
                return embed_request(body, model)
            case _:
                raise errors.BadRequest(f"Gemini has no {endpoint}", param="model", code="unsupported_endpoint")

    def answer(self, endpoint: str, body: bytes, model: str, asked: bytes = b"") -> tuple[bytes, Usage | None]:
        if endpoint == "embeddings":
            return embeddings(body, model, asked)
        return completion(body, model, int(self._unix()), self._new_id)

    def stream(self, endpoint: str, model: str, *, keep_usage: bool, asked: bytes = b"") -> Stream:  # noqa: ARG002  # only chat streams
        return ContentStream(model, int(self._unix()), self._new_id, keep_usage=keep_usage)

    def fault(self, status: int, body: bytes, headers: Mapping[bytes, bytes]) -> UpstreamFault:  # noqa: ARG002  # the body says it all
        return fault(body)
