"""Which deployments are taken to speak `/v1/responses` themselves, and what others are asked instead."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import Engine

from admin.migrate import prepare
from gateway import model_store
from gateway.catalog import Deployment
from gateway.database import changing, connect
from gateway.dialects.registry import DIALECTS
from gateway.pool import Pool
from gateway.pool_limits import PoolLimits
from gateway.responses.dialects import Native, between
from gateway.secret_box import SecretBox, load_or_create_key
from gateway.settings import DeploymentSpec, ModelSpec
from gateway.snapshot_store import SnapshotStore
from gateway.targets import Targets

HELLO = b'{"model":"x","input":"hi","max_output_tokens":5}'


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = connect(f"sqlite:///{tmp_path / 'penstock.db'}")
    prepare(engine)
    yield engine
    engine.dispose()


@pytest.mark.parametrize(
    ("spec", "speaks"),
    [
        ({"provider": "openai"}, True),
        ({"provider": "openai", "base_url": "https://api.openai.com/v1"}, True),
        ({"provider": "openai", "base_url": "https://api.openai.com/v1", "responses": False}, False),
        ({"provider": "openai", "base_url": "http://127.0.0.1:8000/v1"}, False),
        ({"provider": "vllm"}, False),
        ({"provider": "vllm", "responses": True}, True),
        ({"provider": "anthropic"}, False),
    ],
)
def test_a_deployment_speaks_it_where_it_says_so_or_is_openai(
    engine: Engine, tmp_path: Path, spec: dict[str, Any], speaks: bool
) -> None:
    """One declared rule, and nobody is asked to find out."""
    box = SecretBox(lambda: load_or_create_key(tmp_path / "secret-key"))
    made = DeploymentSpec.model_validate({"id": "d", "api_key": "sk-x", **spec})
    with changing(engine) as tx:
        model_store.create_model(tx, ModelSpec(name="m", deployments=(made,)), box)
    loaded = SnapshotStore(engine, box, lambda text: text).load().snapshot
    assert [one.responses for one in loaded.catalog.models["m"].deployments] == [speaks]


@pytest.mark.parametrize(
    "spec",
    [
        {"provider": "anthropic"},
        {"provider": "bedrock"},
        {"provider": "embedded"},
        {"provider": "azure", "base_url": "https://x.openai.azure.com", "model": "g", "api_version": "2024-10-21"},
    ],
)
def test_an_api_of_another_kind_cannot_be_declared_to_speak_it(spec: dict[str, Any]) -> None:
    """It would be asked for something that it does not have."""
    with pytest.raises(ValidationError, match="responses is for addresses"):
        DeploymentSpec.model_validate({"id": "d", "responses": True, **spec})


@pytest.mark.parametrize(
    ("fields", "first_line", "limit"),
    [
        ({"base_url": "https://api.openai.com/v1"}, b"POST /v1/chat/completions HTTP/1.1", "max_completion_tokens"),
        ({"base_url": "http://127.0.0.1:9/v1"}, b"POST /v1/chat/completions HTTP/1.1", "max_tokens"),
        (
            {
                "provider": "azure",
                "base_url": "https://x.openai.azure.com/openai/deployments/my gpt",
                "api_version": "2024-10-21",
            },
            b"POST /openai/deployments/my%20gpt/chat/completions?api-version=2024-10-21 HTTP/1.1",
            "max_completion_tokens",
        ),
        ({"provider": "anthropic", "base_url": "https://a.example/v1"}, b"POST /v1/messages HTTP/1.1", "max_tokens"),
        ({"base_url": "http://127.0.0.1:9/v1", "responses": True}, b"POST /v1/responses HTTP/1.1", "max_output_tokens"),
    ],
)
async def test_each_is_asked_at_its_own_path_with_its_own_limit(
    fields: dict[str, Any], first_line: bytes, limit: str
) -> None:
    """A provider that wants a limit is told one; the others are not."""
    deployment = Deployment(**{"id": "d", "provider": "openai", "target": "up", **fields})
    pool = Pool(PoolLimits())
    targets = Targets(pool, "tests", DIALECTS, between={"/responses": between})
    target = targets.of(deployment, "/responses", "m")
    assert target.dialect is not None
    assert isinstance(target.dialect, Native) is deployment.responses
    assert target.limited is (deployment.provider == "anthropic")
    outgoing = target.dialect.request("responses", HELLO, "up")
    assert target.opening(outgoing.path, outgoing.headers).startswith(first_line)
    assert json.loads(outgoing.body)[limit] == 5
    chat = targets.of(deployment, "/chat/completions", "m")
    assert (chat.dialect is None) is (deployment.provider != "anthropic")
    await pool.close()
