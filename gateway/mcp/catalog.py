"""MCP servers as the data plane sees them: compiled once per revision, secrets in clear."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from gateway.tariffs import Price


class OAuth(msgspec.Struct, frozen=True):
    grant: Literal["client_credentials", "refresh_token"]
    client_id: str
    client_secret: str | None = None
    refresh_token: str | None = None
    token_url: str | None = None
    issuer: str | None = None
    scope: str | None = None

    def __repr__(self) -> str:
        return f"OAuth(grant={self.grant!r}, client_id={self.client_id!r})"


class Server(msgspec.Struct, frozen=True):
    """`prices` by a tool's own name; `price` is that of the others. Two that are equal need not be connected anew."""

    name: str
    kind: Literal["http", "stdio", "openapi"]
    price: Price
    prices: Mapping[str, Price] = {}
    description: str | None = None
    url: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    query: tuple[tuple[str, str], ...] = ()
    oauth: OAuth | None = None
    command: str = ""
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    document: Mapping[str, Any] | None = None
    document_url: str | None = None
    tools: tuple[str, ...] | None = None
    timeout_s: float = 60.0
    start_s: float = 10.0
    parallel: int = 32
    max_answer_bytes: int = 8 * 1024 * 1024
    verify_tls: bool = True
    ca_file: str | None = None

    def __repr__(self) -> str:
        """Without secrets: a server ends up in logs and tracebacks."""
        return f"Server(name={self.name!r}, kind={self.kind!r})"

    def price_of(self, tool: str) -> Price:
        return self.prices.get(tool, self.price)


Servers = tuple[Server, ...]
