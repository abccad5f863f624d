"""Vector stores on the wire: what clients send, read strictly, and what they are shown, in OpenAI's shapes.

Beside those stand a few fields of ours: `embedding_model`, `access`, `engine`, `quantization` and `tenancy` of a store, `access_labels`
of a file and what it `replaces`, and chunking strategies beside `auto` and `static`. `search_wire` has the searches.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, get_args

from msgspec.structs import replace
from pydantic import AfterValidator, Field, StrictBool, StrictFloat, StrictInt, model_validator

from admin.api.wire import Strict, seconds
from retrieval import filters
from retrieval.asking import Seen, Tenant, Wanted
from retrieval.batch_store import FileBatch
from retrieval.chunking_strategy import CHILD_TOKENS, Chunking, Kind, sized, with_children
from retrieval.collection_store import Change, Counts, NewCollection
from retrieval.document_store import Document, PutOff
from retrieval.index.settings import EngineName, Quantization
from retrieval.tenancy import PROMOTE_AT, Tenancy

MAX_FILES = 500
MAX_BATCH = 2000


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not hold a NUL character")
    text.encode()
    return text


Text = Annotated[str, AfterValidator(_storable)]
Name = Annotated[Text, Field(max_length=256)]
FileId = Annotated[Text, Field(min_length=1, max_length=200)]
Key = Annotated[Text, Field(min_length=1, max_length=64)]
Metadata = Annotated[dict[Key, Annotated[Text, Field(max_length=512)]], Field(max_length=16)]
Integer = Annotated[StrictInt, Field(ge=-filters.MAX_INTEGER, le=filters.MAX_INTEGER)]
Value = StrictBool | Integer | StrictFloat | Annotated[Text, Field(max_length=512)]
Attributes = Annotated[dict[Key, Value], Field(max_length=16)]
Labels = Annotated[tuple[Annotated[Text, Field(min_length=1, max_length=200)], ...], Field(max_length=64)]


class ExpiresAfter(Strict):
    anchor: Literal["last_active_at"]
    days: Annotated[int, Field(ge=1, le=365)]


class StaticSizes(Strict):
    max_chunk_size_tokens: int
    chunk_overlap_tokens: int


class Sizes(Strict):
    max_chunk_size_tokens: int
    chunk_overlap_tokens: int = 0


class Children(Strict):
    max_chunk_size_tokens: int = CHILD_TOKENS


class Context(Strict):
    """`model` None: the usual one for what searches want written."""

    model: Annotated[Text, Field(min_length=1, max_length=200)] | None = None


class ChunkingStrategy(Strict):
    """OpenAI's two types, and others of ours; `children` and `context` go with each of them."""

    type: Kind
    static: StaticSizes | None = None
    sentences: Sizes | None = None
    headings: Sizes | None = None
    code: Sizes | None = None
    semantic: Sizes | None = None
    children: Children | None = None
    context: Context | None = None

    @model_validator(mode="after")
    def _fits(self) -> "ChunkingStrategy":
        if self.type == "static" and self.static is None:
            raise ValueError("the type 'static' needs `static`")
        for kind in get_args(Kind):
            if kind not in ("auto", self.type) and getattr(self, kind) is not None:
                raise ValueError(f"`{kind}` belongs to the type '{kind}', and to no other")
        return self

    def asked(self) -> Chunking | None:
        """None: whatever is best. Raises BadRequest."""
        sizes: StaticSizes | Sizes | None = None if self.type == "auto" else getattr(self, self.type)
        if sizes is not None:
            asked = sized(self.type, sizes.max_chunk_size_tokens, sizes.chunk_overlap_tokens)
        elif self.type == "auto" and self.children is None and self.context is None:
            return None
        else:
            asked = Chunking(self.type, 0, 0)
        if self.children is not None:
            asked = with_children(asked, self.children.max_chunk_size_tokens)
        if self.context is not None:
            asked = replace(asked, context_model=self.context.model or "")
        return asked


class TenancyBody(Strict):
    """`attribute` names the tenant of each file; one of `promote_at` passages gets a graph of its own."""

    attribute: Key
    promote_at: Annotated[StrictInt, Field(ge=1000, le=10**9)] = PROMOTE_AT

    def tenancy(self) -> Tenancy:
        return Tenancy(self.attribute, self.promote_at)


class StoreBody(Strict):
    name: Name | None = None
    description: Annotated[Text, Field(max_length=1024)] | None = None
    file_ids: Annotated[tuple[FileId, ...], Field(max_length=MAX_FILES)] = ()
    expires_after: ExpiresAfter | None = None
    chunking_strategy: ChunkingStrategy | None = None
    metadata: Metadata | None = None
    embedding_model: Annotated[Text, Field(min_length=1, max_length=200)] | None = None
    access: Literal["open", "labelled"] = "open"
    engine: EngineName | None = None
    quantization: Quantization = "none"
    tenancy: TenancyBody | None = None

    def new(self) -> NewCollection:
        return NewCollection(
            name=self.name or "",
            model=self.embedding_model or "",
            description=self.description,
            metadata=self.metadata or {},
            expires_days=None if self.expires_after is None else self.expires_after.days,
            labelled=self.access == "labelled",
            engine=self.engine,
            quantization=self.quantization,
            tenancy=None if self.tenancy is None else self.tenancy.tenancy(),
        )

    def files(self) -> Sequence[Wanted]:
        chunking = None if self.chunking_strategy is None else self.chunking_strategy.asked()
        return [Wanted(id_, chunking=chunking) for id_ in self.file_ids]


class StoreChangeBody(Strict):
    """What is left out stays; null takes a value away."""

    name: Name | None = None
    description: Annotated[Text, Field(max_length=1024)] | None = None
    expires_after: ExpiresAfter | None = None
    metadata: Metadata | None = None
    tenancy: TenancyBody | None = None

    def change(self) -> Change:
        values = {
            "name": self.name or "",
            "description": self.description,
            "metadata": self.metadata or {},
            "expires_days": None if self.expires_after is None else self.expires_after.days,
            "tenancy": None if self.tenancy is None else self.tenancy.tenancy(),
        }
        given = {"expires_days" if name == "expires_after" else name for name in self.model_fields_set}
        return Change(**{name: value for name, value in values.items() if name in given})  # type: ignore[arg-type]


class FileBody(Strict):
    file_id: FileId
    attributes: Attributes | None = None
    chunking_strategy: ChunkingStrategy | None = None
    access_labels: Labels = ()
    replaces: FileId | None = None

    def wanted(self) -> Wanted:
        chunking = None if self.chunking_strategy is None else self.chunking_strategy.asked()
        return Wanted(self.file_id, self.attributes or {}, self.access_labels, chunking, self.replaces)


class FileChangeBody(Strict):
    attributes: Attributes | None = None
    access_labels: Labels | None = None


class BatchBody(Strict):
    """Either ids, which share what is said here, or files with what is said of each."""

    file_ids: Annotated[tuple[FileId, ...], Field(min_length=1, max_length=MAX_BATCH)] | None = None
    files: Annotated[tuple[FileBody, ...], Field(min_length=1, max_length=MAX_BATCH)] | None = None
    attributes: Attributes | None = None
    chunking_strategy: ChunkingStrategy | None = None
    access_labels: Labels = ()

    @model_validator(mode="after")
    def _one_of_both(self) -> "BatchBody":
        if (self.file_ids is None) == (self.files is None):
            raise ValueError("give either file_ids or files")
        if self.files is not None and (self.attributes or self.chunking_strategy or self.access_labels):
            raise ValueError("with files, attributes, chunking_strategy and access_labels stand in each of them")
        return self

    def wanted(self) -> Sequence[Wanted]:
        if self.files is not None:
            return [each.wanted() for each in self.files]
        chunking = None if self.chunking_strategy is None else self.chunking_strategy.asked()
        return [Wanted(id_, self.attributes or {}, self.access_labels, chunking) for id_ in self.file_ids or ()]


def store_view(seen: Seen) -> dict[str, object]:
    one, counts = seen.collection, seen.counts
    status = "expired" if seen.expired else "in_progress" if counts.in_progress else "completed"
    return {
        "id": one.id,
        "object": "vector_store",
        "created_at": seconds(one.created_at),
        "name": one.name,
        "description": one.description,
        "usage_bytes": counts.usage_bytes,
        "file_counts": counts_view(counts),
        "status": status,
        "expires_after": None if one.expires_days is None else {"anchor": "last_active_at", "days": one.expires_days},
        "expires_at": seconds(one.expires_at),
        "last_active_at": seconds(one.last_active_at),
        "metadata": dict(one.metadata),
        "embedding_model": one.model,
        "access": "labelled" if one.labelled else "open",
        "tenancy": one.tenancy,
    }


def tenant_view(tenant: Tenant) -> dict[str, object]:
    """`id` is the tenant itself, as SDKs walk through lists by ids."""
    one = tenant.partition
    return {
        "id": one.tenant,
        "object": "vector_store.tenant",
        "files": one.documents,
        "passages": one.passages,
        "usage_bytes": one.usage_bytes,
        "promoted": tenant.promoted,
    }


def counts_view(counts: Counts) -> dict[str, int]:
    return {
        "in_progress": counts.in_progress,
        "completed": counts.completed,
        "failed": counts.failed,
        "cancelled": counts.cancelled,
        "total": counts.total,
    }


def file_view(document: Document) -> dict[str, object]:
    """A document that was read and has no text says so: it is `empty`. One that was put off says why: it is `waiting`."""
    error = None
    if document.error_code is not None:
        error = {"code": document.error_code, "message": document.error_message}
    shown: dict[str, object] = {
        "id": document.source_id,
        "object": "vector_store.file",
        "created_at": seconds(document.created_at),
        "vector_store_id": document.collection_id,
        "status": document.status,
        "last_error": error,
        "usage_bytes": document.usage_bytes,
        "attributes": dict(document.attributes),
        "chunking_strategy": chunking_view(document.chunking),
    }
    if isinstance(document, PutOff):
        wait = document.waiting
        shown["waiting"] = {"reason": wait.reason, "attempts": wait.attempts, "retry_at": seconds(wait.retry_at)}
    return {**shown, "empty": True} if document.empty else shown


def chunking_view(chunking: Chunking) -> dict[str, object]:
    """As it was done: of `auto` its sizes, as OpenAI tells them."""
    kind = "static" if chunking.type == "auto" else chunking.type
    sizes = {"max_chunk_size_tokens": chunking.max_tokens, "chunk_overlap_tokens": chunking.overlap_tokens}
    view: dict[str, object] = {"type": kind, kind: sizes}
    if chunking.child_tokens is not None:
        view["children"] = {"max_chunk_size_tokens": chunking.child_tokens}
    if chunking.context_model is not None:
        view["context"] = {"model": chunking.context_model}
    return view


def batch_view(batch: FileBatch) -> dict[str, object]:
    return {
        "id": batch.id,
        "object": "vector_store.files_batch",
        "created_at": seconds(batch.created_at),
        "vector_store_id": batch.collection_id,
        "status": batch.status,
        "file_counts": counts_view(batch.counts),
    }
