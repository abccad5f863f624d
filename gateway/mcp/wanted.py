"""MCP tools in a request to `/v1/responses`: which registered servers are meant, and what is offered of them to the model. Pure."""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
from msgspec import Raw

from gateway import errors
from gateway.bodies import NULL
from gateway.mcp.catalog import Server
from gateway.mcp.tools import Tool, read_only
from gateway.responses.items import encode
from gateway.wire import present

RawObject = dict[str, Raw]
MOST_NAME: Final = 64  # of a function, at providers
_FOREIGN: Final = re.compile(r"[^A-Za-z0-9_-]")


class Filter(msgspec.Struct, frozen=True, gc=False):
    """Which tools: those that are named, and only such as say that they change nothing."""

    tool_names: tuple[str, ...] | None = None
    read_only: bool | None = None

    def admits(self, tool: Tool) -> bool:
        if self.tool_names is not None and tool.name not in self.tool_names:
            return False
        return self.read_only is None or read_only(tool) is self.read_only


class Approval(msgspec.Struct, frozen=True, gc=False):
    always: Filter | None = None
    never: Filter | None = None


class Wish(msgspec.Struct, gc=False):
    """One tool of the type `mcp`."""

    server_label: str
    server_url: str | None = None
    server_description: str | None = None
    allowed_tools: list[str] | Filter | None = None
    require_approval: Literal["always", "never"] | Approval | None = None
    connector_id: Raw = NULL
    authorization: Raw = NULL
    headers: Raw = NULL


class Meant(msgspec.Struct, frozen=True):
    """A registered server under the label that the request gives it."""

    label: str
    server: Server
    allowed: Filter
    approval: Literal["always", "never"] | Approval

    def asks_first(self, tool: Tool) -> bool:
        """Whether a person wants to be asked before a call: unless the request says otherwise."""
        if isinstance(self.approval, str):
            return self.approval == "always"
        if self.approval.never is not None and self.approval.never.admits(tool):
            return False
        return self.approval.always is None or self.approval.always.admits(tool)


class Function(msgspec.Struct, frozen=True):
    """A tool as the model sees it, under the name of a function."""

    name: str
    meant: Meant
    tool: Tool

    @property
    def asks_first(self) -> bool:
        return self.meant.asks_first(self.tool)

    def offered(self) -> dict[str, object]:
        made: dict[str, object] = {"type": "function", "name": self.name, "strict": False}
        described = self.tool.fields.get("description", NULL)
        if present(described):
            made["description"] = described
        return made | {"parameters": self.tool.fields["inputSchema"]}


_kind: Final = msgspec.json.Decoder(RawObject)
_tools: Final = msgspec.json.Decoder(list[Raw])
_wish: Final = msgspec.json.Decoder(Wish)
_text: Final = msgspec.json.Decoder(str)


def parted(tools: Raw) -> tuple[list[Raw], list[tuple[int, Raw]]]:
    """Other tools, and those of the type `mcp` with their places. What is no list is somebody else's to refuse."""
    if not bytes(tools).startswith(b"["):
        return [], []
    others: list[Raw] = []
    ours: list[tuple[int, Raw]] = []
    for number, one in enumerate(_tools.decode(tools)):
        if kind_of(one) == "mcp":
            ours.append((number, one))
        else:
            others.append(one)
    return others, ours


def kind_of(item: Raw) -> str:
    return _field(item, "type")


def name_of(item: Raw) -> str:
    return _field(item, "name")


def meant(ours: Sequence[tuple[int, Raw]], servers: Sequence[Server], may_see: Callable[[str], bool]) -> list[Meant]:
    """The servers of the tools of a request. Raises BadRequest, for what is not registered as for what is not for this key."""
    found: dict[str, Meant] = {}
    for number, one in ours:
        at = f"tools[{number}]"
        wish = _read(one, at)
        server = _server(wish, servers)
        if server is None or not may_see(server.name):
            where = wish.server_url or wish.server_label
            raise errors.BadRequest(
                f"'{where[:200]}' is no MCP server that is registered here for this key: tools of other servers are not called",
                param=f"{at}.server_url" if wish.server_url is not None else f"{at}.server_label",
                code="mcp_server_not_registered",
            )
        if wish.server_label in found:
            raise errors.BadRequest(
                f"'{wish.server_label}' is there twice", param=f"{at}.server_label", code="invalid_value"
            )
        allowed = wish.allowed_tools
        only = Filter(tuple(allowed)) if isinstance(allowed, list) else allowed or Filter()
        found[wish.server_label] = Meant(wish.server_label, server, only, wish.require_approval or "always")
    return list(found.values())


def functions(meants: Mapping[str, tuple[Meant, Sequence[Tool]]], taken: Iterable[str]) -> dict[str, Function]:
    """By their names, none of which is one of `taken`, which are the client's own. Raises BadRequest."""
    own = set(taken)
    found: dict[str, Function] = {}
    for label, (one, tools) in meants.items():
        for tool in tools:
            name = _function_name(label, tool.name)
            if name in own or name in found:
                raise errors.BadRequest(
                    f"The function '{name}' would be there twice", param="tools", code="invalid_value"
                )
            found[name] = Function(name, one, tool)
    return found


def choice(given: Raw, named: Mapping[str, Function]) -> Raw | None:
    """`tool_choice` in terms of functions; None where it says nothing of MCP. Raises BadRequest."""
    if not bytes(given).startswith(b"{") or kind_of(given) != "mcp":
        return None
    label, name = _field(given, "server_label"), _field(given, "name")
    if not name:
        return Raw(b'"required"')
    for function in named.values():
        if (function.meant.label, function.tool.name) == (label, name):
            return Raw(encode({"type": "function", "name": function.name}))
    raise errors.BadRequest(
        f"There is no tool '{name[:200]}' to choose", param="tool_choice.name", code="invalid_value"
    )


def _server(wish: Wish, servers: Sequence[Server]) -> Server | None:
    """By its name as the address, by its address, or, without one, by its name as the label."""
    if wish.server_url is None:
        return next((one for one in servers if one.name == wish.server_label), None)
    url = wish.server_url.rstrip("/")
    return next(
        (one for one in servers if one.name == url or (one.kind == "http" and one.url.rstrip("/") == url)), None
    )


def _read(one: Raw, at: str) -> Wish:
    try:
        wish = _wish.decode(one)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.BadRequest(f"Invalid '{at}': {error}", param=at, code="invalid_type") from None
    for name in ("connector_id", "authorization", "headers"):
        if present(getattr(wish, name)):
            raise errors.BadRequest(
                f"{name} is not taken: a server that is registered here has its own credentials",
                param=f"{at}.{name}",
                code="unsupported_parameter",
            )
    return wish


def _function_name(label: str, tool: str) -> str:
    plain = _FOREIGN.sub("_", f"{label}__{tool}")
    if len(plain) <= MOST_NAME and plain == f"{label}__{tool}":
        return plain
    mark = hashlib.sha256(f"{label}__{tool}".encode()).hexdigest()[:8]
    return f"{plain[: MOST_NAME - 9]}_{mark}"


def _field(item: Raw, name: str) -> str:
    """A text, or nothing."""
    fields: dict[str, Any] = _kind.decode(item) if bytes(item).startswith(b"{") else {}
    value = fields.get(name, NULL)
    return _text.decode(value) if bytes(value).startswith(b'"') else ""
