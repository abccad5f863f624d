"""Models of sentence-transformers as the gateway asks them, with a stand-in for torch: prompts, errors, who waits and who tries again.

The real ones are in `tests/integrations/test_sentence_transformers.py`.
"""

import asyncio
import threading
from array import array
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from admin.sentence_models import SentenceModels
from embedding.backends.hashing import HashingBackend
from embedding.errors import Unavailable
from embedding.model import Model
from embedding.ports import ModelSpec
from embedding.tokens import Encoded, Truncation
from gateway import errors
from tests.fixtures.server import Server

PROMPTS = {"query": "ask: ", "document": "tell: ", "clustering": "sort: "}


class Letters:
    """As `embedding.tokens.Tokenizer`: each character is a token."""

    def encode(self, text: str, truncation: Truncation = "truncate") -> Encoded:
        del truncation
        return Encoded(array("i", [ord(each) for each in text]), truncated=False)


class Loads:
    """Loads once for each call of it, and what it should fail with before that."""

    def __init__(self, *failures: Exception, prompts: dict[str, str] | None = None) -> None:
        self.failures, self.names, self.threads = list(failures), [], set()  # type: ignore[var-annotated]
        self._prompts = PROMPTS if prompts is None else prompts

    def __call__(self, name: str) -> Any:
        self.names.append(name)
        self.threads.add(threading.current_thread())
        if self.failures:
            raise self.failures.pop(0)
        spec = ModelSpec(name, 16, 256)
        model = Model(spec, Letters(), HashingBackend(16))  # type: ignore[arg-type]
        return SimpleNamespace(model=model, prompts=self._prompts, batch_tokens=64)


async def ask(models: SentenceModels, **fields: object) -> list[Sequence[float]]:
    body = msgspec.json.encode({"model": "m", "input": ["text"], **fields})
    answer = msgspec.json.decode(await models.answer("embeddings", body, "m", "folder", "key_1"))
    return [each["embedding"] for each in answer["data"]]


@pytest.mark.parametrize(
    ("input_type", "prompt"),
    [
        ("query", "ask: "),
        ("search_query", "ask: "),
        ("passage", "tell: "),
        ("document", "tell: "),
        ("clustering", "sort: "),
    ],
)
async def test_the_models_own_prompt_stands_before_a_text(input_type: str, prompt: str) -> None:
    """Of the role, or of whatever else the model has a name for; without `input_type` there is none."""
    models = SentenceModels(Loads())
    prompted, plain = await ask(models, input_type=input_type), await ask(models, input=[f"{prompt}text"])
    assert np.allclose(prompted, plain)
    assert not np.allclose(prompted, await ask(models))
    await models.close()


async def test_a_model_with_other_names_or_none_is_understood() -> None:
    """`search_query` and `passage` are names of prompts as well; where there is none, nothing stands before a text."""
    models = SentenceModels(Loads(prompts={"search_query": "q: ", "passage": "p: "}))
    assert np.allclose(await ask(models, input_type="query"), await ask(models, input=["q: text"]))
    assert np.allclose(await ask(models, input_type="document"), await ask(models, input=["p: text"]))
    with pytest.raises(errors.BadRequest, match="input_type"):
        await ask(models, input_type="clustering")
    await models.close()
    bare = SentenceModels(Loads(prompts={}))
    assert np.allclose(await ask(bare, input_type="query"), await ask(bare))
    await bare.close()


async def test_a_model_is_loaded_once_and_off_the_loop() -> None:
    """However many ask for it at the same time."""
    loads = Loads()
    models = SentenceModels(loads)
    await asyncio.gather(*(ask(models) for _ in range(8)))
    assert loads.names == ["folder"]
    assert threading.current_thread() not in loads.threads
    await models.close()


async def test_what_failed_is_tried_again() -> None:
    """All who waited are told why, whatever it was; and nothing is kept of it."""
    loads = Loads(Unavailable("There is no folder"), RuntimeError("a part is broken"))
    models = SentenceModels(loads)
    found = await asyncio.gather(ask(models), ask(models), return_exceptions=True)
    assert [(each.status, each.message) for each in found if isinstance(each, errors.GatewayError)] == [
        (503, "There is no folder")
    ] * 2
    with pytest.raises(errors.GatewayError, match="a part is broken") as broken:
        await ask(models)
    assert broken.value.status == 503
    assert len(await ask(models)) == 1
    assert loads.names == ["folder"] * 3
    await models.close()


async def test_who_closes_does_not_wait_for_a_model_that_loads() -> None:
    """A hub may take minutes."""
    loading, go = threading.Event(), threading.Event()

    def load(name: str) -> Any:
        loading.set()
        assert go.wait(60)
        return Loads()(name)

    models = SentenceModels(load)
    asked = asyncio.get_running_loop().create_task(ask(models))
    assert await asyncio.to_thread(loading.wait, 60)
    try:
        await asyncio.wait_for(models.close(), 30)
    finally:
        go.set()
    with pytest.raises(asyncio.CancelledError):
        await asked


async def test_it_embeds_and_nothing_else() -> None:
    """Before anything is loaded."""
    loads = Loads()
    with pytest.raises(errors.BadRequest, match="embeddings"):
        await SentenceModels(loads).answer("chat", b"{}", "m", "folder", "key_1")
    assert not loads.names


def test_without_the_extra_a_call_names_it(server: Server) -> None:
    """The model can be declared, and a call says what to install: the server goes on."""
    where = {"id": "st-1", "provider": "sentence-transformers", "model": "/nowhere"}
    made = server.admin.post("/models", json={"name": "st-model", "deployments": [where], "retries": {"attempts": 0}})
    assert made.status_code == 201, made.text
    answer = server.post("/v1/embeddings", {"model": "st-model", "input": "a"})
    assert answer.status_code == 503
    assert "extra `sentence-transformers`" in answer.json()["error"]["message"]
    chat = server.post("/v1/chat/completions", {"model": "st-model", "messages": [{"role": "user", "content": "a"}]})
    assert chat.status_code == 400
    every = {"name": "st-every", "deployments": [{"id": "st-2", "provider": "sentence-transformers"}]}
    refused = server.admin.post("/models", json=every)
    assert (refused.status_code, "needs one model" in refused.text) == (400, True)
