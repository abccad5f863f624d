"""Which tools a caller may see and call. Pure: names against lists."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

JOINT: Final = "__"  # between a server's name and a tool's


class Rights(msgspec.Struct, frozen=True):
    """Patterns in which `*` stands for any text. None does not restrict."""

    servers: tuple[str, ...] | None = None
    tools: tuple[str, ...] | None = None

    def admits_server(self, server: str) -> bool:
        """Whether any of its tools may be admitted."""
        return self.servers is None or admitted(self.servers, server)

    def admits(self, server: str, tool: str) -> bool:
        return self.admits_server(server) and (self.tools is None or admitted(self.tools, federated(server, tool)))


NONE: Final = Rights((), ())


def federated(server: str, tool: str) -> str:
    """A tool's name among those of all servers."""
    return f"{server}{JOINT}{tool}"


def rights(stored: Mapping[str, Any] | None) -> Rights | None:
    """As it stands in the database."""
    if stored is None:
        return None
    servers, tools = stored.get("servers"), stored.get("tools")
    return Rights(None if servers is None else tuple(servers), None if tools is None else tuple(tools))


def admitted(patterns: Sequence[str], name: str) -> bool:
    return any(matches(pattern, name) for pattern in patterns)


def matches(pattern: str, name: str) -> bool:
    """In time that grows with the two lengths, whatever the pattern."""
    if "*" not in pattern:
        return pattern == name
    first, *middle, last = pattern.split("*")
    if len(name) < len(first) + len(last) or not name.startswith(first) or not name.endswith(last):
        return False
    at, end = len(first), len(name) - len(last)
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
