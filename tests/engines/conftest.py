"""One engine and one gateway in front of it for the whole session: starting them is what takes the time."""

from collections.abc import AsyncIterator, Iterator

import openai
import pytest
import pytest_asyncio

from tests.engines.vllm import MODEL, Vllm
from tests.fixtures.server import Server

PUBLIC = "house-model"  # not the engine's own name, so that a test sees which of the two answered


@pytest.fixture(scope="session")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vllm]:
    """`vllm serve` with the tiny model; still idle and alive at the end."""
    engine = Vllm(tmp_path_factory.mktemp("vllm"))
    try:
        engine.start()
        print(f"\nvllm serve {engine.version()}: healthy {engine.started_in_s:.0f} s after its start")
        yield engine
        assert engine.running() == 0
    finally:
        engine.stop()


@pytest.fixture(scope="session")
def gateway(vllm: Vllm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`penstock serve` with one model, behind which the engine stands."""
    deployment = {"id": "vllm-cpu", "base_url": vllm.base_url, "model": MODEL, "price": {"input": 0.2, "output": 0.6}}
    server = Server(
        {"models": [{"name": PUBLIC, "deployments": [deployment]}]}, tmp_path_factory.mktemp("gateway")
    ).start()
    yield server
    alive = server.running()
    server.stop()
    assert alive, server.output


@pytest.fixture
def client(gateway: Server) -> Iterator[openai.OpenAI]:
    """The SDK as anyone would use it. No retries: one call is one call."""
    with openai.OpenAI(base_url=gateway.base_url, api_key=gateway.key, max_retries=0, timeout=120) as client:
        yield client


@pytest_asyncio.fixture
async def async_client(gateway: Server) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=gateway.base_url, api_key=gateway.key, max_retries=0, timeout=120) as client:
        yield client


@pytest.fixture
def direct(vllm: Vllm) -> Iterator[openai.OpenAI]:
    """The same SDK on the engine itself: what the gateway has to give back."""
    with openai.OpenAI(base_url=vllm.base_url, api_key="none", max_retries=0, timeout=120) as client:
        yield client
