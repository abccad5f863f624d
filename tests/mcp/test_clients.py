"""The official client in front of the gateway, official servers behind it."""

import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_types import TextContent

from tests.mcp.conftest import Gateway

MODES = pytest.mark.parametrize("mode", ["legacy", "auto"])


def said(result: object) -> str:
    (content,) = result.content  # type: ignore[attr-defined]
    assert isinstance(content, TextContent)
    return content.text


@MODES
async def test_the_official_client_lists_and_calls_tools_of_both_kinds(gateway: Gateway, mode: str) -> None:
    """Over streamable HTTP and over standard input and output, by the handshake and without one."""
    async with gateway.client(gateway.key("remote", "local"), mode=mode) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        assert {"remote__add", "local__add"} <= set(names)
        assert names == sorted(names)
        added = await client.call_tool("remote__add", {"a": 2, "b": 40})
        assert (said(added), added.structured_content, added.is_error) == ("42", {"result": 42}, False)
        assert said(await client.call_tool("local__who", {})).startswith("local ")
        assert said(await client.call_tool("local__variable", {"name": "GREETING"})) == "hello"
        failed = await client.call_tool("remote__broken", {})
        assert failed.is_error
        with pytest.raises(MCPError, match="Unknown tool: remote__nothing"):
            await client.call_tool("remote__nothing", {})


@MODES
async def test_one_server_alone_has_its_tools_under_their_own_names(gateway: Gateway, mode: str) -> None:
    """For clients that want one server and no prefixes."""
    async with gateway.client(gateway.key("remote", "local"), "/mcp/remote", mode=mode) as client:
        assert "add" in [tool.name for tool in (await client.list_tools()).tools]
        assert said(await client.call_tool("add", {"a": 1, "b": 1})) == "2"


async def test_progress_is_told_under_the_clients_own_token(gateway: Gateway) -> None:
    """In order, before the answer."""
    told: list[tuple[float, float | None, str | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total, message))

    for server in ("remote", "local"):
        told.clear()
        async with gateway.client(gateway.key(server), mode="legacy") as client:
            result = await client.call_tool(f"{server}__counting", {"to": 3}, progress_callback=hear)
        assert said(result) == "counted"
        assert told == [(1, 3, "step 1"), (2, 3, "step 2"), (3, 3, "step 3")]


@MODES
async def test_a_key_without_the_right_sees_no_tool_and_calls_none(gateway: Gateway, mode: str) -> None:
    """What it may not call is to it as if it were not there: the same words as for a tool that is not."""
    async with gateway.client(gateway.server.new_key(), mode=mode) as client:
        assert (await client.list_tools()).tools == []
        with pytest.raises(MCPError) as refused:
            await client.call_tool("remote__add", {"a": 1, "b": 1})
        with pytest.raises(MCPError) as unknown:
            await client.call_tool("nobody__add", {"a": 1, "b": 1})
    assert (refused.value.error.code, refused.value.error.message) == (-32602, "Unknown tool: remote__add")
    assert unknown.value.error.message == "Unknown tool: nobody__add"


async def test_a_program_sees_nothing_of_the_gateways_environment(gateway: Gateway) -> None:
    """Keys of providers and the admin key are there; a program gets what it needs to start and what was declared for it."""
    async with gateway.client(gateway.key("local")) as client:
        assert isinstance(client, Client)
        assert said(await client.call_tool("local__variable", {"name": "PENSTOCK_ADMIN_KEY"})) == "(none)"
