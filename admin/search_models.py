"""Where searches meet other models of the gateway: a cross-encoder that reranks, a chat model that writes queries. Who asks pays."""

from collections.abc import Mapping, Sequence
from typing import Final, final

import msgspec

from admin.documents import Calls, Handler, may_use
from gateway.providers import RERANKER
from gateway.snapshot import Current
from retrieval.access import Caller
from retrieval.errors import BadRequest, Forbidden, Refused

RERANK: Final = b"/v1/rerank"
CHAT: Final = b"/v1/chat/completions"


class _Score(msgspec.Struct):
    index: int
    relevance_score: float


class _Reranking(msgspec.Struct):
    results: list[_Score]


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message


class _Completion(msgspec.Struct):
    choices: list[_Choice]


class _Named:
    """A kind of model that searches may name; `param` is where they do."""

    param = ""

    def __init__(self, current: Current, calls: Calls, handler: Handler, usual: str | None) -> None:
        self._current = current
        self._calls = calls
        self._handler = handler
        self._usual = usual

    def default(self) -> str | None:
        return self._usual

    def require(self, model: str, payer: str) -> None:
        """Raises BadRequest, Forbidden."""
        if self._current.snapshot.catalog.find(model) is None:
            raise BadRequest(f"The model '{model}' does not exist", param=self.param, code="model_not_found")
        if not may_use(self._current, model, payer):
            raise Forbidden(f"This key may not use the model '{model}'", param=self.param, code="model_access_denied")


@final
class GatewayRanker(_Named):
    """`retrieval.ports.Ranker`."""

    param = "ranking_options.ranker"

    async def rank(
        self, query: str, texts: Sequence[str], priors: Sequence[float], model: str, payer: Caller
    ) -> Sequence[float]:
        """Raises Refused."""
        documents: Sequence[object] = list(texts)
        if self._weighs(model):
            documents = [{"text": text, "prior": prior} for text, prior in zip(texts, priors, strict=True)]
        fields: Mapping[str, object] = {
            "model": model,
            "query": query,
            "documents": documents,
            "return_documents": False,
        }
        answer = await self._calls.answer(
            self._handler, RERANK, payer.key_id, fields, "Reranking", account=payer.account
        )
        try:
            found = {each.index: each.relevance_score for each in msgspec.json.decode(answer, type=_Reranking).results}
        except msgspec.MsgspecError as error:
            raise _odd(f"Reranking: the answer has no scores: {error}") from error
        if found.keys() != set(range(len(texts))):
            raise _odd(f"Reranking: {len(found)} of {len(texts)} passages have a score")
        return [found[at] for at in range(len(texts))]

    def _weighs(self, model: str) -> bool:
        """Whether it is sure to be the one in this process, which makes something of what the search says already."""
        found = self._current.snapshot.catalog.find(model)
        if found is None:
            return False
        served, _ = found
        return not served.fallbacks and all(one.provider == RERANKER for one in served.deployments)


@final
class GatewayWriter(_Named):
    """`retrieval.ports.Writer`."""

    param = "expand.model"

    async def write(
        self, instruction: str, text: str, model: str, payer: Caller, max_tokens: int, *, aside: bool = False
    ) -> str:
        """Raises Refused."""
        messages = [{"role": "system", "content": instruction}, {"role": "user", "content": text}]
        fields = {"model": model, "messages": messages, "max_tokens": max_tokens}
        answer = await self._calls.answer(
            self._handler, CHAT, payer.key_id, fields, "Chat", aside=aside, account=payer.account
        )
        try:
            choices = msgspec.json.decode(answer, type=_Completion).choices
        except msgspec.MsgspecError as error:
            raise _odd(f"Chat: the answer has no text: {error}") from error
        return (choices[0].message.content or "") if choices else ""


def _odd(message: str) -> Refused:
    return Refused(502, message, "upstream_error", None)
