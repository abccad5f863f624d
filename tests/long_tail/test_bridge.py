"""The socket and the process behind it, with other programs in LiteLLM's place."""

import asyncio
import importlib.util
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from admin.long_tail.bridge import LiteLlm
from gateway.catalog import Deployment
from gateway.errors import UpstreamUnreachable
from tests.fixtures.deployments import Routes
from tests.upstream.behaviour import Behaviour

HERE = Deployment("d", "bedrock", "https://own.example", "claude", api_key="sk-x")
# Answers every connection with its number, then ends; it was started for the first of them.
GREETER = """
import json, os, socket, sys
given = json.loads(sys.stdin.readline())
listening = socket.socket(fileno=given["socket"])
open(sys.argv[1], "a").write("started\\n")
listening.setblocking(True)
connection, _ = listening.accept()
connection.sendall(given["token"].encode())
connection.close()
"""


async def read(url: str) -> bytes:
    reader, writer = await asyncio.open_connection(urlsplit(url).hostname, urlsplit(url).port)
    try:
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_the_process_starts_with_the_first_call(tmp_path: Path) -> None:
    """Not with the address; its token is what the gateway sends; one that has ended is started again by the next call."""
    log = tmp_path / "log"
    bridge = LiteLlm((sys.executable, "-c", GREETER, str(log)), package="json")
    try:
        url = bridge.base_url()
        assert url == bridge.base_url()
        headers = dict(bridge.headers("bedrock/", HERE))
        assert headers.pop("authorization").removeprefix("Bearer ").encode() == await read(url)
        assert headers == {
            "x-litellm-prefix": "bedrock/",
            "x-litellm-api-key": "sk-x",
            "x-litellm-api-base": "https://own.example",
        }
        assert log.read_text() == "started\n"
        async with asyncio.timeout(30):
            while not await read(url):  # noqa: ASYNC110  # cut off while the one before is being cleared away
                await asyncio.sleep(0.1)
        assert log.read_text() == "started\nstarted\n"
    finally:
        await bridge.close()


async def test_who_waits_for_a_process_that_cannot_start_is_cut_off() -> None:
    """Not left waiting."""
    bridge = LiteLlm((sys.executable, "-c", "raise SystemExit(3)"), package="json")
    try:
        async with asyncio.timeout(30):
            assert await read(bridge.base_url()) == b""
    finally:
        await bridge.close()


async def test_a_process_ends_with_its_gateway(tmp_path: Path) -> None:
    """Also one that does not look at its input."""
    log = tmp_path / "pid"
    script = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
    bridge = LiteLlm((sys.executable, "-c", script, str(log)), package="json")
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(read(bridge.base_url()))
        while not written(log):  # noqa: ASYNC110  # another process writes it
            await asyncio.sleep(0.05)
        await bridge.close()
    assert not running(written(log))


def written(log: Path) -> str:
    return log.read_text() if log.is_file() else ""


def running(pid: str) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_without_the_package_the_error_says_what_to_do() -> None:
    """And nothing is started."""
    bridge = LiteLlm(package="a_package_that_nobody_has")
    with pytest.raises(UpstreamUnreachable, match="pip install 'penstock\\[litellm\\]'"):
        bridge.base_url()
    await bridge.close()


@pytest.mark.skipif(importlib.util.find_spec("litellm") is not None, reason="LiteLLM is installed here")
def test_a_client_is_told_and_another_deployment_may_answer(routes: Routes) -> None:
    """A provider that is out of reach is like one that is down."""
    other = routes(Behaviour(text="from another"))
    route = routes(Behaviour(), deployment={"provider": "bedrock", "base_url": None}, retries={"attempts": 0})
    answer = routes.ask(route)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "litellm_missing")
    assert "penstock[litellm]" in answer.json()["error"]["message"]
    backed = routes(
        Behaviour(),
        deployment={"provider": "bedrock", "base_url": None},
        retries={"attempts": 0},
        fallbacks=[other.name],
    )
    assert routes.ask(backed).json()["choices"][0]["message"]["content"] == "from another"
