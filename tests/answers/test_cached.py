"""Answers that are kept fall with the documents that they rest on, and with what their reader may read."""

import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.answers.conftest import Grounded
from tests.fixtures.server import ADMIN_KEY
from tests.upstream.behaviour import Behaviour

SAYS = Behaviour(text="Four seconds [1].")
QUESTION: list[Any] = [{"role": "user", "content": "How fast does the gate close?"}]
CACHES = pytest.mark.parametrize("cache", [{"exact": {"ttl_s": 600}}, {"semantic": {}}], ids=["exact", "semantic"])


@pytest.fixture(scope="module")
def admin(grounded: Grounded) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=ADMIN_KEY, base_url=grounded.server.base_url, max_retries=0, timeout=50) as admin:
        yield admin


def asked(one: openai.OpenAI, model: str, text: str = "How fast does the gate close?") -> tuple[str, Any]:
    """Whether it was in the cache, and the message."""
    raw = one.chat.completions.with_raw_response.create(model=model, messages=[{"role": "user", "content": text}])
    return raw.headers["x-penstock-cache"], raw.parse().choices[0].message


@CACHES
def test_an_answer_falls_when_a_document_changes_or_goes(
    grounded: Grounded, client: openai.OpenAI, admin: openai.OpenAI, cache: Any
) -> None:
    """Each change of the collection is another version of it; until then the answer is given again, with its citations."""
    id_ = grounded.store(admin, {"a.txt": "The gate closes in four seconds."}, "kept")
    model, handle = grounded.model(SAYS, retrieval={"collections": [id_]}, cache=cache)

    def outcome() -> str:
        how, message = asked(client, model)
        assert message.annotations[0]["file_id"] if isinstance(message.annotations[0], dict) else message.annotations
        return how

    assert [outcome(), outcome()] == ["miss", "hit"]
    file = admin.files.create(file=("b.txt", b"The other gate closes in five seconds."), purpose="assistants")
    admin.vector_stores.files.create_and_poll(file.id, vector_store_id=id_)
    assert [outcome(), outcome()] == ["miss", "hit"]
    admin.vector_stores.files.delete(file.id, vector_store_id=id_)
    assert [outcome(), outcome()] == ["miss", "hit"]
    assert len(handle.entries()) == 3


@CACHES
def test_an_answer_is_of_the_vectors_that_its_reader_reads(
    grounded: Grounded, admin: openai.OpenAI, cache: Any
) -> None:
    """A key that reads a re-embedding as a canary gets nothing that was found without it, and afterwards nothing that was found in it."""
    key = grounded.server.admin.post("/keys", json={"name": "canary"}).json()
    grounded.server.await_key(key["key"], known=True)
    id_ = grounded.store(admin, {"a.txt": "The gate closes in four seconds."}, "lent")
    model, handle = grounded.model(SAYS, retrieval={"collections": [id_]}, cache=cache)
    other, _ = grounded.model(Behaviour())
    with grounded.sdk(key["key"]) as reader:

        def outcomes() -> list[str]:
            return [asked(reader, model)[0], asked(reader, model)[0]]

        assert outcomes() == ["miss", "hit"]
        wanted = {"embedding_model": other, "canary": {"keys": [key["id"]]}}
        made = grounded.server.admin.post(f"/collections/{id_}/reembeddings", json=wanted)
        assert made.status_code == 201, made.text
        where = f"/collections/{id_}/reembeddings/{made.json()['id']}"
        deadline = time.monotonic() + 40
        while (seen := grounded.server.admin.get(where).json())["state"] != "canary":
            assert time.monotonic() < deadline, seen
            time.sleep(0.05)
        assert outcomes() == ["miss", "hit"]
        assert grounded.server.admin.post(f"{where}/rollback", json={}).status_code == 200
        assert outcomes() == ["hit", "hit"]
    assert len(handle.entries()) == 2


def test_labels_are_part_of_what_an_answer_is_kept_under(grounded: Grounded, admin: openai.OpenAI) -> None:
    """A key that loses one does not get what it was told with it."""
    id_ = grounded.store(admin, {"a.txt": "The pin is 4711."}, "pins", access_labels=["secret"])
    model, handle = grounded.model(SAYS, retrieval={"collections": [id_]}, cache={"exact": {}})
    made = grounded.server.admin.post(
        "/keys", json={"name": "reader", "metadata": {"access_labels": ["secret"]}}
    ).json()
    grounded.server.await_key(made["key"], known=True)
    with openai.OpenAI(api_key=made["key"], base_url=grounded.server.base_url, max_retries=0) as reader:
        assert [asked(reader, model)[0], asked(reader, model)[0]] == ["miss", "hit"]
        changed = grounded.server.admin.patch(f"/keys/{made['id']}", json={"metadata": {}})
        assert changed.status_code == 200, changed.text
        handle.becomes(Behaviour(text="Nothing is known."))
        deadline = time.monotonic() + 20
        while asked(reader, model)[1].content != "Nothing is known.":  # until the change is in force
            assert time.monotonic() < deadline


def test_a_stream_out_of_the_cache_cites_as_well(
    grounded: Grounded, client: openai.OpenAI, admin: openai.OpenAI
) -> None:
    id_ = grounded.store(admin, {"a.txt": "The gate closes in four seconds."}, "streamed")
    model, handle = grounded.model(SAYS, retrieval={"collections": [id_]}, cache={"exact": {}})
    asked(client, model)
    chunks = list(client.chat.completions.create(model=model, messages=QUESTION, stream=True))
    cited = [note for chunk in chunks for note in (chunk.choices[0].delta.model_extra or {}).get("annotations") or ()]
    assert [note["filename"] for note in cited] == ["a.txt"]
    assert len(handle.entries()) == 1
