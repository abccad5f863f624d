"""The unmodified `openai` SDK: files, uploads and batches, a test for each of their methods."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.fixtures.batches import chat_line, results, start, wait
from tests.fixtures.server import Scripts, Server
from tests.upstream.behaviour import Behaviour


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    """With a key of its own, so that lists are its own too."""
    with openai.OpenAI(api_key=server.new_key(), base_url=server.base_url, max_retries=0, timeout=20) as client:
        yield client


@pytest.fixture(scope="module")
def stranger(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=server.new_key(), base_url=server.base_url, max_retries=0, timeout=20) as client:
        yield client


def test_a_file_is_created_retrieved_and_read(client: openai.OpenAI, tmp_path: Path) -> None:
    """Every byte comes back, from a path as from memory, whatever it is called."""
    data = bytes(range(256)) * 5000
    path = tmp_path / "räume.bin"
    path.write_bytes(data)
    made = client.files.create(file=path, purpose="user_data", expires_after={"anchor": "created_at", "seconds": 3600})
    assert (made.object, made.bytes, made.purpose, made.status) == ("file", len(data), "user_data", "processed")
    assert made.filename == "räume.bin"
    assert made.expires_at == made.created_at + 3600
    assert client.files.retrieve(made.id) == made
    assert client.files.content(made.id).content == data
    assert client.files.wait_for_processing(made.id).id == made.id
    written = client.files.create(file=("a.txt", b"abc"), purpose="user_data")
    with pytest.warns(DeprecationWarning, match="content"):
        assert client.files.retrieve_content(written.id) == "abc"


def test_a_batch_file_lives_for_thirty_days_and_others_for_ever(client: openai.OpenAI) -> None:
    """As at OpenAI, where the client says nothing."""
    batch = client.files.create(file=("a.jsonl", b"{}\n"), purpose="batch")
    assert batch.expires_at == batch.created_at + 30 * 86_400
    assert client.files.create(file=("a.txt", b"a"), purpose="assistants").expires_at is None


def test_files_are_listed_by_purpose_and_page(client: openai.OpenAI) -> None:
    """The SDK walks through the pages by itself."""
    made = [client.files.create(file=(f"{n}.txt", b"x"), purpose="evals").id for n in range(5)]
    assert [file.id for file in client.files.list(purpose="evals", order="asc")] == made
    assert [file.id for file in client.files.list(purpose="evals", limit=2)] == made[::-1]


def test_a_file_that_is_deleted_is_gone(client: openai.OpenAI) -> None:
    made = client.files.create(file=("a.txt", b"a"), purpose="user_data")
    deleted = client.files.delete(made.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (made.id, True, "file")
    for ask in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError, match=made.id):
            ask(made.id)


def test_a_file_comes_in_parts(client: openai.OpenAI) -> None:
    """In the order of the completion, not of their arrival."""
    upload = client.uploads.create(bytes=9, filename="parts.txt", mime_type="text/plain", purpose="user_data")
    assert (upload.status, upload.file, upload.expires_at) == ("pending", None, upload.created_at + 3600)
    later = client.uploads.parts.create(upload.id, data=b"second")
    first = client.uploads.parts.create(upload.id, data=b"one")
    assert (first.object, first.upload_id) == ("upload.part", upload.id)
    sum_ = hashlib.md5(b"onesecond").hexdigest()
    done = client.uploads.complete(upload.id, part_ids=[first.id, later.id], md5=sum_)
    assert done.status == "completed"
    assert done.file is not None
    assert (done.file.filename, done.file.bytes) == ("parts.txt", 9)
    assert client.files.content(done.file.id).content == b"onesecond"


def test_a_large_file_is_uploaded_in_chunks_by_the_sdk(client: openai.OpenAI, tmp_path: Path) -> None:
    path = tmp_path / "large.bin"
    path.write_bytes(b"0123456789" * 100_000)
    done = client.uploads.upload_file_chunked(
        file=path, mime_type="application/octet-stream", purpose="user_data", part_size=400_000
    )
    assert done.file is not None
    assert client.files.content(done.file.id).content == path.read_bytes()


def test_an_upload_that_is_cancelled_takes_no_more(client: openai.OpenAI) -> None:
    upload = client.uploads.create(bytes=3, filename="a.txt", mime_type="text/plain", purpose="user_data")
    client.uploads.parts.create(upload.id, data=b"abc")
    assert client.uploads.cancel(upload.id).status == "cancelled"
    with pytest.raises(openai.BadRequestError, match="cancelled"):
        client.uploads.parts.create(upload.id, data=b"abc")


def test_an_upload_is_what_was_announced(client: openai.OpenAI) -> None:
    """Its size and its checksum; what does not fit leaves the upload as it was."""
    upload = client.uploads.create(bytes=3, filename="a.txt", mime_type="text/plain", purpose="user_data")
    part = client.uploads.parts.create(upload.id, data=b"ab")
    with pytest.raises(openai.BadRequestError, match="3 bytes"):
        client.uploads.parts.create(upload.id, data=b"cd")
    with pytest.raises(openai.BadRequestError, match="announced"):
        client.uploads.complete(upload.id, part_ids=[part.id])
    rest = client.uploads.parts.create(upload.id, data=b"c")
    with pytest.raises(openai.BadRequestError, match="MD5"):
        client.uploads.complete(upload.id, part_ids=[part.id, rest.id], md5="0" * 32)
    assert client.uploads.complete(upload.id, part_ids=[part.id, rest.id]).status == "completed"


def test_a_batch_runs_to_its_end(client: openai.OpenAI) -> None:
    """Created, retrieved, listed; each line has its answer under its own id, and the sums are right."""
    made = start(client, [chat_line(f"line-{n}", "chat", f"number {n}") for n in range(20)])
    assert (made.object, made.status, made.endpoint) == ("batch", "validating", "/v1/chat/completions")
    batch = wait(client, made.id)
    assert batch.status == "completed", batch
    assert batch.request_counts is not None
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (20, 20, 0)
    assert batch.in_progress_at is not None
    assert batch.completed_at is not None
    assert batch.error_file_id is None
    assert batch.model == "chat"
    found = results(client, batch.output_file_id)
    assert len(found) == 20
    for name, line in found.items():
        number = name.removeprefix("line-")
        assert line["id"].startswith("batch_req_")
        assert line["error"] is None
        assert line["response"]["status_code"] == 200
        assert line["response"]["request_id"].startswith("req_")
        assert line["response"]["body"]["choices"][0]["message"]["content"] == f"{name}|number {number}"
    assert batch.usage is not None
    assert (batch.usage.input_tokens, batch.usage.output_tokens, batch.usage.total_tokens) == (40, 40, 80)
    assert batch.output_file_id is not None
    output = client.files.retrieve(batch.output_file_id)
    assert (output.purpose, output.filename) == ("batch_output", f"{batch.id}_output.jsonl")
    assert batch.id in [each.id for each in client.batches.list(limit=1)]


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("/v1/completions", {"model": "chat", "prompt": "hello there"}),
        ("/v1/embeddings", {"model": "embed", "input": "hello there"}),
    ],
)
def test_other_endpoints_have_batches_too(client: openai.OpenAI, endpoint: str, body: dict[str, str]) -> None:
    lines = [{"custom_id": f"{n}", "method": "POST", "url": endpoint, "body": body} for n in range(3)]
    batch = wait(client, start(client, lines, endpoint=endpoint).id)
    assert batch.status == "completed"
    found = results(client, batch.output_file_id)
    assert {line["response"]["status_code"] for line in found.values()} == {200}


def test_a_batch_is_cancelled(client: openai.OpenAI, scripts: Scripts) -> None:
    """What runs ends, what has not begun is named in the error file, and none is lost."""
    slow = scripts(Behaviour(headers_after_s=0.2))
    made = start(client, [chat_line(f"line-{n}", slow.model) for n in range(100)])
    wait(client, made.id, lambda batch: batch.request_counts is not None and len(slow.upstream.entries()) >= 16)
    assert client.batches.cancel(made.id).status == "cancelling"
    batch = wait(client, made.id)
    assert batch.status == "cancelled"
    assert batch.cancelled_at is not None
    served, left = results(client, batch.output_file_id), results(client, batch.error_file_id)
    assert len(served) + len(left) == 100
    assert served
    assert {line["error"]["code"] for line in left.values()} == {"batch_cancelled"}
    assert len(slow.upstream.entries()) == len(served)
    with pytest.raises(openai.BadRequestError, match="completed"):
        client.batches.cancel(wait(client, start(client, [chat_line("a", "chat")]).id).id)


def test_what_belongs_to_others_is_not_there(client: openai.OpenAI, stranger: openai.OpenAI) -> None:
    """Files, uploads and batches of another key: 404, and in no list."""
    file = client.files.create(file=("a.jsonl", b"{}\n"), purpose="batch")
    upload = client.uploads.create(bytes=3, filename="a.txt", mime_type="text/plain", purpose="user_data")
    batch = start(client, [chat_line("a", "chat")])
    for ask in (stranger.files.retrieve, stranger.files.content, stranger.files.delete):
        with pytest.raises(openai.NotFoundError):
            ask(file.id)
    with pytest.raises(openai.NotFoundError):
        stranger.uploads.parts.create(upload.id, data=b"abc")
    with pytest.raises(openai.NotFoundError):
        stranger.uploads.cancel(upload.id)
    with pytest.raises(openai.NotFoundError):
        stranger.batches.retrieve(batch.id)
    with pytest.raises(openai.NotFoundError):
        stranger.batches.cancel(batch.id)
    with pytest.raises(openai.NotFoundError):
        stranger.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    assert list(stranger.files.list()) == []
    assert list(stranger.batches.list()) == []


async def test_the_async_client_works_the_same(server: Server) -> None:
    async with openai.AsyncOpenAI(api_key=server.key, base_url=server.base_url, max_retries=0) as client:
        file = await client.files.create(file=("a.txt", b"abc"), purpose="user_data")
        assert (await client.files.content(file.id)).content == b"abc"
        assert (await client.files.delete(file.id)).deleted
        assert [batch async for batch in client.batches.list()] == []


def test_batches_are_listed_in_pages(client: openai.OpenAI) -> None:
    lines = [json.dumps(chat_line("a", "chat"))]
    made = [start(client, lines).id for _ in range(3)]
    page = client.batches.list(limit=2)
    assert [batch.id for batch in page.data] == made[:0:-1]
    assert page.get_next_page().data[0].id == made[0]
