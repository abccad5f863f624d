"""What is asked of re-embeddings on the wire, and what is shown of them."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from pydantic import BaseModel, Field, model_validator
from sqlalchemy import Connection

from admin.api.vector_store_wire import ChunkingStrategy, chunking_view
from admin.rest.wire import TEXT, at, moment
from gateway.settings import Section
from retrieval import passage_store
from retrieval.collection_store import Collection
from retrieval.index.settings import EngineName, Quantization
from retrieval.reembedding import moves
from retrieval.reembedding.record import BESIDE, Asked, Gate, Mode, Reembedding, Relevant, State, Terms
from retrieval.spaces import Space

KEPT = 100  # files that are told

Name = Annotated[str, Field(min_length=1, max_length=200, pattern=TEXT)]


class RelevantBody(Section):
    """A file that answers, or with `start` and `end` a passage of it, in characters of its text. `grade`: how well."""

    id: Name
    grade: int = Field(default=1, ge=0, le=100)
    start: int | None = Field(default=None, ge=0, le=2**31 - 1)
    end: int | None = Field(default=None, ge=1, le=2**31 - 1)

    @model_validator(mode="after")
    def _span(self) -> "RelevantBody":
        if (self.start is None) != (self.end is None) or (self.start or 0) >= (self.end or 2**31):
            raise ValueError("start and end go together, the smaller one first")
        return self


class QuestionBody(Section):
    """As a line of what `penstock eval` reads."""

    query: str = Field(min_length=1, max_length=32_768)
    relevant: list[Name | RelevantBody] = Field(min_length=1, max_length=200)


class GateBody(Section):
    """Neither recall@k nor nDCG@10 may fall by more than `max_loss`. `dense` measures vectors alone, `hybrid` with the words."""

    queries: list[QuestionBody] = Field(min_length=1, max_length=2000)
    max_loss: float = Field(default=0.02, ge=0, le=1)
    k: int = Field(default=10, ge=1, le=50)
    mode: Mode = "dense"


class CanaryBody(Section):
    """Who reads the new version before the swap: keys by their ids, and a share of all keys, the same ones each time."""

    share: float = Field(default=0, ge=0, le=1)
    keys: list[Name] = Field(default=[], max_length=1000)


class ReembeddingBody(Section):
    """`key_id`: the key that pays, by default the one that made the collection. What is left out is as it was.

    `chunking_strategy`: as for files; all documents are cut anew in this way.
    """

    embedding_model: Name | None = None
    dimensions: int | None = Field(default=None, ge=1, le=65_536)
    engine: EngineName | None = None
    quantization: Quantization | None = None
    chunking_strategy: ChunkingStrategy | None = None
    key_id: Name | None = None
    gate: GateBody | None = None
    canary: CanaryBody | None = None
    promote: Literal["manual", "auto"] = "manual"
    keep_s: float = Field(default=7 * 86_400, ge=0, le=366 * 86_400)
    max_attempts: int = Field(default=5, ge=1, le=100)


class PromoteBody(Section):
    """`force`: whatever the gate says."""

    force: bool = False


class StopBody(Section):
    reason: str | None = Field(default=None, min_length=1, max_length=1000, pattern=TEXT)


class SpaceView(BaseModel):
    """`dimensions` is known with the first vector; `dimensions_asked`: what the model is asked for, if it is.

    `prompts`: how it is told questions from passages in this version, if it is. Versions of one `edition` have the same passages;
    `chunking_strategy` is how files are cut in it that do not say, if that was said when it was begun.
    """

    version: int
    embedding_model: str
    dimensions: int | None
    dimensions_asked: int | None
    engine: str | None
    quantization: str
    prompts: dict[str, str] | None
    edition: int
    chunking_strategy: dict[str, object] | None


class ProgressView(BaseModel):
    """Published passages of the new version, and those of them that have a vector of it. Where documents are cut anew: how many are."""

    passages: int
    embedded: int
    documents: int | None
    cut: int | None


class KeptView(BaseModel):
    """A file that is not cut anew but stays as it was, and why."""

    file_id: str
    reason: str


class WorseView(BaseModel):
    query: str
    before: float
    after: float


class GateView(BaseModel):
    """`before` and `after` are means over the questions; `worst`, the nDCG@10 of those that fell most."""

    questions: int
    max_loss: float
    mode: str
    verdict: Literal["pending", "passed", "failed"]
    reason: str | None
    before: dict[str, float] | None
    after: dict[str, float] | None
    worst: list[WorseView]


class CanaryView(BaseModel):
    share: float
    keys: list[str]


class ReembeddingView(BaseModel):
    """`reading` is the version that all but a canary's keys read; `behind`: the other one lacks vectors, and nobody reads it.

    `kept`: the first hundred such files, for as long as both versions are there.
    """

    id: str
    collection_id: str
    team_id: str | None
    org_id: str | None
    state: State
    reason: str | None
    before: SpaceView
    after: SpaceView
    reading: int
    behind: bool
    progress: ProgressView
    kept: list[KeptView]
    gate: GateView | None
    canary: CanaryView
    promote: Literal["manual", "auto"]
    keep_s: float
    key_id: str
    attempts: int
    created_at: datetime
    updated_at: datetime
    swapped_at: datetime | None
    ended_at: datetime | None


def terms(body: ReembeddingBody) -> Terms:
    return Terms(
        None if body.gate is None else _gate(body.gate), body.promote == "auto", body.keep_s, body.max_attempts
    )


def view(tx: Connection, collection: Collection, one: Reembedding) -> ReembeddingView:
    """Counts passages."""
    return ReembeddingView(
        id=one.id,
        collection_id=one.collection_id,
        team_id=collection.team_id,
        org_id=collection.org_id,
        state=one.state,
        reason=one.reason,
        before=_space(one.before),
        after=_space(one.after),
        reading=collection.version,
        behind=one.behind,
        progress=_progress(tx, one),
        kept=[KeptView(file_id=each.source_id, reason=each.note) for each in moves.kept(tx, one, KEPT)],
        gate=None if one.terms.gate is None else _gate_view(one.terms.gate, one),
        canary=CanaryView(share=one.canary_share, keys=list(one.canary_keys)),
        promote="auto" if one.terms.auto else "manual",
        keep_s=one.terms.keep_s,
        key_id=one.payer,
        attempts=one.attempts,
        created_at=at(one.created_at),
        updated_at=at(one.updated_at),
        swapped_at=moment(one.swapped_at),
        ended_at=moment(one.ended_at),
    )


def _progress(tx: Connection, one: Reembedding) -> ProgressView:
    documents, cut = moves.cut(tx, one) if one.apart and one.state in (*BESIDE, "failed") else (None, None)
    number = passage_store.number(tx, one.collection_id, one.after.edition)
    return ProgressView(passages=number, embedded=moves.done(tx, one), documents=documents, cut=cut)


def _gate(body: GateBody) -> Gate:
    asked = [Asked(each.query, [_relevant(one) for one in each.relevant]) for each in body.queries]
    return Gate(asked, body.max_loss, body.k, body.mode)


def _relevant(one: str | RelevantBody) -> Relevant:
    return Relevant(one) if isinstance(one, str) else Relevant(one.id, one.grade, one.start, one.end)


def _gate_view(gate: Gate, one: Reembedding) -> GateView:
    verdict = one.verdict
    if verdict is None:
        return GateView(
            questions=len(gate.queries),
            max_loss=gate.max_loss,
            mode=gate.mode,
            verdict="pending",
            reason=None,
            before=None,
            after=None,
            worst=[],
        )
    return GateView(
        questions=len(gate.queries),
        max_loss=gate.max_loss,
        mode=gate.mode,
        verdict="passed" if verdict.passed else "failed",
        reason=verdict.reason,
        before=dict(verdict.before),
        after=dict(verdict.after),
        worst=[WorseView(query=each.query, before=each.before, after=each.after) for each in verdict.worst],
    )


def _space(one: Space) -> SpaceView:
    return SpaceView(
        version=one.version,
        embedding_model=one.model,
        dimensions=one.dimensions,
        dimensions_asked=one.cut,
        engine=one.engine,
        quantization=one.quantization,
        prompts=None if one.prompts is None else msgspec.json.decode(one.prompts),
        edition=one.edition,
        chunking_strategy=None if one.chunking is None else chunking_view(one.chunking),
    )
