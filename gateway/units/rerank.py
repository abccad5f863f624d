"""`/v1/rerank` in Jina's and Cohere's first shape, `/v2/rerank` in Cohere's second, in front of providers that speak either.

A client's own bytes go on where the deployment speaks the client's shape; where it does not, query, documents and scores are put into
the other one. Cohere bills search units: a query with up to 100 documents, where a long document counts once for each part of 500 tokens.
"""

from collections.abc import Sequence
from math import ceil
from typing import Annotated, Any, Final, Literal, final

import msgspec
from msgspec import Meta

from gateway import bodies, errors, wire
from gateway.catalog import Deployment
from gateway.ids import new_id
from gateway.units.ask import Ask, Headers
from gateway.units.door import Sent, Told, json_only, renamed
from gateway.usage import from_rerank, usage
from gateway.used import Usage

DOCUMENTS_PER_UNIT: Final = 100
PART_TOKENS: Final = 500
LEAST_PART_TOKENS: Final = 100  # what a long query leaves of a part
FRAME_TOKENS: Final = 16  # around each pair of query and document
BYTES_PER_TOKEN: Final = 4

Document = str | dict[str, Any]


class RerankRequest(msgspec.Struct, gc=False):
    """Both shapes. `documents` of objects: their `text`, or the fields in `rank_fields`."""

    model: bodies.ModelName
    query: Annotated[str, Meta(min_length=1)]
    documents: Annotated[list[Document], Meta(min_length=1, max_length=10_000)]
    top_n: bodies.Positive | None = None
    return_documents: bool | None = None
    rank_fields: list[str] | None = None
    max_tokens_per_doc: bodies.Positive | None = None


class _Billed(msgspec.Struct, gc=False):
    search_units: float | None = None
    input_tokens: float | None = None


class _Meta(msgspec.Struct, gc=False):
    billed_units: _Billed | None = None


class _Tokens(msgspec.Struct, gc=False):
    total_tokens: int | None = None
    prompt_tokens: int | None = None


class _Result(msgspec.Struct, gc=False):
    index: Annotated[int, Meta(ge=0)]
    relevance_score: float


class _Answer(msgspec.Struct, gc=False):
    results: list[_Result]
    id: str | None = None
    meta: _Meta | None = None
    usage: _Tokens | None = None


class RerankAsk(Ask, kw_only=True):
    """`texts` are the documents as they are ranked."""

    asked: RerankRequest
    texts: list[str]


_request = msgspec.json.Decoder(RerankRequest)
_answer = msgspec.json.Decoder(_Answer)


def answered(ask: RerankAsk, scores: Sequence[float]) -> bytes:
    """Jina's shape, by a model in this process that gave each document its score."""
    order = sorted(range(len(scores)), key=lambda at: (-scores[at], at))
    ranked = [_Result(at, scores[at]) for at in order[: ask.asked.top_n]]
    return msgspec.json.encode(_as_first(None, ranked, None, ask))


@final
class Rerank:
    """`version`: the shape that the client speaks."""

    plays = False

    def __init__(self, version: Literal[1, 2]) -> None:
        self.version = version

    def read(self, body: bytes, headers: Headers) -> Ask:
        json_only(headers)
        asked = wire.parse(_request, body)
        texts = [_text(asked, number) for number in range(len(asked.documents))]
        query = len(asked.query.encode())
        sizes = [len(text.encode()) for text in texts]
        room = max(LEAST_PART_TOKENS, PART_TOKENS - query)
        parts = sum(max(1, ceil(size / room)) for size in sizes)
        tokens = sum(sizes) + len(sizes) * (query + FRAME_TOKENS)
        return RerankAsk(
            model=asked.model,
            most=usage(tokens, search_units=ceil(parts / DOCUMENTS_PER_UNIT)),
            exact=usage(search_units=ceil(len(texts) / DOCUMENTS_PER_UNIT)),
            likely=usage(tokens // BYTES_PER_TOKEN),
            in_parts=True,
            asked=asked,
            texts=texts,
        )

    def sent(self, ask: Ask, body: bytes, deployment: Deployment, name: str) -> Sent:
        theirs = _version_of(deployment)
        path = "/v2/rerank" if theirs == 2 else "/rerank"
        if theirs == self.version:
            return msgspec.structs.replace(renamed(path, body, name), at_root=theirs == 2)
        assert isinstance(ask, RerankAsk)
        asked, texts = ask.asked, ask.texts
        fields: dict[str, Any] = {"model": name, "query": asked.query, "documents": texts}
        if asked.top_n is not None:
            fields["top_n"] = asked.top_n
        if theirs == 2 and asked.max_tokens_per_doc is not None:
            fields["max_tokens_per_doc"] = asked.max_tokens_per_doc
        if theirs == 1:
            fields["return_documents"] = False
        return Sent(path, (msgspec.json.encode(fields),), at_root=theirs == 2)

    def told(self, ask: Ask, deployment: Deployment, body: bytes, *, json: bool) -> Told:  # noqa: ARG002 — every answer is JSON here
        assert isinstance(ask, RerankAsk)
        asked, texts = ask.asked, ask.texts
        wire.read_answer(body)
        try:
            answer = _answer.decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise errors.UpstreamError(f"The upstream's answer is no reranking: {error}") from None
        if any(result.index >= len(texts) for result in answer.results):
            raise errors.UpstreamError("The upstream's answer ranks a document that it was not given")
        used = _used(answer)
        if _version_of(deployment) == self.version:
            return Told(body, used)
        results = answer.results if asked.top_n is None else answer.results[: asked.top_n]
        if self.version == 2:
            return Told(msgspec.json.encode(_as_second(answer.id, results, used, ask)), used)
        return Told(msgspec.json.encode(_as_first(answer.id, results, used, ask)), used)

    def event_usage(self, report: msgspec.Raw) -> Usage | None:  # noqa: ARG002 — the port's name: a reranking does not stream
        return None


def _version_of(deployment: Deployment) -> Literal[1, 2]:
    return 2 if deployment.provider == "cohere" else 1


def _text(asked: RerankRequest, number: int) -> str:
    document = asked.documents[number]
    if isinstance(document, str):
        return document
    if asked.rank_fields:  # Cohere's guide: the fields one below the other, as YAML has them
        return "\n".join(f"{name}: {document.get(name, '')}" for name in asked.rank_fields)
    text = document.get("text")
    if not isinstance(text, str):
        param = f"documents[{number}]"
        raise errors.BadRequest(
            f"Invalid '{param}': a text, or an object with a `text`", param=param, code="invalid_type"
        )
    return text


def _used(answer: _Answer) -> Usage | None:
    billed = answer.meta.billed_units if answer.meta is not None else None
    units = int(billed.search_units or 0) if billed is not None else 0
    tokens = int(billed.input_tokens or 0) if billed is not None else 0
    if answer.usage is not None:
        tokens = answer.usage.total_tokens or answer.usage.prompt_tokens or tokens
    return from_rerank(units, tokens) if units or tokens else None


def _as_first(id_: str | None, ranked: list[_Result], used: Usage | None, ask: RerankAsk) -> dict[str, Any]:
    """With `usage`, which Jina's clients read, and `meta`, which Cohere's do."""
    results: list[dict[str, Any]] = []
    for result in ranked:
        row: dict[str, Any] = {"index": result.index, "relevance_score": result.relevance_score}
        if ask.asked.return_documents:
            row["document"] = {"text": ask.texts[result.index]}
        results.append(row)
    tokens = used.input if used is not None and used.input else ask.likely.input
    return {
        "id": id_ or new_id("rerank"),
        "model": ask.asked.model,
        "object": "list",
        "results": results,
        "meta": _billing(used, ask, 1),
        "usage": {"total_tokens": tokens, "prompt_tokens": tokens},
    }


def _as_second(id_: str | None, ranked: list[_Result], used: Usage | None, ask: RerankAsk) -> dict[str, Any]:
    results = [{"index": result.index, "relevance_score": result.relevance_score} for result in ranked]
    return {"id": id_ or new_id("rerank"), "results": results, "meta": _billing(used, ask, 2)}


def _billing(used: Usage | None, ask: RerankAsk, version: int) -> dict[str, Any]:
    """Search units as reported, else as the request itself tells; tokens where they were reported."""
    units: dict[str, float] = {"search_units": ask.exact.search_units}
    if used is not None and used.search_units:
        units["search_units"] = used.search_units
    if used is not None and used.input:
        units["input_tokens"] = used.input
    return {"api_version": {"version": str(version)}, "billed_units": units}
