"""Opens a conversation at a deployment: the address, the credentials, the handshake, and what a refusal of it means."""

import asyncio
import ssl
from collections.abc import Callable
from typing import Final
from urllib.parse import quote, urlsplit

import structlog
from websockets.client import ClientProtocol
from websockets.uri import WebSocketURI

from gateway import errors
from gateway.catalog import Deployment
from gateway.pool import OriginKey, origin_key
from gateway.realtime.websocket import WebSocket, quiet
from gateway.refusal import refused
from gateway.targets import authorization
from gateway.wire import read_fault

log = structlog.stdlib.get_logger(__name__)

KEPT: Final = ("retry-after", "retry-after-ms", "x-should-retry")

Contexts = Callable[[OriginKey], ssl.SSLContext]


async def connect(
    deployment: Deployment,
    name: str,
    *,
    intent: str | None,
    beta: bool,
    user_agent: str,
    context: Contexts,
    most_bytes: int,
    timeout_s: float,
) -> WebSocket:
    """`name` is the model's at the deployment. Raises what an attempt of any call raises."""
    key = origin_key(deployment.base_url, verify_tls=deployment.verify_tls, ca_file=deployment.ca_file)
    path, query = _place(deployment, name, intent)
    uri = WebSocketURI(key.scheme == "https", key.host, key.port, path, query)
    protocol = ClientProtocol(uri, max_size=most_bytes, logger=quiet())
    request = protocol.connect()
    request.headers["User-Agent"] = user_agent
    for header, value in (*authorization(deployment, None), *deployment.headers):
        request.headers[header] = value
    if beta:
        request.headers["OpenAI-Beta"] = "realtime=v1"
    protocol.send_request(request)
    socket = WebSocket(protocol)
    where = f"{key.host}:{key.port}"
    tls = context(key) if uri.secure else None
    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.get_running_loop().create_connection(
                lambda: socket, key.host, key.port, ssl=tls, server_hostname=key.host if tls is not None else None
            )
            await socket.answered.wait()
    except TimeoutError:
        socket.abort()
        raise errors.UpstreamTimeout(
            f"No conversation with {where} within {timeout_s:g} s", code="connect_timeout"
        ) from None
    except ssl.SSLCertVerificationError as error:
        raise errors.UpstreamUnreachable(
            f"The certificate of {where} is not trusted: {error.verify_message}", code="upstream_certificate"
        ) from None
    except OSError as error:
        log.info("upstream.unreachable", upstream=where, reason=str(error))
        raise errors.UpstreamUnreachable(
            f"No connection to {where}: {error.strerror or type(error).__name__}"
        ) from None
    except asyncio.CancelledError:
        socket.abort()
        raise
    if protocol.handshake_exc is None and socket.response is not None:
        return socket
    socket.abort()
    raise _refusal(socket, deployment)


def _refusal(socket: WebSocket, deployment: Deployment) -> errors.GatewayError:
    response = socket.response
    if response is None or response.status_code == 101:
        return errors.UpstreamError(f"Deployment {deployment.id!r} did not answer with a WebSocket handshake")
    headers = tuple((name, value) for name in KEPT if (value := response.headers.get(name)) is not None)
    return refused(response.status_code, read_fault(bytes(response.body or b"")), deployment.id, headers)


def _place(deployment: Deployment, name: str, intent: str | None) -> tuple[str, str]:
    """Path and query. Azure's dated API stands above its deployments."""
    base = urlsplit(deployment.base_url).path.rstrip("/")
    more = f"&intent={quote(intent, safe='')}" if intent is not None else ""
    if deployment.api_version is None:
        return f"{base}/realtime", f"model={quote(name, safe='')}{more}"
    above = base.partition("/openai")[0]
    dated = f"api-version={quote(deployment.api_version, safe='')}&deployment={quote(name, safe='')}"
    return f"{above}/openai/realtime", dated + more
