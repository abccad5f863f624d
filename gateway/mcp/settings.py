"""MCP servers as they are configured: in `penstock.yaml` under `mcp`, over REST and in the database."""

from typing import Annotated, Any, Literal, Self

import msgspec
from pydantic import AfterValidator, AnyHttpUrl, Field, JsonValue, model_validator

from gateway.settings import PositiveSeconds, Section

MAX_STORED = 16_384  # of a secret, which is longer when it is sealed
MAX_SECRET = 8_192

ServerName = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z0-9]+([_-][a-z0-9]+)*$")]
Pattern = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_./*-]+$")]
Argument = Annotated[str, Field(max_length=4096, pattern=r"^[^\x00]*$")]
HeaderName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")]
HeaderValue = Annotated[str, Field(max_length=MAX_STORED, pattern=r"^[^\r\n\x00]*$")]
Variable = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Secret = Annotated[str, Field(min_length=1, max_length=MAX_STORED)]
Usd = Annotated[float, Field(ge=0, le=1_000_000)]

MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
ServerKind = Literal["http", "stdio", "openapi"]
SECRETS = ("api_key", "headers", "query", "env")  # of a server; those of its logins are in `oauth`
OAUTH_SECRETS = ("client_secret", "refresh_token")


def _bounded(document: dict[str, Any] | None) -> dict[str, Any] | None:
    if document is not None and len(msgspec.json.encode(document)) > MAX_DOCUMENT_BYTES:
        raise ValueError(f"must be at most {MAX_DOCUMENT_BYTES} bytes of JSON")
    return document


class CommandSpec(Section):
    """A program that servers of the kind `stdio` may be: only the configuration file can allow one.

    `args` have to be the server's exactly; with `more_args` it may add others behind them. `env`: variables that it may set.
    """

    command: Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]+$")]
    args: tuple[Argument, ...] = ()
    more_args: bool = False
    env: tuple[Variable, ...] = ()


class OAuthSpec(Section):
    """How the gateway logs in at a server (OAuth 2.1). Without `token_url` the server says where (RFC 9728, RFC 8414)."""

    grant: Literal["client_credentials", "refresh_token"] = "client_credentials"
    client_id: Annotated[str, Field(min_length=1, max_length=1000)]
    client_secret: Secret | None = Field(default=None, repr=False)
    refresh_token: Secret | None = Field(default=None, repr=False)
    token_url: AnyHttpUrl | None = None
    issuer: AnyHttpUrl | None = None
    scope: Annotated[str, Field(max_length=2000)] | None = None

    @model_validator(mode="after")
    def _what_the_grant_needs(self) -> Self:
        if self.grant == "client_credentials" and self.client_secret is None:
            raise ValueError("client_credentials needs a client_secret")
        if self.grant == "refresh_token" and self.refresh_token is None:
            raise ValueError("the grant refresh_token needs a refresh_token")
        return self


class ToolPriceSpec(Section):
    """USD per call; `tools` by a tool's own name, without the server's."""

    per_call: Usd = 0
    tools: dict[Annotated[str, Field(min_length=1, max_length=200)], Usd] = Field(default={})


class ServerSpec(Section):
    """A server whose tools are offered as `<name>__<tool>`.

    `http` speaks MCP over streamable HTTP at `url`. `stdio` is a program that `mcp.stdio_commands` allows. `openapi` is an HTTP API
    below `url` whose `document` (or the one at `document_url`) says what can be called.
    """

    name: ServerName
    kind: ServerKind = "http"
    description: Annotated[str, Field(max_length=2000)] | None = None
    url: AnyHttpUrl | None = None
    api_key: Secret | None = Field(default=None, repr=False)
    headers: dict[HeaderName, HeaderValue] = Field(default={}, repr=False)
    query: dict[Annotated[str, Field(min_length=1, max_length=200)], Secret] = Field(default={}, repr=False)
    oauth: OAuthSpec | None = None
    command: Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]+$")] | None = None
    args: tuple[Argument, ...] = ()
    env: dict[Variable, Secret] = Field(default={}, repr=False)
    document: Annotated[dict[str, JsonValue] | None, AfterValidator(_bounded)] = Field(default=None, repr=False)
    document_url: AnyHttpUrl | None = None
    tools: tuple[Pattern, ...] | None = None
    price: ToolPriceSpec = ToolPriceSpec()
    enabled: bool = True
    timeout_s: PositiveSeconds = 60
    start_s: PositiveSeconds = 10
    parallel: int = Field(default=32, ge=1, le=4096)
    max_answer_mb: float = Field(default=8, gt=0, le=256)
    verify_tls: bool = True
    ca_file: str | None = None

    @model_validator(mode="after")
    def _what_the_kind_has(self) -> Self:
        allowed = {
            "http": {"url", "api_key", "headers", "oauth", "verify_tls", "ca_file"},
            "stdio": {"command", "args", "env"},
            "openapi": {
                "url",
                "api_key",
                "headers",
                "query",
                "oauth",
                "document",
                "document_url",
                "verify_tls",
                "ca_file",
            },
        }
        every = set().union(*allowed.values())
        for name in sorted(every - allowed[self.kind]):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is not for servers of the kind {self.kind}")
        if self.kind == "stdio" and self.command is None:
            raise ValueError("a server of the kind stdio needs a command")
        if self.kind != "stdio" and self.url is None:
            raise ValueError(f"a server of the kind {self.kind} needs a url")
        if self.url is not None and (self.url.username is not None or self.url.password is not None):
            raise ValueError("an address is shown to everyone, so it takes no password: use api_key or headers")
        if self.kind == "openapi" and (self.document is None) == (self.document_url is None):
            raise ValueError("a server of the kind openapi needs either a document or a document_url")
        if self.api_key is not None and self.oauth is not None:
            raise ValueError("api_key and oauth both make the Authorization header: set one of them")
        return self


class RightsSpec(Section):
    """Which tools a key or a team may see and call: those of `servers` that are among `tools`; `*` stands for any text.

    Tools are named as they are offered, `<server>__<tool>`. What is left out is not restricted by it.
    """

    servers: Annotated[tuple[Pattern, ...], Field(max_length=1000)] | None = None
    tools: Annotated[tuple[Pattern, ...], Field(max_length=1000)] | None = None

    @model_validator(mode="after")
    def _something_is_named(self) -> Self:
        if self.servers is None and self.tools is None:
            raise ValueError("name servers, tools or both; an empty list admits none")
        return self


class McpSection(Section):
    """Tools for clients and for models. `unlisted` says what a key may call if neither it nor its team has a list of tools.

    `origins`: web pages that may speak to the endpoint, beside those of this machine. `max_rounds`: of a model that calls tools in
    one response.
    """

    servers: tuple[ServerSpec, ...] = ()
    stdio_commands: tuple[CommandSpec, ...] = ()
    unlisted: Literal["deny", "allow"] = "deny"
    origins: tuple[Annotated[str, Field(max_length=500, pattern=r"^https?://[^/\s]+$")], ...] = ()
    max_rounds: int = Field(default=10, ge=1, le=100)


def permitted(command: str, args: tuple[str, ...], env: frozenset[str], allowed: tuple[CommandSpec, ...]) -> str | None:
    """None if a program may be started like that; else why not."""
    named = [each for each in allowed if each.command == command]
    if not named:
        return (
            f"the command {command!r} is not in mcp.stdio_commands of the configuration file, which alone can allow it"
        )
    fits = [each for each in named if args == each.args or (each.more_args and args[: len(each.args)] == each.args)]
    if not fits:
        return f"mcp.stdio_commands of the configuration file does not allow {command!r} with these arguments"
    if not any(env <= set(each.env) for each in fits):
        return f"mcp.stdio_commands of the configuration file does not let {command!r} have these variables"
    return None
