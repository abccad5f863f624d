"""The adapters under examples/adapters in the environments of their frameworks: LangChain's own suites, and LlamaIndex's index."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.server import ROOT, Server

CLIENTS = ROOT / ".tools" / "clients" / "bin"
ADAPTERS = ROOT / "examples" / "adapters"

pytestmark = [
    pytest.mark.integrations,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not CLIENTS.exists(), reason="the clients are not installed: make test-integrations"),
]

# What the authors of integrations run: tests of a store with their asynchronous twins, and of a retriever.
SUITE = """
import uuid
import openai, pytest
from langchain_penstock import PenstockRetriever, PenstockVectorStore
from langchain_tests.integration_tests import RetrieversIntegrationTests, VectorStoreIntegrationTests


def client():
    return openai.OpenAI(max_retries=0, timeout=60)


class TestStore(VectorStoreIntegrationTests):
    @pytest.fixture()
    def vectorstore(self):
        store = PenstockVectorStore(f"suite-{uuid.uuid4()}", client=client())
        yield store
        store.delete()


def filled():
    store = PenstockVectorStore(f"suite-{uuid.uuid4()}", client=client())
    store.add_texts([f"the number {n}" for n in range(5)], ids=[str(n) for n in range(5)])
    return store


class TestRetriever(RetrieversIntegrationTests):
    retriever_constructor = PenstockRetriever
    retriever_query_example = "number"

    @property
    def retriever_constructor_params(self):
        return {"store": filled()}


class TestFilters:
    def test_filters_and_scores(self):
        store = filled()
        store.add_texts(["a cat", "a dog"], metadatas=[{"kind": "cat"}, {"kind": "dog"}])
        only = {"type": "eq", "key": "kind", "value": "dog"}
        assert [one.page_content for one in store.similarity_search("cat", filter=only)] == ["a dog"]
        (best, score), *_ = store.similarity_search_with_relevance_scores("a cat", k=2)
        assert best.page_content == "a cat" and 0 < score <= 1
        assert len(store.as_retriever(search_kwargs={"k": 3}).invoke("number")) == 3
        with pytest.raises(ValueError):
            store.add_texts(["x"], metadatas=[{"nested": {}}])
"""

INDEX = """
import json
import openai
from llama_index.core import Document, MockEmbedding, VectorStoreIndex
from llama_index.core.vector_stores import ExactMatchFilter, MetadataFilters
from llamaindex_penstock import PenstockVectorStore

store = PenstockVectorStore("llama", client=openai.OpenAI(max_retries=0, timeout=60))
index = VectorStoreIndex.from_vector_store(store, embed_model=MockEmbedding(embed_dim=8))
documents = {"cats": "Cats sleep for most of the day.", "gates": "The penstock gate closes in four seconds."}
for name, text in documents.items():
    index.insert(Document(text=text, id_=name, metadata={"topic": name}))
found = index.as_retriever(similarity_top_k=1).retrieve("How fast does the gate close?")
told = [[one.text, one.metadata, one.node.ref_doc_id, 0 < one.score <= 1] for one in found]
only = MetadataFilters(filters=[ExactMatchFilter(key="topic", value="cats")])
told.append([one.metadata["topic"] for one in index.as_retriever(filters=only).retrieve("gate")])
index.delete_ref_doc("gates")
told.append([one.metadata["topic"] for one in index.as_retriever(similarity_top_k=5).retrieve("gate")])
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    local = {"id": "minilm", "provider": "embedded", "model": "all-minilm-l6-v2"}
    config = {"models": [{"name": "text-embedding-minilm", "deployments": [local]}]}
    server = Server(config, tmp_path_factory.mktemp("adapters")).start()
    yield server
    server.stop()


def run(server: Server, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environ = {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": server.new_key(), "PYTHONPATH": str(ADAPTERS)}
    environ |= {"PATH": os.defpath, "HOME": str(folder), "NO_PROXY": "*"}
    command = [str(CLIENTS / "python"), *arguments]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=380, check=False)


def test_langchains_own_suite_passes(served: Server, tmp_path: Path) -> None:
    """Every test that LangChain has for vector stores, synchronous and not, and filters, which it has none for."""
    (tmp_path / "test_suite.py").write_text(SUITE)
    done = run(
        served, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--asyncio-mode=auto", "test_suite.py", folder=tmp_path
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert int(done.stdout.rpartition(" passed")[0].split()[-1]) > 20, done.stdout


def test_an_index_of_llamaindex_stands_on_a_collection(served: Server, tmp_path: Path) -> None:
    """Nodes go in, are found by words and filters, and go out with their document."""
    (tmp_path / "index.py").write_text(INDEX)
    done = run(served, "index.py", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    first, cats, left = json.loads(done.stdout.splitlines()[-1])
    assert first == ["The penstock gate closes in four seconds.", {"topic": "gates"}, "gates", True]
    assert cats == ["cats"]
    assert left == ["cats"]
