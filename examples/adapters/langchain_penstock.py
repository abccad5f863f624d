"""LangChain's vector store on a Penstock collection. Each document is a file of the collection, known by its id in an attribute."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import openai
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from pydantic import ConfigDict

ID = "document_id"
AT_ONCE = 2000  # files of one batch


class PenstockVectorStore(VectorStore):
    """`collection` is the id or the name of a vector store; one that is not there is made. The server embeds, with its own model."""

    def __init__(
        self,
        collection: str,
        *,
        client: openai.OpenAI | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
    ) -> None:
        self._client = client or openai.OpenAI(base_url=base_url, api_key=api_key)
        self.id = self._found(collection)

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None = None,  # noqa: ARG003 — the server embeds
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        collection: str = "langchain",
        **options: Any,
    ) -> PenstockVectorStore:
        store = cls(collection, **options)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **_: Any,
    ) -> list[str]:
        """Returns once they can be found. A document whose id is there already takes that one's place."""
        every = list(texts)
        given = list(ids or [None] * len(every))
        names = [one or str(uuid.uuid4()) for one in given]
        metadata = metadatas or [{}] * len(every)
        wanted = {name: (text, about) for name, text, about in zip(names, every, metadata, strict=True)}
        known = [name for name, one in zip(names, given, strict=True) if one is not None]
        before = [file for name in dict.fromkeys(known) for file in self._files(name)]
        files = [self._file(name, text, about) for name, (text, about) in wanted.items()]
        for start in range(0, len(files), AT_ONCE):
            batch = self._client.vector_stores.file_batches.create_and_poll(
                self.id, files=files[start : start + AT_ONCE]
            )
            if batch.file_counts.failed:
                raise ValueError(f"{batch.file_counts.failed} of {len(files)} documents could not be read")
        self._remove(before)
        return names

    def add_documents(self, documents: list[Document], **options: Any) -> list[str]:
        ids = options.pop("ids", None) or [one.id for one in documents]
        texts, metadata = [one.page_content for one in documents], [one.metadata for one in documents]
        return self.add_texts(texts, metadata, ids=ids, **options)

    def delete(self, ids: list[str] | None = None, **_: Any) -> bool | None:
        """None: all of them."""
        if ids is None:
            self._remove([file.id for file in self._client.vector_stores.files.list(self.id, limit=100)])
        else:
            self._remove([file for name in dict.fromkeys(ids) for file in self._files(name)])
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Those that are there."""
        return [found for name in dict.fromkeys(ids) for found in self._whole(name)]

    def similarity_search(self, query: str, k: int = 4, **options: Any) -> list[Document]:
        """`filter` is OpenAI's grammar; `ranking_options` as of a vector store's search."""
        return [document for document, _ in self.similarity_search_with_score(query, k, **options)]

    def similarity_search_with_score(
        self,
        query: str,
        k: int = 4,
        filter: dict[str, Any] | None = None,  # noqa: A002 — LangChain's name
        ranking_options: dict[str, Any] | None = None,
        **_: Any,
    ) -> list[tuple[Document, float]]:
        """Scores are between 0 and 1, the best first."""
        asked: dict[str, Any] = {"query": query or " ", "max_num_results": k}
        asked |= {} if filter is None else {"filters": filter}
        asked |= {} if ranking_options is None else {"ranking_options": ranking_options}
        return [
            (_document("".join(part.text for part in one.content), dict(one.attributes or {})), one.score)
            for one in self._client.vector_stores.search(self.id, **asked).data
        ]

    def _select_relevance_score_fn(self) -> Any:
        return lambda score: score

    def _found(self, collection: str) -> str:
        for store in self._client.vector_stores.list(limit=100, order="asc"):
            if collection in (store.id, store.name):
                return store.id
        return self._client.vector_stores.create(name=collection).id

    def _file(self, name: str, text: str, metadata: dict[str, Any]) -> dict[str, Any]:
        odd = [key for key, value in metadata.items() if not isinstance(value, (str, int, float, bool))]
        if odd or len(metadata) > 15 or ID in metadata:
            raise ValueError(
                f"Metadata are up to 15 texts, numbers and booleans, and none called {ID}: {odd or len(metadata)}"
            )
        made = self._client.files.create(file=("document.txt", text.encode()), purpose="assistants")
        return {"file_id": made.id, "attributes": {**metadata, ID: name}}

    def _files(self, name: str) -> list[str]:
        """The file of a document, if it is there."""
        return list({one.file_id: None for one in self._search(name)})

    def _search(self, name: str) -> list[Any]:
        only = {"type": "eq", "key": ID, "value": name}
        return list(self._client.vector_stores.search(self.id, query="document", filters=only, max_num_results=1).data)

    def _whole(self, name: str) -> list[Document]:
        found = self._search(name)
        if not found:
            return []
        parts = self._client.vector_stores.files.content(found[0].file_id, vector_store_id=self.id)
        return [_document("".join(part.text or "" for part in parts), dict(found[0].attributes or {}))]

    def _remove(self, files: Sequence[str]) -> None:
        for file in files:
            self._client.files.delete(file)  # and with it what any collection has of it


class PenstockRetriever(BaseRetriever):
    """`k` documents of a store that pass its filter; a call may name another `k`."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    store: PenstockVectorStore
    k: int = 4
    filter: dict[str, Any] | None = None

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002 — LangChain's name
        k: int | None = None,
    ) -> list[Document]:
        return self.store.similarity_search(query, k or self.k, filter=self.filter)


def _document(text: str, attributes: dict[str, Any]) -> Document:
    name = attributes.pop(ID, None)
    return Document(page_content=text, metadata=attributes, id=name)
