"""LlamaIndex's vector store on a Penstock collection. Each node is a file of the collection; the server embeds and searches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import openai
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode, MetadataMode, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryResult,
)

NODE, DOCUMENT = "node_id", "ref_doc_id"
_OPERATORS = {
    FilterOperator.EQ: "eq",
    FilterOperator.NE: "ne",
    FilterOperator.GT: "gt",
    FilterOperator.GTE: "gte",
    FilterOperator.LT: "lt",
    FilterOperator.LTE: "lte",
    FilterOperator.IN: "in",
    FilterOperator.NIN: "nin",
}
_CONDITIONS = {FilterCondition.AND: "and", FilterCondition.OR: "or"}


class PenstockVectorStore(BasePydanticVectorStore):
    """`collection` is the id or the name of a vector store; one that is not there is made."""

    stores_text: bool = True
    is_embedding_query: bool = False  # it is asked in words
    collection: str

    _client: openai.OpenAI = PrivateAttr()
    _id: str = PrivateAttr()

    def __init__(
        self,
        collection: str,
        client: openai.OpenAI | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
    ) -> None:
        super().__init__(collection=collection)
        self._client = client or openai.OpenAI(base_url=base_url, api_key=api_key)
        stores = self._client.vector_stores.list(limit=100, order="asc")
        found = next((one.id for one in stores if collection in (one.id, one.name)), None)
        self._id = found or self._client.vector_stores.create(name=collection).id

    @property
    def client(self) -> openai.OpenAI:
        return self._client

    @classmethod
    def class_name(cls) -> str:
        return "PenstockVectorStore"

    def add(self, nodes: Sequence[BaseNode], **_: Any) -> list[str]:
        """Returns once they can be found."""
        files: Any = [self._file(node) for node in nodes]
        if files:
            batch = self._client.vector_stores.file_batches.create_and_poll(self._id, files=files)
            if batch.file_counts.failed:
                raise ValueError(f"{batch.file_counts.failed} of {len(files)} nodes could not be read")
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str, **_: Any) -> None:
        """All nodes of a document."""
        self._remove({"type": "eq", "key": DOCUMENT, "value": ref_doc_id})

    def delete_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **_: Any) -> None:
        if node_ids:
            self._remove({"type": "in", "key": NODE, "value": node_ids})
        elif filters is not None:
            self._remove(_filters(filters))

    def query(self, query: VectorStoreQuery, **_: Any) -> VectorStoreQueryResult:
        parts = [] if query.filters is None else [_filters(query.filters)]
        parts += [{"type": "in", "key": DOCUMENT, "value": query.doc_ids}] if query.doc_ids else []
        parts += [{"type": "in", "key": NODE, "value": query.node_ids}] if query.node_ids else []
        asked: dict[str, Any] = {"query": query.query_str or "", "max_num_results": min(50, query.similarity_top_k)}
        if parts:
            asked["filters"] = parts[0] if len(parts) == 1 else {"type": "and", "filters": parts}
        found = self._client.vector_stores.search(self._id, **asked).data
        nodes = [_node("".join(part.text for part in one.content), dict(one.attributes or {})) for one in found]
        return VectorStoreQueryResult(
            nodes=nodes, similarities=[one.score for one in found], ids=[node.node_id for node in nodes]
        )

    def _file(self, node: BaseNode) -> dict[str, Any]:
        text = node.get_content(metadata_mode=MetadataMode.NONE)
        plain = {key: value for key, value in node.metadata.items() if isinstance(value, (str, int, float, bool))}
        if len(plain) != len(node.metadata) or len(plain) > 14 or {NODE, DOCUMENT} & set(plain):
            raise ValueError("Metadata of a node are up to 14 texts, numbers and booleans")
        made = self._client.files.create(file=("node.txt", text.encode()), purpose="assistants")
        attributes = {**plain, NODE: node.node_id, **({DOCUMENT: node.ref_doc_id} if node.ref_doc_id else {})}
        return {"file_id": made.id, "attributes": attributes}

    def _remove(self, which: dict[str, Any]) -> None:
        asked: Any = {"query": "node", "filters": which, "max_num_results": 50}
        while found := {one.file_id for one in self._client.vector_stores.search(self._id, **asked).data}:
            for file in found:
                self._client.files.delete(file)  # and with it what any collection has of it


def _node(text: str, attributes: dict[str, Any]) -> TextNode:
    id_, document = attributes.pop(NODE, ""), attributes.pop(DOCUMENT, None)
    node = TextNode(id_=str(id_), text=text, metadata=attributes)
    if document is not None:
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=str(document))
    return node


def _filters(given: MetadataFilters) -> dict[str, Any]:
    """In OpenAI's grammar. Raises ValueError for an operator that has no exact answer."""
    parts = [_filters(one) if isinstance(one, MetadataFilters) else _filter(one) for one in given.filters]
    if given.condition == FilterCondition.NOT:
        return {"type": "not", "filter": {"type": "and", "filters": parts}}
    kind = _CONDITIONS[given.condition or FilterCondition.AND]
    return parts[0] if len(parts) == 1 else {"type": kind, "filters": parts}


def _filter(one: MetadataFilter) -> dict[str, Any]:
    if one.operator not in _OPERATORS:
        raise ValueError(f"A collection has no filter like '{one.operator.value}'")
    return {"type": _OPERATORS[one.operator], "key": one.key, "value": one.value}
