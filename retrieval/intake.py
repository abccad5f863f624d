"""How files come into a collection: whose each is, how it is cut, and that there is room for it."""

from collections.abc import Mapping, Sequence
from typing import final

import msgspec
from sqlalchemy import Connection

from retrieval import cut_store, document_store, job_store, quotas
from retrieval.access import Caller, require_held
from retrieval.asking import Wanted
from retrieval.chunking_strategy import Chunking, resolved
from retrieval.collection_store import Collection
from retrieval.document_store import Document, NewDocument
from retrieval.errors import BadRequest, RetrievalError
from retrieval.ports import Embedder, Source, Writer
from retrieval.quotas import Bounds
from retrieval.reembedding import store as reembeddings
from retrieval.reembedding.record import Reembedding
from retrieval.tenancy import of_document


@final
class Intake:
    """One per process."""

    def __init__(self, embedder: Embedder, writer: Writer | None, bounds: Bounds) -> None:
        self._embedder = embedder
        self._writer = writer
        self._bounds = bounds

    def attach(
        self,
        tx: Connection,
        caller: Caller,
        collection: Collection,
        files: Sequence[Wanted],
        sources: Mapping[str, Source],
        batch_id: str | None = None,
    ) -> Sequence[Document]:
        beside = None
        if files:
            quotas.require(tx, collection, self._bounds, 1, 0)
            beside = reembeddings.beside(tx, collection.id)
        made = []
        for number, each in enumerate(files):
            require_held(caller, each.labels)
            tenant = _tenant(collection, caller, each, None if batch_id is None else number)
            document_store.require_own(tx, caller, collection, each.file_id)
            if each.replaces is not None:
                document_store.get(tx, caller, collection, each.replaces)
            name = sources[each.file_id].filename
            chunking = self.cut(caller.key_id, collection.model, each.chunking or collection.chunking)
            new = NewDocument(
                each.file_id, name, each.attributes, each.labels, chunking, batch_id, each.replaces, tenant
            )
            document = document_store.attach(tx, collection, new)
            job_store.add(tx, collection.id, document.id, caller.key_id)
            if beside is not None and beside.unread.edition != collection.edition:
                wanted = self._apart(beside, each.chunking, chunking)
                cut_store.want(tx, document.id, beside.unread.edition, wanted)
            made.append(document)
        return made

    def cut(self, payer: str, model: str, asked: Chunking | None) -> Chunking:
        """As it is done for an embedding model. Raises BadRequest, Forbidden where nobody could say what is to be said before passages."""
        chunking = resolved(asked, self._embedder.window(model))
        teller, where = chunking.context_model, "chunking_strategy.context.model"
        if teller is None:
            return chunking
        teller = teller or (None if self._writer is None else self._writer.default())
        if teller is None or self._writer is None:
            raise BadRequest("There is no chat model to write contexts with: name one", param=where)
        try:
            self._writer.require(teller, payer)
        except RetrievalError as error:
            error.param = where
            raise
        return msgspec.structs.replace(chunking, context_model=teller)

    def _apart(self, beside: Reembedding, asked: Chunking | None, here: Chunking) -> Chunking:
        """How a new file is cut in the edition that is not read: in a new one as all are, in an old one as was asked for, and is `here`."""
        unread = beside.unread
        if beside.state != "swapped" and unread.chunking is not None:
            return unread.chunking
        there = resolved(asked or unread.chunking, self._embedder.window(unread.model))
        return there if asked is None else msgspec.structs.replace(there, context_model=here.context_model)


def _tenant(collection: Collection, caller: Caller, file: Wanted, number: int | None) -> str | None:
    """Whose the file is, which has that number in a batch. Raises TenantRequired, Forbidden."""
    try:
        return of_document(collection.tenancy, file.attributes, caller)
    except RetrievalError as error:
        error.message = f"{error.message} ({file.file_id})"
        error.param = error.param if number is None else f"files.{number}.{error.param}"
        raise
