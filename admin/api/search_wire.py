"""Searches of vector stores on the wire, in OpenAI's shapes.

Beside those stand fields of ours. Asked: `tenant`, `expand`, `rerank`, `recency`, `group`, `mmr`, `neighbors`, `highlight`, `explain`.
Answered: `plan` and `stages` of the page, `citation` and `explain` of a result; `citation`, `context` and `highlights` of a text.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Literal, Self

from pydantic import Field, StrictBool, model_validator

from admin.api.vector_store_wire import Key, Text
from admin.api.wire import Strict
from retrieval import filters
from retrieval.asking import (
    Diversity,
    Expansion,
    Neighbours,
    Question,
    Recency,
    Rerank,
    Result,
    Results,
    ranked_by,
)

DAY_S = 86_400
MAX_CANDIDATES = 200

Candidates = Annotated[int, Field(ge=1, le=MAX_CANDIDATES)]
Timeout = Annotated[float, Field(gt=0, le=60)]
Model = Annotated[Text, Field(min_length=1, max_length=200)]
Query = Annotated[Text, Field(min_length=1, max_length=32_768)]


class HybridWeights(Strict):
    embedding_weight: Annotated[float, Field(ge=0, le=1000)]
    text_weight: Annotated[float, Field(ge=0, le=1000)]


class RankingOptions(Strict):
    """`ranker`: `auto` (the usual reranker, if there is one), `none`, or the name of a model that reranks."""

    ranker: Model = "auto"
    score_threshold: Annotated[float, Field(ge=0, le=1)] = 0.0
    hybrid_search: HybridWeights | None = None


class ExpandBody(Strict):
    """`model` also does `rewrite_query`."""

    multi_query: Annotated[int, Field(ge=0, le=8)] = 0
    hyde: StrictBool = False
    model: Model | None = None
    timeout_s: Timeout = 10.0


class RerankBody(Strict):
    candidates: Candidates = 50
    timeout_s: Timeout = 3.0


class RecencyBody(Strict):
    """`attribute`: Unix seconds, or ISO 8601; without it, when the file was added."""

    half_life_days: Annotated[float, Field(gt=0, le=100_000)]
    attribute: Key | None = None
    weight: Annotated[float, Field(ge=0, le=1)] = 1.0


class GroupBody(Strict):
    by: Literal["file"] = "file"
    size: Annotated[int, Field(ge=1, le=10)] = 1


class MmrBody(Strict):
    balance: Annotated[float, Field(ge=0, le=1, alias="lambda")] = 0.5
    candidates: Candidates = 50


class NeighborsBody(Strict):
    before: Annotated[int, Field(ge=0, le=10)] = 0
    after: Annotated[int, Field(ge=0, le=10)] = 0


class SearchSettings(Strict):
    """How a search is done, whatever it is for."""

    max_num_results: Annotated[int, Field(ge=1, le=50)] = 10
    ranking_options: RankingOptions = RankingOptions()
    rewrite_query: bool = False
    expand: ExpandBody | None = None
    rerank: RerankBody | None = None
    recency: RecencyBody | None = None
    mmr: MmrBody | None = None

    @model_validator(mode="after")
    def _one_mind(self) -> Self:
        if self.rerank is not None and self.ranking_options.ranker == "none":
            raise ValueError("ranking_options.ranker 'none' reranks nothing: name another one, or leave `rerank` out")
        return self


class SearchBody(SearchSettings):
    """`search_query` in the answer says what was searched for."""

    query: Query | Annotated[tuple[Query, ...], Field(min_length=1, max_length=16)]
    filters: dict[str, object] | None = None
    tenant: Annotated[Text, Field(min_length=1, max_length=512)] | None = None
    group: GroupBody | None = None
    neighbors: NeighborsBody | None = None
    highlight: bool = False
    explain: bool = False

    @property
    def queries(self) -> Sequence[str]:
        return (self.query,) if isinstance(self.query, str) else self.query

    def question(self) -> Question:
        """Raises BadFilter."""
        hybrid = self.ranking_options.hybrid_search
        return Question(
            queries=self.queries,
            k=self.max_num_results,
            wanted=None if self.filters is None else filters.parse(self.filters),
            dense=1.0 if hybrid is None else hybrid.embedding_weight,
            lexical=1.0 if hybrid is None else hybrid.text_weight,
            threshold=self.ranking_options.score_threshold,
            rerank=self._rerank(),
            expansion=self._expansion(),
            diversity=None if self.mmr is None else Diversity(self.mmr.balance, self.mmr.candidates),
            recency=self._recency(),
            group=None if self.group is None else self.group.size,
            neighbours=None if self.neighbors is None else Neighbours(self.neighbors.before, self.neighbors.after),
            highlight=self.highlight,
            fusion="blend" if hybrid is None else "ranks",
            tenant=self.tenant,
        )

    def _rerank(self) -> Rerank | None:
        rerank, asked = ranked_by(self.ranking_options.ranker), self.rerank
        if rerank is None or asked is None:
            return rerank
        return Rerank(rerank.model, asked.candidates, asked.timeout_s, wanted=True)

    def _expansion(self) -> Expansion | None:
        asked = self.expand or ExpandBody()
        if not (self.rewrite_query or asked.multi_query or asked.hyde):
            return None
        return Expansion(
            rewrite=self.rewrite_query,
            more=asked.multi_query,
            hyde=asked.hyde,
            model=asked.model,
            timeout_s=asked.timeout_s,
        )

    def _recency(self) -> Recency | None:
        asked = self.recency
        return None if asked is None else Recency(DAY_S * asked.half_life_days, asked.attribute, asked.weight)


@cache
def unsaid() -> Question:
    """One in which nothing is said of how it is searched for."""
    return SearchBody(query="-").question()


def results_view(asked: SearchBody, found: Results, recall: Mapping[str, Mapping[str, float]]) -> dict[str, object]:
    plan: dict[str, object] = {"recall_mode": found.recall_mode, "dense": [each.name for each in found.plans]}
    view: dict[str, object] = {
        "object": "vector_store.search_results.page",
        "search_query": list(found.queries or asked.queries),
        "data": [_result_view(each, asked) for each in found.results],
        "has_more": False,
        "next_page": None,
        "plan": plan,
    }
    if found.partition is not None:
        view["plan"] = {**plan, "partition": found.partition}
    if found.stages:
        view["stages"] = list(found.stages)
    if asked.explain:
        view["explain"] = {
            "generation": found.generation,
            "embedding": found.embedded,
            "dense": list(found.plans),
            "recall": recall,
        }
    return view


def _result_view(result: Result, asked: SearchBody) -> dict[str, object]:
    document = result.document
    view: dict[str, object] = {
        "file_id": document.source_id,
        "filename": document.filename,
        "score": round(result.score, 6),
        "attributes": dict(document.attributes),
        "content": [_text_view(each, asked) for each in (result, *result.more)],
        "citation": _citation(result),
    }
    return {**view, "explain": list(result.traces)} if asked.explain else view


def _text_view(result: Result, asked: SearchBody) -> dict[str, object]:
    view: dict[str, object] = {"type": "text", "text": result.passage.text}
    if asked.group is not None:
        view |= {"citation": _citation(result), "score": round(result.score, 6)}
    if asked.neighbors is not None:
        view["context"] = result.context
    if result.matched is not None:
        view["matched"] = result.matched
    if asked.highlight:
        view["highlights"] = list(result.highlights)
    return view


def _citation(result: Result) -> dict[str, object]:
    passage = result.passage
    return {
        "start": passage.start,
        "end": passage.end,
        "page": passage.page,
        "line": passage.line,
        "heading": list(passage.heading),
    }
