"""One answer, one bill: without a tag of the client's, a header says what the answer cost with all that was looked up for it, and its
record names the parts.
"""

import time
from typing import Any

import openai
import pytest

from tests.answers.conftest import PRICE, TEXTS, Grounded, searching
from tests.fixtures.upstream import Upstream
from tests.upstream.behaviour import Behaviour

SAYS = Behaviour(text="In four seconds [1].", prompt_tokens=20, completion_tokens=3)
ANSWER_COST = (20 * PRICE["input"] + 3 * PRICE["output"]) / 1e6


@pytest.fixture(scope="module")
def priced(grounded: Grounded, client: openai.OpenAI, upstream: Upstream) -> str:
    """A store whose vectors cost something."""
    where = {"id": "billed-a", "base_url": upstream.base_url, "model": "m", "api_key": "x", "price": {"input": 500}}
    grounded.create({"name": "billed", "deployments": [where]})
    store = client.vector_stores.create(name="billed", extra_body={"embedding_model": "billed"})
    file = client.files.create(file=("a.txt", TEXTS["gates.md"].encode()), purpose="assistants")
    client.vector_stores.files.create_and_poll(file.id, vector_store_id=store.id)
    return store.id


def asked(words: str) -> Any:
    """Each test asks in words of its own: a vector that is known is not asked for again."""
    return [{"role": "user", "content": words}]


def tool(store: str) -> Any:
    return {"type": "file_search", "vector_store_ids": [store]}


def record(grounded: Grounded, id_: str, parts: int) -> Any:
    """The record of a request, once it and so many parts are shipped."""
    deadline = time.monotonic() + 20
    while True:
        answer = grounded.server.admin.get(f"/requests/{id_}")
        if answer.status_code == 200 and len(answer.json()["parts"]) >= parts:
            return answer.json()
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.05)


def test_the_header_of_a_chat_has_the_whole_bill(grounded: Grounded, client: openai.OpenAI, priced: str) -> None:
    """The vector of the question is a part, with what it cost; nobody had to think of a tag."""
    model, _ = grounded.model(SAYS)
    raw = client.chat.completions.with_raw_response.create(
        model=model, messages=asked("How fast does the gate close?"), tools=[tool(priced)]
    )
    found = record(grounded, raw.headers["x-request-id"], 1)
    assert [one["model"] for one in found["parts"]] == ["billed"]
    assert [one["part_of"] for one in found["parts"]] == [found["id"]]
    assert found["cost_usd"] == pytest.approx(ANSWER_COST)
    assert found["parts"][0]["cost_usd"] > 0
    assert found["bill_nanousd"] == found["cost_nanousd"] + found["parts"][0]["cost_nanousd"]
    assert float(raw.headers["x-penstock-cost-usd"]) == pytest.approx(found["bill_nanousd"] / 1e9)


def test_a_stream_has_its_parts_as_well(grounded: Grounded, client: openai.OpenAI, priced: str) -> None:
    model, _ = grounded.model(SAYS)
    stream: Any = client.chat.completions.create(
        model=model, messages=asked("And how fast on a stream?"), tools=[tool(priced)], stream=True
    )
    id_ = stream.response.headers["x-request-id"]
    list(stream)
    found = record(grounded, id_, 1)
    assert found["stream"]
    assert found["bill_nanousd"] == found["cost_nanousd"] + found["parts"][0]["cost_nanousd"] > found["cost_nanousd"]


def test_a_response_has_one_bill_for_turns_and_searches(grounded: Grounded, client: openai.OpenAI, priced: str) -> None:
    """Each turn is a request; asked about any of them, all that belongs to the response is told."""
    model, _ = grounded.model(searching("gate"), SAYS)
    raw = client.responses.with_raw_response.create(model=model, input="?", tools=[tool(priced)])
    response = raw.parse()
    found = record(grounded, raw.headers["x-request-id"], 2)
    assert sorted(one["endpoint"] for one in found["parts"]) == ["embeddings", "responses"]
    assert {one["part_of"] for one in found["parts"]} == {response.id}
    cost = (30 * PRICE["input"] + 8 * PRICE["output"]) / 1e6
    vector = next(one for one in found["parts"] if one["endpoint"] == "embeddings")
    assert found["bill_nanousd"] / 1e9 == pytest.approx(cost + vector["cost_usd"])
    assert float(raw.headers["x-penstock-cost-usd"]) == pytest.approx(found["bill_nanousd"] / 1e9)


def test_nobody_says_of_a_request_of_its_own_what_it_is_a_part_of(grounded: Grounded, client: openai.OpenAI) -> None:
    """Names that clients can send mean nothing, and the one that means something cannot be sent."""
    model, _ = grounded.model(SAYS)
    headers = {"part-of": "req_1", "part_of": "req_1", "x-penstock-part-of": "req_1"}
    raw = client.chat.completions.with_raw_response.create(
        model=model, messages=asked("Whose part is it?"), extra_headers=headers
    )
    assert record(grounded, raw.headers["x-request-id"], 0)["part_of"] is None
    with grounded.server.connect() as raw_socket:
        raw_socket.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\npart of: req_1\r\ncontent-length: 2\r\n\r\n{}"
        )
        assert raw_socket.recv(100).startswith(b"HTTP/1.1 400 ")


def test_another_answer_has_parts_of_its_own(grounded: Grounded, client: openai.OpenAI, priced: str) -> None:
    """Though its upstream calls it the same."""
    model, _ = grounded.model(SAYS, SAYS)
    ids = []
    for number in range(2):
        asked_ = asked(f"The answer of number {number}?")
        raw = client.chat.completions.with_raw_response.create(model=model, messages=asked_, tools=[tool(priced)])
        ids.append(raw.headers["x-request-id"])
    found = record(grounded, ids[1], 1)
    assert len(found["parts"]) == 1
    assert found["parts"][0]["key_id"] == found["key_id"]
