"""The provider `sentence-transformers` with the real library, on a model that is made here: a BERT of 32 dimensions with random weights."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from embedding.engine import Engine, Limits
from embedding.errors import DimensionsUnsupported, Unavailable
from tests.fixtures.server import ADMIN_KEY, Server

st = pytest.importorskip(
    "sentence_transformers", reason="sentence-transformers is not installed: make test-integrations"
)

from embedding.backends.sentence_transformers import load  # noqa: E402 — needs torch
from tests.fixtures.tiny_encoder import tiny_encoder  # noqa: E402 — as above

pytestmark = [pytest.mark.integrations, pytest.mark.timeout(300)]

AUTH = {"Authorization": f"Bearer {ADMIN_KEY}"}
TEXTS = [
    "a turbine turns",
    "water",
    " the gate of the dam holds water and the turbine turns " * 8,
    "dam gate",
    "A Turbine",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder") / "model", prompts={"query": "ask: ", "document": "tell: "})


async def embedded(folder: Path, texts: list[str], **wanted: Any) -> Any:
    opened = load(str(folder))
    engine = Engine(opened.model.spec, lambda: opened.model, limits=Limits(batch_tokens=opened.batch_tokens))
    made = await engine.embed(texts, **wanted)
    await engine.close()
    return made


async def test_vectors_are_the_librarys_own(folder: Path) -> None:
    """In batches of several lengths, cut at the model's limit; a text is counted with its special tokens."""
    reference = st.SentenceTransformer(str(folder)).encode(TEXTS, normalize_embeddings=True)
    made = await embedded(folder, TEXTS)
    assert made.vectors.dtype == np.float32
    assert (made.vectors * reference).sum(axis=1).min() > 0.99999
    assert made.truncated == 1
    assert (await embedded(folder, ["water"])).prompt_tokens == 3


async def test_what_a_model_says_of_itself_is_read(folder: Path, tmp_path: Path) -> None:
    """Dimensions, limit and prompts; it may be cut where its files say so, and only there."""
    opened = load(str(folder))
    spec = opened.model.spec
    assert (spec.dimensions, spec.max_tokens, spec.matryoshka) == (32, 32, False)
    assert dict(opened.prompts) == {"query": "ask: ", "document": "tell: "}
    with pytest.raises(DimensionsUnsupported):
        await embedded(folder, ["water"], dimensions=8)
    nested = tiny_encoder(tmp_path / "nested", truncate_dim=16)
    assert load(str(nested)).model.spec.dimensions == 16
    whole = st.SentenceTransformer(str(nested), truncate_dim=16).encode(["water"], normalize_embeddings=True)
    assert np.allclose((await embedded(nested, ["water"])).vectors, whole, atol=1e-5)
    cut = (await embedded(nested, ["water"], dimensions=8)).vectors
    assert cut.shape == (1, 8)
    assert np.allclose(np.linalg.norm(cut, axis=1), 1, atol=1e-5)


def test_what_cannot_be_loaded_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder, no model in it, no network."""
    with pytest.raises(Unavailable, match="no folder"):
        load(str(tmp_path / "none"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(Unavailable, match="cannot be loaded"):
        load(str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(Unavailable, match="hub that can be reached"):
        load("nobody/such-a-model")


def test_a_server_serves_it(folder: Path, tmp_path: Path) -> None:
    """Prompts by `input_type`, a store that uses them by itself, and a model that is not there, on the real process."""

    def model(name: str, target: str, **more: object) -> dict[str, object]:
        where = {"id": name, "provider": "sentence-transformers", "model": target}
        return {"name": name, "deployments": [where], "retries": {"attempts": 0}, **more}

    models = [
        model("tiny", str(folder)),
        model("own", str(folder), embedding={"query_prefix": "tell: "}),
        model("gone", str(tmp_path / "none")),
    ]
    server = Server({"models": models}, tmp_path).start()
    server.http.timeout = httpx.Timeout(120)  # the first one waits for torch
    try:

        def vector(name: str, text: str, **more: object) -> Any:
            answer = server.http.post("/v1/embeddings", json={"model": name, "input": text, **more}, headers=AUTH)
            assert answer.status_code == 200, answer.text
            return answer.json()["data"][0]["embedding"]

        asked, told = vector("tiny", "water", input_type="query"), vector("tiny", "water", input_type="passage")
        assert np.allclose(asked, vector("tiny", "ask: water"), atol=1e-5)
        assert np.allclose(told, vector("tiny", "tell: water"), atol=1e-5)
        assert np.allclose(vector("own", "water", input_type="query"), told, atol=1e-5)
        gone = server.http.post("/v1/embeddings", json={"model": "gone", "input": "a"}, headers=AUTH)
        assert (gone.status_code, "no folder" in gone.text) == (503, True)
        store = server.http.post("/v1/vector_stores", json={"embedding_model": "tiny"}, headers=AUTH).json()["id"]
        seen = server.admin.get(f"/collections/{store}").json()
        assert seen["prompts"] == {"query_type": "query", "passage_type": "document"}
    finally:
        server.stop()
