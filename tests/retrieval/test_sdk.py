"""The unmodified `openai` SDK against the real process, with the embedding model that is built in: a test for each of its methods."""

import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from openai.types import VectorStore

from tests.fixtures import documents
from tests.fixtures.server import Server
from tests.fixtures.upstream import Upstream
from tests.upstream.behaviour import Behaviour

TEXTS = {
    "cats.txt": "Cats sleep for most of the day. A cat purrs when it is content.",
    "turbines.txt": "A penstock feeds water to the turbine of a hydroelectric power station.",
    "bread.md": "# Baking\n\n## Sourdough\n\nSourdough bread rises with wild yeast, and takes a day to ferment.",
}


@pytest.fixture(scope="module")
def server(documents_server: Server) -> Server:
    return documents_server


def client_of(server: Server, key: str) -> openai.OpenAI:
    return openai.OpenAI(api_key=key, base_url=server.base_url, max_retries=0, timeout=60)


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with client_of(server, server.new_key()) as client:
        yield client


@pytest.fixture(scope="module")
def stranger(server: Server) -> Iterator[openai.OpenAI]:
    with client_of(server, server.new_key()) as client:
        yield client


def upload(client: openai.OpenAI, name: str, text: str | bytes) -> str:
    return client.files.create(file=(name, text if isinstance(text, bytes) else text.encode()), purpose="assistants").id


@pytest.fixture(scope="module")
def store(client: openai.OpenAI) -> VectorStore:
    """With three files in it, all of them read."""
    made = client.vector_stores.create(name="things")
    ids = [upload(client, name, text) for name, text in TEXTS.items()]
    batch = client.vector_stores.file_batches.create_and_poll(made.id, file_ids=ids)
    assert batch.status == "completed", batch
    assert (batch.file_counts.completed, batch.file_counts.total) == (3, 3)
    return made


def test_a_store_is_created_changed_listed_and_deleted(client: openai.OpenAI) -> None:
    made = client.vector_stores.create(
        name="a", description="d", metadata={"k": "v"}, expires_after={"anchor": "last_active_at", "days": 7}
    )
    assert (made.object, made.name, made.status, made.metadata) == ("vector_store", "a", "completed", {"k": "v"})
    assert made.expires_after is not None
    assert made.expires_after.days == 7
    assert made.expires_at == made.created_at + 7 * 86_400
    assert made.file_counts.total == made.usage_bytes == 0
    assert client.vector_stores.retrieve(made.id) == made
    changed = client.vector_stores.update(made.id, name="b", expires_after=None)
    assert (changed.name, changed.expires_at, changed.metadata) == ("b", None, {"k": "v"})
    others = [client.vector_stores.create().id for _ in range(3)]
    listed = [each.id for each in client.vector_stores.list(limit=2)]
    assert [id_ for id_ in listed if id_ in {made.id, *others}] == [*others[::-1], made.id]
    deleted = client.vector_stores.delete(made.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (made.id, True, "vector_store.deleted")
    with pytest.raises(openai.NotFoundError, match=made.id):
        client.vector_stores.retrieve(made.id)


def test_a_store_begins_with_files(client: openai.OpenAI) -> None:
    file_id = upload(client, "a.txt", "one two three")
    made = client.vector_stores.create(name="full", file_ids=[file_id])
    assert made.file_counts.total == 1
    assert client.vector_stores.files.poll(file_id, vector_store_id=made.id).status == "completed"
    found = client.vector_stores.retrieve(made.id)
    assert (found.status, found.file_counts.completed) == ("completed", 1)
    assert found.usage_bytes > 0


@pytest.mark.parametrize(
    ("query", "filename"),
    [
        ("What do felines do all day?", "cats.txt"),
        ("electricity from rivers", "turbines.txt"),
        ("how long does dough take", "bread.md"),
    ],
)
def test_what_is_meant_is_found(client: openai.OpenAI, store: VectorStore, query: str, filename: str) -> None:
    """Also in other words than those of the text."""
    found = client.vector_stores.search(store.id, query=query, max_num_results=3)
    assert found.data[0].filename == filename
    assert [result.score for result in found.data] == sorted((result.score for result in found.data), reverse=True)
    assert 0 < found.data[0].score <= 1
    assert found.data[0].content[0].type == "text"
    assert found.data[0].content[0].text in TEXTS[filename]


def test_a_result_says_where_it_stands(client: openai.OpenAI, store: VectorStore) -> None:
    """The characters of its citation are its text, and headings lead to it."""
    (result,) = client.vector_stores.search(store.id, query="wild yeast", max_num_results=1).data
    assert result.model_extra is not None
    citation = result.model_extra["citation"]
    whole = client.vector_stores.files.content(result.file_id, vector_store_id=store.id).data[0].text
    assert whole == TEXTS["bread.md"]
    assert whole[citation["start"] : citation["end"]] == result.content[0].text
    assert citation["line"] == 1


def test_weights_decide_between_meaning_and_words(client: openai.OpenAI, store: VectorStore) -> None:
    """Of words alone, only what has them is found; of meaning alone, the score is the cosine."""

    def search(meaning: float, words: float) -> list[tuple[str, float]]:
        page = client.vector_stores.search(
            store.id,
            query="hydroelectric",
            ranking_options={"hybrid_search": {"embedding_weight": meaning, "text_weight": words}},  # type: ignore[arg-type]
        )
        return [(result.filename, result.score) for result in page.data]

    assert search(0, 1) == [("turbines.txt", 1.0)]
    meant = search(1, 0)
    assert meant[0][0] == "turbines.txt"
    assert len(meant) == 3
    assert 0.2 < meant[0][1] < 0.9
    assert search(1, 1)[0] == ("turbines.txt", 1.0)
    with pytest.raises(openai.BadRequestError, match="weight"):
        search(0, 0)


def test_a_threshold_cuts(client: openai.OpenAI, store: VectorStore) -> None:
    page = client.vector_stores.search(store.id, query="cats purr", ranking_options={"score_threshold": 0.6})
    assert [result.filename for result in page.data] == ["cats.txt"]


def test_several_queries_are_one_search(client: openai.OpenAI, store: VectorStore) -> None:
    page = client.vector_stores.search(store.id, query=["purring", "turbine"], max_num_results=2)
    assert {result.filename for result in page.data} == {"cats.txt", "turbines.txt"}


def test_a_search_explains_itself(client: openai.OpenAI, store: VectorStore) -> None:
    page = client.vector_stores.search(store.id, query="cat", extra_body={"explain": True})
    assert page.model_extra is not None
    assert page.model_extra["plan"] == {"recall_mode": "exact", "dense": ["all"]}
    assert page.model_extra["explain"]["recall"] == {}, "nothing was estimated"
    assert page.model_extra["explain"]["dense"] == [{"name": "all", "rows": 3, "matching": 3, "fetch": 0}]
    assert page.data[0].model_extra is not None
    traces = {trace["name"]: trace for trace in page.data[0].model_extra["explain"]}
    assert traces["dense"]["rank"] == traces["lexical"]["rank"] == 1


def test_attributes_are_filtered_by_and_changed(client: openai.OpenAI) -> None:
    made = client.vector_stores.create(name="attributes")
    last = ""
    for year in (2023, 2024, 2025):
        last = upload(client, f"{year}.txt", f"report of the year {year}")
        done = client.vector_stores.files.create_and_poll(
            last, vector_store_id=made.id, attributes={"year": year, "draft": year == 2025, "lang": "en"}
        )
        assert done.attributes == {"year": year, "draft": year == 2025, "lang": "en"}

    def search(filters: object) -> set[str]:
        page = client.vector_stores.search(made.id, query="report", filters=filters)  # type: ignore[arg-type]
        return {result.filename for result in page.data}

    assert search({"type": "gte", "key": "year", "value": 2024}) == {"2024.txt", "2025.txt"}
    both = [{"type": "gte", "key": "year", "value": 2024}, {"type": "eq", "key": "draft", "value": False}]
    assert search({"type": "and", "filters": both}) == {"2024.txt"}
    assert search({"type": "in", "key": "year", "value": [2023, 2025]}) == {"2023.txt", "2025.txt"}
    assert search({"type": "not", "filter": {"type": "exists", "key": "lang"}}) == set()
    client.vector_stores.files.update(last, vector_store_id=made.id, attributes={"year": 1999})
    assert search({"type": "lt", "key": "year", "value": 2000}) == {"2025.txt"}
    assert search({"type": "exists", "key": "draft"}) == {"2023.txt", "2024.txt"}
    with pytest.raises(openai.BadRequestError) as refused:
        search({"type": "and", "filters": [{"type": "near", "key": "year", "value": 1}]})
    assert (refused.value.code, refused.value.param) == ("invalid_filter", "filters.filters.0.type")


def test_files_are_listed_retrieved_and_removed(client: openai.OpenAI) -> None:
    made = client.vector_stores.create(name="files")
    ids = [upload(client, f"{n}.txt", f"text number {n}") for n in range(3)]
    for id_ in ids:
        file = client.vector_stores.files.create(made.id, file_id=id_)
        assert (file.object, file.vector_store_id) == ("vector_store.file", made.id)
    assert [client.vector_stores.files.poll(id_, vector_store_id=made.id).status for id_ in ids] == ["completed"] * 3
    listed = client.vector_stores.files.list(made.id, limit=2, order="asc")
    assert [file.id for file in listed] == ids
    assert list(client.vector_stores.files.list(made.id, filter="failed")) == []
    gone = client.vector_stores.files.delete(ids[0], vector_store_id=made.id)
    assert (gone.id, gone.deleted) == (ids[0], True)
    assert "0.txt" not in {r.filename for r in client.vector_stores.search(made.id, query="text number 0").data}
    assert client.files.retrieve(ids[0]).id == ids[0], "the file itself stays"
    client.files.delete(ids[1])
    assert [file.id for file in client.vector_stores.files.list(made.id)] == [ids[2]]
    assert {r.filename for r in client.vector_stores.search(made.id, query="text number").data} == {"2.txt"}
    with pytest.raises(openai.NotFoundError):
        client.vector_stores.files.retrieve(ids[0], vector_store_id=made.id)


def test_chunks_are_as_long_as_was_asked_for(client: openai.OpenAI) -> None:
    """Fixed sizes as given; without any, such that the model sees every word."""
    made = client.vector_stores.create(name="chunks")
    id_ = upload(client, "long.txt", " ".join(f"word{n}" for n in range(600)))
    sizes = {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 20}
    file = client.vector_stores.files.create_and_poll(
        id_,
        vector_store_id=made.id,
        chunking_strategy={"type": "static", "static": sizes},  # type: ignore[arg-type]
    )
    assert file.chunking_strategy is not None
    assert file.chunking_strategy.model_dump() == {"type": "static", "static": sizes}
    small = client.vector_stores.search(made.id, query="word599", max_num_results=50).data
    assert len(small) >= 7
    assert max(len(result.content[0].text.split()) for result in small) <= 100
    again = client.vector_stores.files.create_and_poll(id_, vector_store_id=made.id)
    assert again.chunking_strategy is not None
    assert again.chunking_strategy.model_dump()["static"]["max_chunk_size_tokens"] == 224
    assert len(client.vector_stores.search(made.id, query="word599", max_num_results=50).data) < len(small)
    with pytest.raises(openai.BadRequestError, match="half"):
        client.vector_stores.files.create(
            made.id,
            file_id=id_,
            chunking_strategy={"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 51}},
        )


def test_a_file_that_cannot_be_read_says_why_and_harms_no_other(client: openai.OpenAI) -> None:
    """Nothing is called complete that is not: an empty file says that it is."""
    made = client.vector_stores.create(name="mixed")
    good, broken = upload(client, "good.txt", "good text"), upload(client, "broken.bin", b"\x00\xff\xfe" * 50)
    empty = upload(client, "empty.txt", "")
    batch = client.vector_stores.file_batches.create_and_poll(made.id, file_ids=[good, broken, empty])
    assert (batch.status, batch.file_counts.completed, batch.file_counts.failed) == ("completed", 2, 1)
    file = client.vector_stores.files.retrieve(broken, vector_store_id=made.id)
    assert file.status == "failed"
    assert file.last_error is not None
    assert file.last_error.code == "unsupported_file"
    shown = client.vector_stores.files.retrieve(empty, vector_store_id=made.id)
    assert shown.status == "completed"
    assert shown.model_extra is not None
    assert shown.model_extra["empty"] is True
    assert [
        f.id for f in client.vector_stores.file_batches.list_files(batch.id, vector_store_id=made.id, filter="failed")
    ] == [broken]
    assert [result.file_id for result in client.vector_stores.search(made.id, query="good").data] == [good]


def test_a_batch_is_uploaded_and_polled_by_the_sdk(client: openai.OpenAI, tmp_path: Path) -> None:
    made = client.vector_stores.create(name="uploaded")
    paths = []
    for name, text in TEXTS.items():
        (tmp_path / name).write_text(text)
        paths.append(tmp_path / name)
    batch = client.vector_stores.file_batches.upload_and_poll(made.id, files=paths)
    assert (batch.status, batch.file_counts.completed) == ("completed", 3)
    assert client.vector_stores.file_batches.retrieve(batch.id, vector_store_id=made.id) == batch
    assert client.vector_stores.file_batches.cancel(batch.id, vector_store_id=made.id).status == "completed"
    file = client.vector_stores.files.upload_and_poll(vector_store_id=made.id, file=tmp_path / "cats.txt")
    assert file.status == "completed"


def test_a_batch_is_made_and_waited_for_apart(client: openai.OpenAI) -> None:
    """What is added is there at once, and nothing of it is found before it is read."""
    made = client.vector_stores.create(name="apart")
    file = client.vector_stores.files.upload(vector_store_id=made.id, file=("one.txt", b"text number one"))
    assert (file.object, file.vector_store_id) == ("vector_store.file", made.id)
    assert client.files.retrieve(file.id).filename == "one.txt"
    assert client.vector_stores.files.poll(file.id, vector_store_id=made.id).status == "completed"
    ids = [upload(client, f"{n}.txt", f"text number {n}") for n in range(3)]
    wanted = [{"file_id": id_, "attributes": {"number": n}} for n, id_ in enumerate(ids)]
    batch = client.vector_stores.file_batches.create(made.id, files=wanted)  # type: ignore[arg-type]
    assert (batch.object, batch.vector_store_id, batch.file_counts.total) == ("vector_store.files_batch", made.id, 3)
    done = client.vector_stores.file_batches.poll(batch.id, vector_store_id=made.id)
    assert (done.status, done.file_counts.completed, done.file_counts.in_progress) == ("completed", 3, 0)
    listed = client.vector_stores.file_batches.list_files(batch.id, vector_store_id=made.id, limit=2, order="asc")
    assert [(each.id, each.attributes) for each in listed] == [(id_, {"number": n}) for n, id_ in enumerate(ids)]


def test_a_batch_that_is_cancelled_is_read_no_further(
    server: Server, client: openai.OpenAI, upstream: Upstream
) -> None:
    """Not even what was with the model at that moment, once it answers."""
    script = upstream.script(Behaviour(held_after=-1))
    where = {"id": "held", "base_url": script.base_url, "model": "m", "price": {"input": 0}}
    assert server.admin.post("/models", json={"name": "held", "deployments": [where]}).status_code == 201
    made = client.vector_stores.create(extra_body={"embedding_model": "held"})
    ids = [upload(client, f"{n}.txt", f"text number {n}") for n in range(3)]
    batch = client.vector_stores.file_batches.create(made.id, file_ids=ids)
    script.wait(bool)
    assert client.vector_stores.file_batches.retrieve(batch.id, vector_store_id=made.id).status == "in_progress"
    assert client.vector_stores.retrieve(made.id).status == "in_progress"
    cancelled = client.vector_stores.file_batches.cancel(batch.id, vector_store_id=made.id)
    assert (cancelled.status, cancelled.file_counts.cancelled) == ("cancelled", 3)
    lost = server.output.count("ingestion.lease_lost") + len(script.entries())
    script.let_go()
    deadline = time.monotonic() + 30
    while server.output.count("ingestion.lease_lost") < lost:
        assert time.monotonic() < deadline, server.output
        time.sleep(0.05)
    assert client.vector_stores.file_batches.poll(batch.id, vector_store_id=made.id) == cancelled
    assert {file.status for file in client.vector_stores.files.list(made.id)} == {"cancelled"}
    assert client.vector_stores.search(made.id, query="text number 1").data == []


async def test_the_async_client_works_the_same(server: Server) -> None:
    files = [(name, text.encode()) for name, text in TEXTS.items()]
    async with openai.AsyncOpenAI(api_key=server.new_key(), base_url=server.base_url, max_retries=0) as client:
        made = await client.vector_stores.create(name="async")
        batch = await client.vector_stores.file_batches.upload_and_poll(made.id, files=files)
        assert (batch.status, batch.file_counts.completed) == ("completed", 3)
        found = [result async for result in client.vector_stores.search(made.id, query="wild yeast")]
        assert found[0].filename == "bread.md"
        assert [store.id async for store in client.vector_stores.list()] == [made.id]
        assert (await client.vector_stores.delete(made.id)).deleted


def test_what_belongs_to_others_is_not_there(
    client: openai.OpenAI, stranger: openai.OpenAI, store: VectorStore
) -> None:
    """Not the store, not its files, not a search in it; and nobody puts another's file into a store."""
    file_id = client.vector_stores.files.list(store.id).data[0].id
    for ask in (
        lambda: stranger.vector_stores.retrieve(store.id),
        lambda: stranger.vector_stores.update(store.id, name="mine"),
        lambda: stranger.vector_stores.search(store.id, query="cat"),
        lambda: stranger.vector_stores.files.retrieve(file_id, vector_store_id=store.id),
        lambda: stranger.vector_stores.files.content(file_id, vector_store_id=store.id),
        lambda: stranger.vector_stores.files.list(store.id),
        lambda: stranger.vector_stores.delete(store.id),
        lambda: stranger.vector_stores.create(file_ids=[file_id]),
    ):
        with pytest.raises(openai.NotFoundError):
            ask()
    assert store.id not in [each.id for each in stranger.vector_stores.list()]


def test_labels_open_files_to_those_who_hold_them(server: Server) -> None:
    """In a store that a team has in common."""
    org = server.admin.post("/orgs", json={"name": "labels"}).json()["id"]
    team = server.admin.post("/teams", json={"name": "labels", "org_id": org}).json()["id"]
    cfo = server.new_key(team_id=team, metadata={"access_labels": ["finance"]})
    clerk = server.new_key(team_id=team)
    with client_of(server, cfo) as one, client_of(server, clerk) as other:
        made = one.vector_stores.create(name="team")
        secret, open_ = (
            upload(one, "secret.txt", "the salary of the director"),
            upload(one, "open.txt", "the menu of the canteen"),
        )
        one.vector_stores.files.create(made.id, file_id=secret, extra_body={"access_labels": ["finance"]})
        one.vector_stores.files.create(made.id, file_id=open_)
        assert {one.vector_stores.files.poll(id_, vector_store_id=made.id).status for id_ in (secret, open_)} == {
            "completed"
        }
        assert len(one.vector_stores.search(made.id, query="salary").data) == 2
        assert [r.filename for r in other.vector_stores.search(made.id, query="salary").data] == ["open.txt"]
        assert [file.id for file in other.vector_stores.files.list(made.id)] == [open_]
        with pytest.raises(openai.NotFoundError):
            other.vector_stores.files.content(secret, vector_store_id=made.id)
        with pytest.raises(openai.PermissionDeniedError, match="finance"):
            other.vector_stores.files.create(made.id, file_id=open_, extra_body={"access_labels": ["finance"]})


def test_embedding_is_on_the_account_of_the_key(server: Server) -> None:
    """Held and settled like any call: what the ledger has of the key is what reading and searching cost."""
    made = server.admin.post("/keys", json={"name": "payer"}).json()
    server.await_key(made["key"], known=True)
    with client_of(server, made["key"]) as client:
        store = client.vector_stores.create()
        client.vector_stores.files.create_and_poll(upload(client, "a.txt", "some text"), vector_store_id=store.id)
        client.vector_stores.search(store.id, query="text")
    rows: list[dict[str, object]] = []
    deadline = time.monotonic() + 30
    while len(rows) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
        rows = server.admin.get("/requests", params={"key_id": made["id"]}).json()["data"]
    assert len(rows) == 2, rows


def test_a_search_is_refused_as_any_call_is(server: Server) -> None:
    """At the key's limits, with the time to wait; and a key that may not use the model makes no store with it."""
    with client_of(server, server.new_key(limits={"rpm": 1})) as client:
        store = client.vector_stores.create()
        client.vector_stores.files.create_and_poll(upload(client, "a.txt", "some text"), vector_store_id=store.id)
        with pytest.raises(openai.RateLimitError) as refused:
            client.vector_stores.search(store.id, query="text")
        assert refused.value.code == "rate_limit_exceeded"
        assert "retry-after" in refused.value.response.headers
    with client_of(server, server.new_key(models=["embed"])) as client:
        with pytest.raises(openai.PermissionDeniedError, match="text-embedding-minilm"):
            client.vector_stores.create()
        assert client.vector_stores.create(extra_body={"embedding_model": "embed"}).object == "vector_store"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": 5}, "name"),
        ({"colour": "red"}, "colour"),
        ({"metadata": {str(n): "v" for n in range(17)}}, "metadata"),
        ({"expires_after": {"anchor": "last_active_at", "days": 0}}, "expires_after.days"),
        ({"file_ids": ["file-none"]}, "file_id"),
        ({"embedding_model": "none"}, "embedding_model"),
        ({"chunking_strategy": {"type": "static"}}, "chunking_strategy"),
        ({"engine": "lucene"}, "engine"),
        ({"engine": "pgvector"}, "engine"),
        ({"quantization": "int2"}, "quantization"),
    ],
)
def test_a_bad_store_is_refused_by_its_field(server: Server, body: object, param: str) -> None:
    answer = server.post("/v1/vector_stores", body)
    assert answer.status_code in (400, 404), answer.text
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "query"),
        ({"query": "a", "max_num_results": 51}, "max_num_results"),
        ({"query": "a", "filters": {"type": "eq", "key": "k"}}, "filters.value"),
        ({"query": "a", "ranking_options": {"ranker": "best"}}, "ranking_options.ranker"),
        ({"query": "a", "ranking_options": {"score_threshold": 2}}, "ranking_options.score_threshold"),
    ],
)
def test_a_bad_search_is_refused_by_its_field(
    server: Server, client: openai.OpenAI, store: VectorStore, body: object, param: str
) -> None:
    answer = server.post(f"/v1/vector_stores/{store.id}/search", body, key=client.api_key)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


def test_files_of_other_kinds_are_read_and_broken_ones_are_told_apart(client: openai.OpenAI) -> None:
    """Each in a process of its own; one that cannot be read is failed with a reason and harms nobody."""
    files = {
        "manual.pdf": documents.pdf(
            [["Introduction to valves."], ["A spillway lets surplus water pass a dam safely."]]
        ),
        "page.html": b"<html><body><h1>Locks</h1><p>A lock lifts boats between two levels of a canal.</p></body></html>",
        "letter.eml": documents.mail(),
        "torn.pdf": b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog",
        "bomb.docx": b"PK\x03\x04 no archive at all",
    }
    ids = {name: upload(client, name, content) for name, content in files.items()}
    made = client.vector_stores.create(name="kinds")
    batch = client.vector_stores.file_batches.create_and_poll(made.id, file_ids=list(ids.values()))
    assert (batch.file_counts.completed, batch.file_counts.failed) == (3, 2)
    for name in ("torn.pdf", "bomb.docx"):
        failed = client.vector_stores.files.retrieve(ids[name], vector_store_id=made.id)
        assert failed.status == "failed"
        assert failed.last_error is not None
        assert failed.last_error.code in {"invalid_file", "unsupported_file"}
    for query, name in (("surplus water at a dam", "manual.pdf"), ("How do boats change levels?", "page.html")):
        found = client.vector_stores.search(made.id, query=query, max_num_results=1).data
        assert [one.filename for one in found] == [name]


def test_a_document_with_structure_is_read_as_one(client: openai.OpenAI) -> None:
    """Through the parsers, in their own process: text without its markup, under its headings, with exact places."""
    page = "<html><body><h1>Turbines</h1><h2>Penstock</h2><p>Open the valve slowly.</p></body></html>"
    made = client.vector_stores.create(name="structured")
    id_ = upload(client, "page.html", page)
    assert client.vector_stores.files.create_and_poll(id_, vector_store_id=made.id).status == "completed"
    (result,) = client.vector_stores.search(made.id, query="valve").data
    text = client.vector_stores.files.content(id_, vector_store_id=made.id).data[0].text
    assert text is not None
    assert "<p>" not in text
    assert result.model_extra is not None
    citation = result.model_extra["citation"]
    assert text[citation["start"] : citation["end"]] == result.content[0].text
    assert "Open the valve slowly." in result.content[0].text
    assert citation["heading"][:1] == ["Turbines"]
