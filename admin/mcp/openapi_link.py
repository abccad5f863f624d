"""An HTTP API whose OpenAPI document says what can be called. Calls go below its base URL, and nowhere else."""

from collections.abc import Callable, Mapping
from typing import Any, Final, final

import httpx
import msgspec
import structlog
from msgspec import Raw

from admin.mcp.oauth import Tokens
from admin.mcp.web import body, client, kind_of, unreachable
from gateway import errors
from gateway.mcp.catalog import Server
from gateway.mcp.errors import ServerDown, ToolRefused
from gateway.mcp.links import Events, Hear
from gateway.mcp.openapi import DocumentError, Made, Operation, made, operations
from gateway.mcp.rpc import INVALID_PARAMS
from gateway.mcp.settings import MAX_DOCUMENT_BYTES
from gateway.wire import present

log = structlog.stdlib.get_logger(__name__)

_arguments: Final = msgspec.json.Decoder(dict[str, Any])
_encode: Final = msgspec.json.Encoder().encode


@final
class OpenApiLink:
    """`tokens` logs the gateway in, where the API wants OAuth."""

    def __init__(self, server: Server, events: Events, tokens: Tokens | None) -> None:
        self._server = server
        self._events = events
        self._tokens = tokens
        self._where = f"The API '{server.name}'"
        self._client = client(server)
        self._operations: dict[str, Operation] = {}

    async def open(self) -> None:
        """Raises ServerDown for a document that is not there or cannot be used."""
        document = self._server.document
        if document is None:
            document = await self._fetched()
        try:
            found, left = operations(document)
        except DocumentError as error:
            raise ServerDown(f"{self._where} has a document that cannot be used: {error}", unsent=True) from None
        if left:
            log.warning("mcp.operations_left_out", server=self._server.name, count=len(left), first=left[0][:300])
        self._operations = {operation.name: operation for operation in found}

    async def tools(self) -> list[Raw]:
        return [Raw(_encode(operation.tool())) for operation in self._operations.values()]

    async def call(self, tool: str, arguments: Raw, hear: Hear | None, sent: Callable[[], None]) -> Raw:  # noqa: ARG002 — an API tells no progress
        operation = self._operations.get(tool)
        if operation is None:
            raise ToolRefused(INVALID_PARAMS, f"Unknown tool: {tool}")
        try:
            asked = made(operation, _arguments.decode(arguments) if present(arguments) else {})
        except (ValueError, msgspec.DecodeError) as error:
            raise ToolRefused(INVALID_PARAMS, f"{tool}: {error}") from None
        headers = dict(asked.headers)
        if self._tokens is not None:
            headers["authorization"] = await self._tokens.bearer()
        sent()
        try:
            return await self._ask(operation, asked, headers, again=self._tokens is not None)
        except httpx.HTTPError as error:
            raise unreachable(self._where, error) from None

    async def close(self) -> None:
        if self._tokens is not None:
            await self._tokens.close()
        await self._client.aclose()

    async def _ask(self, operation: Operation, asked: Made, headers: Mapping[str, str], *, again: bool) -> Raw:
        content_type = {"content-type": operation.body} if asked.body is not None and operation.body is not None else {}
        request = self._client.build_request(
            asked.method.upper(),
            self._server.url.rstrip("/") + asked.path,
            params=[*asked.query, *self._server.query],
            headers={
                "accept": "application/json, text/*;q=0.9, */*;q=0.1",
                **headers,
                **content_type,
                **dict(self._server.headers),
            },
            content=asked.body,
        )
        answer = await self._client.send(request, stream=True)
        try:
            if answer.status_code == 401 and again and self._tokens is not None:
                self._tokens.refused(headers["authorization"], answer.headers.get("www-authenticate"))
            else:
                return _result(answer, await body(answer, self._server.max_answer_bytes, self._where), self._where)
        finally:
            await answer.aclose()
        return await self._ask(operation, asked, {**headers, "authorization": await self._tokens.bearer()}, again=False)

    async def _fetched(self) -> Mapping[str, Any]:
        """The document, in JSON or YAML, from where an admin said that it is. Without the API's credentials: it may be elsewhere."""
        import yaml  # noqa: PLC0415 — for the few documents that are not in JSON

        assert self._server.document_url is not None
        bare = client(msgspec.structs.replace(self._server, headers=()))
        try:
            async with bare, bare.stream("GET", self._server.document_url) as answer:
                data = await body(answer, MAX_DOCUMENT_BYTES, self._where)
                if answer.status_code != 200:
                    raise ServerDown(f"{self._where}: its document is not there ({answer.status_code})", unsent=True)
            document = msgspec.json.decode(data) if data.lstrip().startswith(b"{") else _read(yaml, data)
        except httpx.HTTPError as error:
            raise unreachable(f"{self._where}: its document", error) from None
        except (msgspec.DecodeError, yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
            raise ServerDown(
                f"{self._where} has a document that cannot be read: {str(error)[:200]}", unsent=True
            ) from None
        if not isinstance(document, dict):
            raise ServerDown(f"{self._where} has a document that is none", unsent=True)
        return document


def _read(yaml: Any, data: bytes) -> object:
    """Plain values alone, and no aliases, which can be small and mean gigabytes. Raises YAMLError."""
    if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(data, Loader=yaml.SafeLoader)):
        raise yaml.YAMLError("aliases are not read")
    return yaml.safe_load(data)


def _result(answer: httpx.Response, data: bytes, where: str) -> Raw:
    """What a tool says: the body as text, and as it is where it is an object. Any status but success is the tool's own failure."""
    kind, status = kind_of(answer), answer.status_code
    text = data.decode("utf-8", "replace")
    result: dict[str, Any] = {"content": [{"type": "text", "text": text}]}
    if 300 <= status < 400:
        raise errors.UpstreamError(f"{where} redirects to another address, which is not followed")
    if not 200 <= status < 300:
        return Raw(_encode({"content": [{"type": "text", "text": f"HTTP {status}: {text}"}], "isError": True}))
    if kind == "application/json" or kind.endswith("+json"):
        try:
            value = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return Raw(_encode(result))
        if isinstance(value, dict):
            result["structuredContent"] = value
    elif not (kind.startswith("text/") or kind in {"", "application/xml", "application/yaml"}):
        raise errors.UpstreamError(f"{where} answered with {kind[:100]}, which is no text")
    return Raw(_encode(result))
