"""Questions and passages that a model embeds differently: who says which is which, and what the model then gets."""

import msgspec
import pytest

from gateway import errors
from gateway.catalog import Roles
from gateway.dialects.gemini_embeddings import embed_request
from gateway.embedding_roles import told

E5 = Roles("query: ", "passage: ")
BGE = Roles("Represent this sentence for searching: ")
VOYAGE = Roles(query_type="query", passage_type="document")


def sent(roles: Roles, **fields: object) -> dict[str, object]:
    made: dict[str, object] = msgspec.json.decode(told(msgspec.json.encode({"model": "e", **fields}), roles))
    return made


@pytest.mark.parametrize(
    ("input_type", "prefix"),
    [
        ("query", "query: "),
        ("search_query", "query: "),
        ("passage", "passage: "),
        ("document", "passage: "),
        ("search_document", "passage: "),
    ],
)
def test_every_clients_word_for_it_is_understood(input_type: str, prefix: str) -> None:
    """And does not go on: a server that knows it would do the same once more."""
    assert sent(E5, input="a", input_type=input_type) == {"model": "e", "input": f"{prefix}a"}
    many = sent(E5, input=["a", "b"], input_type=input_type, dimensions=8)
    assert many == {"model": "e", "input": [f"{prefix}a", f"{prefix}b"], "dimensions": 8}


def test_nothing_stands_before_a_text_that_nobody_names() -> None:
    """As OpenAI does; and the bytes are the client's. A side without a prefix is left as it is."""
    body = b'{"model":"e" , "input":"a"}'
    assert told(body, E5) == body
    assert sent(E5, input="a", input_type=None) == {"model": "e", "input": "a", "input_type": None}
    assert sent(BGE, input=["a"], input_type="document") == {"model": "e", "input": ["a"]}


def test_a_provider_that_knows_roles_is_told_in_its_own_words() -> None:
    """What is neither of them is between the client and the provider."""
    assert sent(VOYAGE, input="a", input_type="search_document")["input_type"] == "document"
    assert sent(VOYAGE, input=[1, 2], input_type="search_query") == {
        "model": "e",
        "input": [1, 2],
        "input_type": "query",
    }
    assert sent(VOYAGE, input="a", input_type="clustering")["input_type"] == "clustering"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": "a", "input_type": "classification"}, "input_type"),
        ({"input": "a", "input_type": 7}, "input_type"),
        ({"input": [1, 2], "input_type": "query"}, "input"),
        ({"input": [[1], [2]], "input_type": "query"}, "input"),
        ({"input": ["a", 1], "input_type": "query"}, "input"),
    ],
)
def test_what_cannot_be_told_is_refused(fields: dict[str, object], param: str) -> None:
    """With the field's name, instead of vectors that find badly."""
    with pytest.raises(errors.BadRequest) as refused:
        sent(E5, **fields)
    assert refused.value.param == param


def test_of_two_equal_keys_the_one_that_was_read_counts() -> None:
    """An upstream that prefers the first gets one."""
    assert told(b'{"input_type":"passage","input":"x","input":"a","input_type":"query"}', E5) == b'{"input":"query: a"}'


@pytest.mark.parametrize(
    ("input_type", "task"),
    [("search_query", "RETRIEVAL_QUERY"), ("document", "RETRIEVAL_DOCUMENT"), ("classification", "CLASSIFICATION")],
)
def test_gemini_is_told_its_task(input_type: str, task: str) -> None:
    """Which it calls `taskType`, text by text."""
    body = msgspec.json.encode({"model": "e", "input": ["a", "b"], "input_type": input_type})
    requests = msgspec.json.decode(embed_request(body, "gemini-embedding-001").body)["requests"]
    assert [each["taskType"] for each in requests] == [task, task]
