"""What is found without configuration, and that it becomes models that a client can ask for."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from admin import migrate
from admin.discovery import (
    Candidate,
    LocalServer,
    candidates,
    embedded_seeds,
    environment_seeds,
    file_seeds,
    keyed_providers,
    listed_models,
    local_seeds,
    normalized,
    probe,
)
from admin.settings import load
from embedding import bundled
from gateway.database import changing, connect, reading
from gateway.model_store import every_model
from gateway.secret_box import SecretBox
from gateway.seeding import seed, source_of, wanted

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[str]:
    """A server on a port of its own; closes what a script leaves open."""
    writers: list[asyncio.StreamWriter] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await script(reader, writer)

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await server.wait_closed()


def answering(body: bytes, status: str = "200 OK", seen: list[bytes] | None = None) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:  # the bare connection that asks whether anybody listens
            return
        if seen is not None:
            seen.append(head)
        writer.write(f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()

    return script


async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is there is found, however late it answers on a busy machine."""
    monkeypatch.setattr("admin.discovery.CONNECT_S", 20)
    monkeypatch.setattr("admin.discovery.TOTAL_S", 20)


LISTING = json.dumps({"object": "list", "data": [{"id": "llama3.2:1b"}, {"id": "nomic-embed-text"}]}).encode()


def test_a_key_in_the_environment_becomes_wildcards() -> None:
    """The provider's own names and everything under its prefix, with the key as a reference."""
    seeds = {seed.spec.name: seed for seed in environment_seeds({"ANTHROPIC_API_KEY": "sk-secret"})}
    assert set(seeds) == {"claude-*", "anthropic/*"}
    assert seeds["claude-*"].origin == "environment ANTHROPIC_API_KEY"
    assert seeds["claude-*"].spec.deployments[0].model == "claude-*"
    assert seeds["anthropic/*"].spec.deployments[0].model == "*"
    assert {seed.spec.deployments[0].api_key for seed in seeds.values()} == {"${ANTHROPIC_API_KEY}"}
    assert "sk-secret" not in repr(seeds)


def test_an_empty_key_is_no_key() -> None:
    """Compose files set variables to nothing."""
    assert environment_seeds({"OPENAI_API_KEY": ""}) == ()
    assert [p.name for p in keyed_providers({"OPENAI_API_KEY": "", "GROQ_API_KEY": "x"})] == ["groq"]


def test_every_key_together_names_nothing_twice() -> None:
    """One source is seeded as a whole, so names and ids must be unique in it."""
    environ = {name: "x" for p in keyed_providers(_every_key()) if (name := p.env)}
    names, ids = wanted("environment", environment_seeds(environ))
    assert len(names) == len(ids) > 20


def _every_key() -> dict[str, str]:
    return {
        f"{name}_API_KEY": "x"
        for name in ("OPENAI", "ANTHROPIC", "GEMINI", "GROQ", "MISTRAL", "DEEPSEEK", "TOGETHER", "FIREWORKS")
    } | {f"{name}_API_KEY": "x" for name in ("OPENROUTER", "XAI", "COHERE", "PERPLEXITY", "NVIDIA", "CEREBRAS")}


def test_a_base_url_in_the_environment_is_honoured() -> None:
    """The key goes there and nowhere else."""
    environ = {"OPENAI_API_KEY": "x", "OPENAI_BASE_URL": "http://10.0.0.5:9/v1/"}
    deployments = [seed.spec.deployments[0] for seed in environment_seeds(environ)]
    assert {str(deployment.base_url) for deployment in deployments} == {"http://10.0.0.5:9/v1"}
    assert Candidate("openai", "http://10.0.0.5:9/v1", "OPENAI_API_KEY") in candidates(environ)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("0.0.0.0", "http://127.0.0.1:11434/v1"),
        ("0.0.0.0:5", "http://127.0.0.1:5/v1"),
        ("gpu-box", "http://gpu-box:11434/v1"),
        ("http://gpu-box:5", "http://gpu-box:5/v1"),
        ("https://gpu-box/", "https://gpu-box/v1"),
        ("[::1]:5", "http://[::1]:5/v1"),
        ("http://x:nonsense", None),
        ("ftp://x", None),
        ("", None),
    ],
)
def test_the_forms_of_ollama_host_are_understood(address: str, expected: str | None) -> None:
    """As Ollama itself documents them; nonsense is no address."""
    assert normalized(address, 11434) == expected


def test_the_usual_ports_are_candidates_but_never_our_own() -> None:
    """Penstock on port 8000 does not ask itself."""
    urls = {candidate.base_url for candidate in candidates({})}
    assert urls == {f"http://127.0.0.1:{port}/v1" for port in (8000, 11434, 8080, 1234, 30000, 3000)}
    assert "http://127.0.0.1:8000/v1" not in {candidate.base_url for candidate in candidates({}, own_port=8000)}


@pytest.mark.usefixtures("patient")
async def test_servers_that_answer_are_found_with_their_models() -> None:
    """Several at the same time; a closed port, a refusal and a stranger's page are not servers."""
    async with (
        serving(answering(LISTING)) as good,
        serving(answering(b"<html>", "200 OK")) as page,
        serving(answering(LISTING, "401 Unauthorized")) as closed,
    ):
        places = [
            Candidate("ollama", good),
            Candidate("vllm", page),
            Candidate("sglang", closed),
            Candidate("tgi", "http://127.0.0.1:1/v1"),
        ]
        assert await probe(places, {}) == (LocalServer("ollama", good, ("llama3.2:1b", "nomic-embed-text")),)


async def test_a_server_that_never_answers_costs_half_a_second() -> None:
    """Silence after the connection, measured without the client's one-time import."""
    async with serving(silent) as first, serving(silent) as second:
        places = [Candidate("vllm", first), Candidate("ollama", second)]
        await probe(places, {})
        before = time.monotonic()
        assert await probe(places, {}) == ()
        assert time.monotonic() - before < 5  # 0.3 s, and room for a busy machine


async def test_an_endless_listing_is_given_up() -> None:
    """A stranger on the port cannot fill the memory."""

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                writer.write(b" " * 65_536)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            return

    async with serving(endless) as url:
        assert await probe([Candidate("vllm", url)], {}) == ()


@pytest.mark.usefixtures("patient")
async def test_the_key_goes_along_where_one_is_named() -> None:
    """For OPENAI_BASE_URL; a local server on its usual port gets none."""
    seen: list[bytes] = []
    async with serving(answering(LISTING, seen=seen)) as url:
        (server,) = await probe([Candidate("openai", url, "THE_KEY")], {"THE_KEY": "sk-1"})
        await probe([Candidate("vllm", url)], {"THE_KEY": "sk-1"})
    assert b"authorization: Bearer sk-1" in seen[0]
    assert b"authorization" not in seen[1].lower()
    assert local_seeds(server)[0].spec.deployments[0].api_key == "${THE_KEY}"


def test_a_listed_model_answers_under_its_name_and_with_prefix() -> None:
    """Both lead to the same model there; the origin says where it was found."""
    server = LocalServer("ollama", "http://127.0.0.1:11434/v1", ("llama3.2:1b",))
    plain, prefixed = local_seeds(server)
    assert (plain.spec.name, prefixed.spec.name) == ("llama3.2:1b", "ollama/llama3.2:1b")
    assert {seed.spec.deployments[0].model for seed in (plain, prefixed)} == {"llama3.2:1b"}
    assert plain.origin == "local:ollama http://127.0.0.1:11434/v1"
    assert source_of(plain.origin) == server.source
    assert len({seed.spec.deployments[0].id for seed in (plain, prefixed)}) == 2


def test_a_server_that_was_found_is_kept_while_it_is_down_and_never_doubled(tmp_path: Path) -> None:
    """Three starts on a real database: found, not there, found again with one model less."""
    engine = connect(f"sqlite:///{tmp_path}/p.db")
    migrate.prepare(engine)
    box = SecretBox(lambda: b"only for this test, never real")
    url = "http://127.0.0.1:11434/v1"

    def start(*servers: LocalServer) -> list[str]:
        with changing(engine) as tx:
            seed(tx, "environment", environment_seeds({}), box)
            for server in servers:
                seed(tx, server.source, local_seeds(server), box)
        with reading(engine) as tx:
            return [model.name for model, below in every_model(tx) if len(below) == 1]

    assert start(LocalServer("ollama", url, ("a", "b"))) == ["a", "b", "ollama/a", "ollama/b"]
    assert start() == ["a", "b", "ollama/a", "ollama/b"]
    assert start(LocalServer("ollama", url, ("a",))) == ["a", "ollama/a"]
    engine.dispose()


def test_names_that_no_client_can_ask_for_are_left_out() -> None:
    """Spaces and giants; the others of the same listing stay."""
    server = LocalServer("vllm", "http://127.0.0.1:8000/v1", ("a b", "x" * 300, "good"))
    assert [seed.spec.name for seed in local_seeds(server)] == ["good", "vllm/good"]


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b'{"data": null}', b'{"data": {"id": "x"}}', b'{"data": [1, {"id": 2}, {}]}', b"[" * 100_000],
)
def test_strange_listings_have_no_models(body: bytes) -> None:
    """The port may belong to anybody."""
    assert listed_models(body) == ()


def test_a_listing_is_bounded_and_without_repetition() -> None:
    """Wildcards in it are not taken as ours."""
    ids = [{"id": f"m{n % 300}"} for n in range(600)] + [{"id": "*"}]
    assert len(listed_models(json.dumps({"data": ids}).encode())) == 200
    assert listed_models(b'{"data": [{"id": "a"}, {"id": "*"}, {"id": "a"}]}') == ("a",)


def test_the_models_of_this_process_are_registered() -> None:
    """Quoting needs nothing; embedding stands, where it is installed, under its own name and one that clients expect."""
    seeds = embedded_seeds()
    embedding = ["penstock/minilm", "text-embedding-minilm"] if bundled.installed() else []
    assert [seed.spec.name for seed in seeds] == ["penstock/quotes", "penstock/rerank", *embedding]
    assert [seed.spec.deployments[0].provider for seed in seeds] == [
        "quotes",
        "reranker",
        *["embedded"] * len(embedding),
    ]


def test_models_of_the_file_carry_their_lines(tmp_path: Path) -> None:
    """So that the database can say where each came from."""
    file = tmp_path / "p.yaml"
    file.write_text("models:\n  - name: chat\n    deployments:\n      - id: a\n      - id: b\n")
    (found,) = file_seeds(load({"--config": str(file)}, {}))
    assert found.origin == f"file {file}:2"
    assert found.deployment_origins == {"a": f"file {file}:4", "b": f"file {file}:5"}
