"""What all calls over HTTP share: a client without surprises, answers with a bound, failures in the gateway's words."""

import ssl
from collections.abc import AsyncIterator
from typing import Final

import httpx

from gateway import errors
from gateway.mcp.catalog import Server
from gateway.mcp.errors import ServerDown

JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"
AGENT: Final = "penstock"


def client(server: Server) -> httpx.AsyncClient:
    """Follows no redirect, reads no proxy from the environment, asks for no compression, which has no bound."""
    verify: bool | ssl.SSLContext = server.verify_tls
    if server.verify_tls and server.ca_file is not None:
        verify = ssl.create_default_context(cafile=server.ca_file)
    return httpx.AsyncClient(
        headers={"user-agent": AGENT, "accept-encoding": "identity", **dict(server.headers)},
        timeout=httpx.Timeout(server.timeout_s, connect=server.start_s, pool=server.start_s),
        limits=httpx.Limits(max_connections=server.parallel + 4, max_keepalive_connections=server.parallel),
        follow_redirects=False,
        trust_env=False,
        verify=verify,
    )


def kind_of(answer: httpx.Response) -> str:
    """The content type without its parameters."""
    kind: str = answer.headers.get("content-type", "")
    return kind.partition(";")[0].strip().lower()


async def pieces(answer: httpx.Response, most: int, where: str) -> AsyncIterator[bytes]:
    """The body as it comes. Raises UpstreamError beyond `most` bytes, or for one that is compressed."""
    if answer.headers.get("content-encoding", "identity").lower() != "identity":
        raise errors.UpstreamError(f"{where} compressed its answer, which it was asked not to")
    size = 0
    async for piece in answer.aiter_raw():
        size += len(piece)
        if size > most:
            raise errors.UpstreamError(f"{where} answered with more than {most} bytes")
        yield piece


async def body(answer: httpx.Response, most: int, where: str) -> bytes:
    return b"".join([piece async for piece in pieces(answer, most, where)])


def unreachable(where: str, error: httpx.HTTPError) -> errors.GatewayError:
    """The library's messages may quote headers, so only their kind is told."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
        return ServerDown(f"{where} cannot be reached", unsent=True)
    if isinstance(error, httpx.TimeoutException):
        return errors.UpstreamTimeout(f"{where} did not answer in time")
    return errors.UpstreamCut(f"{where} broke its answer off ({type(error).__name__})")
