"""What stands between `/v1/responses` and a deployment: our ids where it speaks that itself, a translation where it speaks chat."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, final
from urllib.parse import urlsplit

from gateway import usage, wire
from gateway.bodies import UpstreamFault
from gateway.catalog import Deployment
from gateway.dialect import Dialect, Outgoing, Stream
from gateway.responses import native
from gateway.responses.chat_messages import Thoughts
from gateway.responses.chat_request import chat_request
from gateway.sse import ChatStream
from gateway.used import Usage

CHAT: Final = "chat"
NO_HEADERS: Final[Mapping[bytes, bytes]] = MappingProxyType({})
TAKES_THOUGHTS: Final = frozenset(("deepseek", "moonshot", "zai", "vllm", "sglang"))  # back, as `reasoning_content`


def between(deployment: Deployment, own: Dialect | None, chat_path: str) -> Dialect:
    """For a deployment whose provider has the dialect `own`. `chat_path`: where its chat stands behind the base URL."""
    return Native() if deployment.responses else Translated(deployment, own, chat_path)


@final
class Native:
    """Bytes that are passed through."""

    endpoints: frozenset[str] = frozenset({"responses"})

    def authorization(self, api_key: str) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {api_key}"),) if api_key else ()

    def request(self, endpoint: str, body: bytes, model: str, headers: Mapping[bytes, bytes] = NO_HEADERS) -> Outgoing:  # noqa: ARG002  # there is one endpoint
        return Outgoing("/responses", native.request(body, model))

    def answer(self, endpoint: str, body: bytes, model: str, asked: bytes = b"") -> tuple[bytes, Usage | None]:  # noqa: ARG002  # there is one endpoint
        return native.answer(body)

    def stream(self, endpoint: str, model: str, *, keep_usage: bool, asked: bytes = b"") -> Stream:  # noqa: ARG002  # usage is part of the last event
        return native.NativeStream()

    def fault(self, status: int, body: bytes, headers: Mapping[bytes, bytes]) -> UpstreamFault:  # noqa: ARG002  # the body says it all
        return wire.read_fault(body)


@final
class Translated:
    """A question in the Responses API, asked over chat. The answer stays one of chat's: its way back begins at the client's side,
    where it is known what was asked (`gateway.responses.outlet`)."""

    endpoints: frozenset[str] = frozenset({"responses"})

    def __init__(self, deployment: Deployment, own: Dialect | None, chat_path: str) -> None:
        self._own = own
        self._path = chat_path
        self._limit = _limit(deployment)
        self._thoughts: Thoughts = "none"
        if own is not None or deployment.provider == "litellm":
            self._thoughts = "sealed"
        elif deployment.provider in TAKES_THOUGHTS:
            self._thoughts = "text"
        self._context = deployment.max_input_tokens

    def authorization(self, api_key: str) -> tuple[tuple[str, str], ...]:
        return Native().authorization(api_key) if self._own is None else self._own.authorization(api_key)

    def request(self, endpoint: str, body: bytes, model: str, headers: Mapping[bytes, bytes] = NO_HEADERS) -> Outgoing:  # noqa: ARG002  # there is one endpoint
        asked = chat_request(body, model, limit=self._limit, thoughts=self._thoughts, context_tokens=self._context)
        return Outgoing(self._path, asked) if self._own is None else self._own.request(CHAT, asked, model, headers)

    def answer(self, endpoint: str, body: bytes, model: str, asked: bytes = b"") -> tuple[bytes, Usage | None]:  # noqa: ARG002  # there is one endpoint
        if self._own is not None:
            return self._own.answer(CHAT, body, model, asked)
        reported = wire.read_answer(body).usage
        return body, None if reported is None else usage.from_openai(reported)

    def stream(self, endpoint: str, model: str, *, keep_usage: bool, asked: bytes = b"") -> Stream:  # noqa: ARG002  # a response always tells its usage
        return ChatStream(keep_usage=True) if self._own is None else self._own.stream(CHAT, model, keep_usage=True)

    def fault(self, status: int, body: bytes, headers: Mapping[bytes, bytes]) -> UpstreamFault:
        return wire.read_fault(body) if self._own is None else self._own.fault(status, body, headers)


def _limit(deployment: Deployment) -> str:
    """OpenAI's newer models know the newer name alone, most compatible servers the older one."""
    host = urlsplit(deployment.base_url).hostname or ""
    return "max_completion_tokens" if deployment.provider == "azure" or host.endswith("openai.com") else "max_tokens"
