"""LiteLLM's end: OpenAI's API on an inherited socket, until the gateway that started it is gone. The one module that imports LiteLLM.

echo '{"socket": 7, "token": "…"}' | python -m admin.long_tail.worker 7<&…
"""

import asyncio
import hmac
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from types import ModuleType
from typing import Any, Final

from admin.long_tail.calls import arguments, fault
from gateway.drive import driven
from gateway.errors import BadRequest, Unauthenticated
from gateway.http_exchange import JSON_HEAD, HttpExchange
from gateway.http_limits import HttpLimits
from gateway.listener import Listener
from gateway.route import Route

EVENTS_HEAD: Final = b"content-type: text/event-stream; charset=utf-8\r\n"
PATHS: Final = {b"/v1/chat/completions": "chat", b"/v1/completions": "completions", b"/v1/embeddings": "embeddings"}

Ask = Callable[..., Coroutine[Any, Any, Any]]


def main() -> None:
    given = json.loads(sys.stdin.readline())
    asyncio.run(_serve(socket.socket(fileno=given["socket"]), given["token"], _litellm()))


def _litellm() -> ModuleType:
    """Without anything that LiteLLM would do beside the call itself."""
    import litellm  # noqa: PLC0415 — the optional package, imported here alone

    litellm.telemetry = False
    litellm.drop_params = False  # what a provider cannot do is refused, not forgotten
    litellm.suppress_debug_info = True
    litellm.callbacks = litellm.success_callback = litellm.failure_callback = []
    litellm.cache = None
    litellm.num_retries = 0
    assert isinstance(litellm, ModuleType)
    return litellm


async def _serve(listening: socket.socket, token: str, litellm: ModuleType) -> None:
    asks: dict[str, Ask] = {
        "chat": litellm.acompletion,
        "completions": litellm.atext_completion,
        "embeddings": litellm.aembedding,
    }
    routes = {
        path: Route(b"POST", partial(_handle, endpoint, asks[endpoint], f"Bearer {token}".encode()))
        for path, endpoint in PATHS.items()
    }
    listener = Listener(routes, {}, _nothing, HttpLimits(body_bytes=512 * 1024 * 1024, idle_timeout_s=3600))
    await listener.start("", 0, sock=listening)
    await _end_of_input()
    await listener.drain(0)
    os._exit(0)  # threads of libraries' must not keep an orphan alive


async def _end_of_input() -> None:
    """The pipe from the gateway: it ends with the gateway."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


async def _nothing(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001  # the shape of ASGI
    """Every other path."""
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": b'{"error": {"message": "no such path"}}'})


async def _handle(endpoint: str, ask: Ask, authorization: bytes, exchange: HttpExchange) -> None:
    """In a task of its own, which is cancelled when the gateway hangs up."""
    if not hmac.compare_digest(exchange.headers.get(b"authorization", b""), authorization):
        exchange.fail(Unauthenticated("This is not for you"))
        return
    try:
        asked = arguments(endpoint, exchange.body, exchange.headers)
    except BadRequest as refused:
        exchange.fail(refused)
        return
    await asyncio.get_running_loop().create_task(_answer(ask, asked, exchange))


async def _answer(ask: Ask, asked: dict[str, Any], exchange: HttpExchange) -> None:
    try:
        answer = await ask(**asked)
        if asked.get("stream") is True:
            exchange.begin_events(200, EVENTS_HEAD)
            await _stream(answer, exchange)
        else:
            exchange.respond(200, JSON_HEAD, _json(answer))
    except Exception as error:  # noqa: BLE001 — the border of a request: whatever a provider's adapter raises is told, with its class
        status, head, body = fault(error)
        if exchange.begun:
            exchange.send(b"data: %b\n\n" % body)
            exchange.end()
        else:
            exchange.respond(status, JSON_HEAD + head, body)


async def _stream(answer: AsyncIterator[Any], exchange: HttpExchange) -> None:
    async for chunk in answer:
        exchange.send(b"data: %b\n\n" % _json(chunk))
        if exchange.write_paused:
            await driven(exchange.drained())
    exchange.send(b"data: [DONE]\n\n")
    exchange.end()


def _json(answer: Any) -> bytes:
    """Objects of LiteLLM's are pydantic's."""
    return str(answer.model_dump_json(exclude_none=True)).encode()


if __name__ == "__main__":
    main()
