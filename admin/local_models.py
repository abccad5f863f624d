"""Where the gateway meets the models in this process, for embeddings, quoting and reranking: they look like any other deployment."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, final

import structlog

from embedding import bundled
from embedding.errors import EmbeddingError
from embedding.ports import ModelSpec
from gateway import errors
from gateway.units.rerank import BYTES_PER_TOKEN, Rerank, RerankAsk, answered

if TYPE_CHECKING:  # NumPy comes with the engine, and both with the first request
    from embedding.cache import ModelVectors
    from embedding.cl100k import Cl100k
    from embedding.engine import Engine

log = structlog.stdlib.get_logger(__name__)


class Similar(Protocol):
    """The cosine of a question and each text, for a tenant; None where there is none to be had."""

    async def __call__(self, question: str, texts: Sequence[str], tenant: str) -> Sequence[float] | None: ...


MOST_PRIOR: Final = 1e300  # the greatest less the least is a number still


class EngineRefusal(errors.GatewayError):
    """An error of the engine's with the face that the engine gave it."""

    def __init__(self, error: EmbeddingError) -> None:
        wait_s = error.retry_after_s
        headers = (("retry-after", str(max(1, round(wait_s)))),) if wait_s is not None else ()
        super().__init__(error.message, param=error.param, code=error.code, headers=headers)
        self.status = error.status
        self.type = error.type


@final
class EmbeddedModels:
    """`gateway.in_process.Local` on the bundled embedding model. `cache` holds the graph that is built once, `known` gives vectors."""

    def __init__(self, cache: Path, known: "Callable[[bytes], ModelVectors | None]") -> None:
        self._cache = cache
        self._known = known
        self._opened: dict[str, tuple[Engine, Cl100k]] = {}

    async def answer(self, endpoint: str, body: bytes, model: str, target: str, tenant: str) -> bytes:
        """By the quantised model where the deployment names that one. Raises GatewayError."""
        if endpoint != "embeddings":
            raise errors.BadRequest(f"The model '{model}' makes embeddings; it cannot answer this", param="model")
        from embedding import openai  # noqa: PLC0415 — imports NumPy, which an idle gateway does without

        engine, tokens = self._open(bundled.MINILM_INT8 if target == bundled.MINILM_INT8.name else bundled.MINILM)
        try:
            answer = await openai.answer(engine, body, model, tokens, tenant)
        except EmbeddingError as error:
            raise EngineRefusal(error) from error
        return answer.body

    async def vectors(self, texts: Sequence[str]) -> Any:
        """Float32 `[texts, dimensions]`, for who compares texts in this process. Raises EmbeddingError."""
        engine, _ = self._open()
        return (await engine.embed(texts)).vectors

    async def similar(self, question: str, texts: Sequence[str], tenant: str) -> Sequence[float] | None:
        """The cosine of a question and each text; None where the model cannot be had now."""
        if not bundled.installed():
            return None
        engine, _ = self._open()
        try:
            vectors = (await engine.embed([question, *texts], tenant=tenant)).vectors
        except EmbeddingError as error:
            log.warning("quotes.without_vectors", code=error.code)
            return None
        return [float(cosine) for cosine in vectors[1:] @ vectors[0]]

    async def close(self) -> None:
        for engine, _ in self._opened.values():
            await engine.close()

    def _open(self, spec: ModelSpec = bundled.MINILM) -> "tuple[Engine, Cl100k]":
        if spec.name not in self._opened:
            from embedding import cl100k  # noqa: PLC0415 — as above
            from embedding.engine import Engine  # noqa: PLC0415 — as above

            known = self._known(bundled.identity(spec))
            self._opened[spec.name] = (
                Engine(spec, bundled.opener(self._cache, spec=spec), known=known),
                cl100k.installed(),
            )
        return self._opened[spec.name]


@final
class Distilled:
    """`gateway.in_process.Local` on what answers for classic models, which is loaded for whom they do."""

    def __init__(self, answer: Callable[[str, bytes, str, str], Awaitable[bytes]]) -> None:
        self._answer = answer

    async def answer(self, endpoint: str, body: bytes, model: str, target: str, tenant: str) -> bytes:  # noqa: ARG002 — nothing is kept
        """Raises GatewayError."""
        return await self._answer(endpoint, body, model, target)


@final
class Quotes:
    """`gateway.in_process.Local` on the quoting model. `similar` compares meanings."""

    def __init__(self, similar: Similar) -> None:
        self._similar = similar

    async def answer(self, endpoint: str, body: bytes, model: str, target: str, tenant: str) -> bytes:  # noqa: ARG002 — there is one
        """Raises GatewayError."""
        from retrieval.quotes.chat import QuotingModel, Unsupported  # noqa: PLC0415 — an idle gateway does without

        if endpoint != "chat":
            raise errors.BadRequest(f"The model '{model}' answers chats; it cannot answer this", param="model")
        try:
            return await QuotingModel(partial(self._similar, tenant=tenant)).answer(body, model)
        except Unsupported as error:
            raise errors.BadRequest(error.message, param=error.param) from error


@final
class Reranking:
    """`gateway.in_process.Local` on the reranker. `similar` compares meanings."""

    def __init__(self, similar: Similar) -> None:
        self._similar = similar

    async def answer(self, endpoint: str, body: bytes, model: str, target: str, tenant: str) -> bytes:  # noqa: ARG002 — there is one
        """Raises GatewayError."""
        from retrieval.reranking.reranker import Reranker  # noqa: PLC0415 — an idle gateway does without

        if endpoint != "rerank":
            raise errors.BadRequest(f"The model '{model}' reranks; it cannot answer this", param="model")
        ask = Rerank(1).read(body, {})
        assert isinstance(ask, RerankAsk)
        reranker = Reranker(partial(self._similar, tenant=tenant))
        most = ask.asked.max_tokens_per_doc
        texts = ask.texts if most is None else [text[: most * BYTES_PER_TOKEN] for text in ask.texts]
        return answered(ask, await reranker.rank(ask.asked.query, texts, _priors(ask)))


def _priors(ask: RerankAsk) -> list[float] | None:
    """What a search says of each document."""
    given = [None if isinstance(each, str) else each.get("prior") for each in ask.asked.documents]
    if all(prior is None for prior in given):
        return None
    for at, prior in enumerate(given):
        if isinstance(prior, bool) or not isinstance(prior, int | float) or not abs(prior) < MOST_PRIOR:
            param = f"documents[{at}].prior"
            raise errors.BadRequest(f"Invalid '{param}': a number, for every document or for none", param=param)
    return [float(prior) for prior in given if prior is not None]
