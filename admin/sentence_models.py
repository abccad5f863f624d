"""Where the gateway meets models of sentence-transformers: one engine for each, opened with its first request."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final, final

import msgspec
import structlog

from admin.local_models import EngineRefusal
from embedding.errors import EmbeddingError, Unavailable
from gateway import errors, wire
from gateway.catalog import ROLES, Roles

if TYPE_CHECKING:  # torch comes with the first request
    from embedding.backends.sentence_transformers import Opened
    from embedding.cl100k import Cl100k
    from embedding.engine import Engine

log = structlog.stdlib.get_logger(__name__)

# What authors call the prompts of the two roles, the usual name first.
NAMES: Final = {"query": ("query", "search_query"), "passage": ("document", "passage", "search_document", "corpus")}


class _Asked(msgspec.Struct, gc=False):
    input_type: str | None = None


_asked: Final = msgspec.json.Decoder(_Asked)


def loaded(name: str) -> "Opened":
    """Blocks, for the imports and for the model. Raises Unavailable."""
    try:
        from embedding.backends import sentence_transformers  # noqa: PLC0415 — imports torch
    except ImportError as error:
        raise Unavailable(f"The model {name} needs {error.name}: install the extra `sentence-transformers`") from error
    return sentence_transformers.load(name)


@final
class SentenceModels:
    """`gateway.in_process.Local`. `load` blocks, and raises EmbeddingError."""

    def __init__(self, load: "Callable[[str], Opened]" = loaded) -> None:
        self._load = load
        self._served: dict[str, asyncio.Task[_Served]] = {}

    async def answer(self, endpoint: str, body: bytes, model: str, target: str, tenant: str) -> bytes:
        """Texts of an `input_type` get the model's own prompt for it. Raises GatewayError."""
        if endpoint != "embeddings":
            raise errors.BadRequest(f"The model '{model}' makes embeddings; it cannot answer this", param="model")
        try:
            served = await self._opened(target)
            from embedding import openai  # noqa: PLC0415 — imports NumPy, which an idle gateway does without

            prompted = _prompted(body, served.prompts)
            return (await openai.answer(served.engine, prompted, model, served.tokens, tenant)).body
        except EmbeddingError as error:
            raise EngineRefusal(error) from error

    async def close(self) -> None:
        for opening in [*self._served.values()]:
            opening.cancel()  # of one that is still loading: nobody waits for it any more
            await asyncio.wait([opening])
            if not opening.cancelled() and opening.exception() is None:
                await opening.result().engine.close()

    async def _opened(self, target: str) -> "_Served":
        """Once, however many ask. A failed attempt is forgotten, so that the next request tries again."""
        opening = self._served.get(target)
        if opening is None:
            opening = self._served[target] = asyncio.get_running_loop().create_task(self._open(target))
            opening.add_done_callback(partial(self._ended, target))
        return await asyncio.shield(opening)

    def _ended(self, target: str, opening: "asyncio.Task[_Served]") -> None:
        if opening.cancelled() or opening.exception() is not None:
            del self._served[target]

    async def _open(self, target: str) -> "_Served":
        from embedding import cl100k  # noqa: PLC0415 — as above
        from embedding.engine import Engine, Limits  # noqa: PLC0415 — as above

        try:
            opened = await asyncio.to_thread(self._load, target)
        except EmbeddingError:
            raise
        except Exception as error:  # whatever parts of a model raise that nobody has seen
            raise Unavailable(f"The model {target} cannot be used: {error}") from error
        log.info("embedding.loaded", model=target, dimensions=opened.model.spec.dimensions)
        limits = Limits(batch_tokens=opened.batch_tokens)
        engine = Engine(opened.model.spec, lambda: opened.model, limits=limits)
        return _Served(engine, cl100k.installed(), opened.prompts)


@final
class _Served:
    def __init__(self, engine: "Engine", tokens: "Cl100k", prompts: Mapping[str, str]) -> None:
        self.engine = engine
        self.tokens = tokens
        self.prompts = prompts


def _prompted(body: bytes, prompts: Mapping[str, str]) -> bytes:
    """The body with the prompt for its `input_type`: of a role, or of another name that the model has. Raises BadRequest."""
    from gateway.embedding_roles import told  # noqa: PLC0415 — as above

    asked = wire.parse(_asked, body).input_type
    if asked is None:
        return body
    query, passage = (next((prompts[name] for name in NAMES[role] if name in prompts), "") for role in NAMES)
    if asked not in ROLES and asked in prompts:
        prefix = prompts[asked]
        return told(wire.replaced(body, {"input_type": "query"}), Roles(query_prefix=prefix))
    return told(body, Roles(query, passage))
