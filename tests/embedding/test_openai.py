"""`/v1/embeddings` as OpenAI's clients know it: what is accepted, what is refused and how, what comes back."""

import base64
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding import cl100k
from embedding.cl100k import Cl100k
from embedding.engine import Embedded, Engine
from embedding.errors import EmbeddingError, InvalidInput, TokensUnsupported
from embedding.openai import answer, parse, render

HELLO = [9906, 1917, 0]  # "Hello world!" in cl100k_base


@pytest.fixture
def engine(embedding_engine: Engine) -> Engine:
    return embedding_engine


@pytest.fixture(scope="session")
def tokens() -> Cl100k:
    return cl100k.installed()


async def ask(engine: Engine, tokens: Cl100k, **body: object) -> dict[str, Any]:
    given = {"model": "m", **body}
    read: dict[str, Any] = json.loads((await answer(engine, json.dumps(given).encode(), "public-name", tokens)).body)
    return read


async def test_one_string(engine: Engine, tokens: Cl100k) -> None:
    """The smallest request, every field of the answer."""
    got = await ask(engine, tokens, input="Hello world!")
    assert list(got) == ["object", "data", "model", "usage"]
    assert (got["object"], got["model"]) == ("list", "public-name")
    assert got["usage"] == {"prompt_tokens": 5, "total_tokens": 5}
    (item,) = got["data"]
    assert list(item) == ["object", "index", "embedding"]
    assert (item["object"], item["index"], len(item["embedding"])) == ("embedding", 0, 384)


async def test_many_strings_in_order_in_both_encodings(engine: Engine, tokens: Cl100k) -> None:
    """Decimal numbers and base64 hold the same float32, beyond what is rendered inline, too."""
    texts = [f"text number {n}" for n in range(40)]
    decimal = await ask(engine, tokens, input=texts, encoding_format="float")
    packed = await ask(engine, tokens, input=texts, encoding_format="base64", user="somebody", dimensions=384)
    assert [item["index"] for item in packed["data"]] == list(range(40))
    for one, other in zip(decimal["data"], packed["data"], strict=True):
        vector = np.frombuffer(base64.b64decode(other["embedding"]), "<f4")
        assert np.allclose(np.array(one["embedding"], np.float32), vector, atol=1e-6)
    alone = await ask(engine, tokens, input=texts[33])
    assert np.dot(alone["data"][0]["embedding"], decimal["data"][33]["embedding"]) > 0.99999


async def test_token_ids_mean_what_the_text_means(engine: Engine, tokens: Cl100k) -> None:
    """LangChain's default: ids of OpenAI's vocabulary, one list or several."""
    text = await ask(engine, tokens, input=["Hello world!", "Hello world!Hello world!"])
    single = await ask(engine, tokens, input=HELLO)
    lists = await ask(engine, tokens, input=[HELLO, HELLO + HELLO])
    assert np.allclose(single["data"][0]["embedding"], text["data"][0]["embedding"], atol=1e-6)
    assert np.allclose(lists["data"][1]["embedding"], text["data"][1]["embedding"], atol=1e-6)


async def test_token_ids_without_the_table_are_refused_with_the_way_out(engine: Engine) -> None:
    """Embedding the ids of another vocabulary would be silent nonsense."""
    with pytest.raises(TokensUnsupported, match="check_embedding_ctx_length=False") as refused:
        await ask(engine, Cl100k([]), input=[HELLO])
    assert (refused.value.status, refused.value.code) == (400, "token_input_unsupported")


async def test_a_cut_is_told_in_the_usage(engine: Engine, tokens: Cl100k) -> None:
    """What was not read was not embedded, and is not billed either."""
    got = await ask(engine, tokens, input=["word " * 1000, "word"])
    assert got["usage"] == {"prompt_tokens": 259, "total_tokens": 259, "truncated_inputs": 1}


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        (b"", None, "not valid JSON"),
        (b"{", None, "not valid JSON"),
        (b'{"input": "\xff"}', None, "not valid JSON"),
        (b"[]", None, "Expected `object`"),
        (b"{}", "input", "missing required field `input`"),
        (b'{"input": null}', "input", "got `null`"),
        (b'{"input": 3}', "input", "got `int`"),
        (b'{"input": ""}', "input", "must not be empty"),
        (b'{"input": []}', "input", "must not be empty"),
        (b'{"input": ["a", ""]}', "input", "input[1]"),
        (b'{"input": [[1], []]}', "input", "input[1]"),
        (b'{"input": ["a", 1]}', "input", "not a mix"),
        (b'{"input": [[1], "a"]}', "input", "not a mix"),
        (b'{"input": [true]}', "input", "got `bool`"),
        (b'{"input": [1.5]}', "input", "got `float`"),
        (b'{"input": [[-1]]}', "input", "not a token"),
        (b'{"input": [100300]}', "input", "not a token"),
        (b'{"input": [[10000000000000000000000]]}', "input", ""),
        (b'{"input": "a", "encoding_format": "hex"}', "encoding_format", "hex"),
        (b'{"input": "a", "dimensions": "3"}', "dimensions", "got `str`"),
        (b'{"input": "a", "dimensions": 12}', "dimensions", "384"),
        (b'{"input": "a", "dimensions": 0}', "dimensions", "384"),
        (json.dumps({"input": ["a"] * 2049}).encode(), "input", "2048 is the maximum"),
    ],
)
async def test_a_bad_body_is_a_400_that_names_the_field(
    engine: Engine, tokens: Cl100k, body: bytes, param: str | None, says: str
) -> None:
    """The client's developer sees what to change."""
    with pytest.raises(EmbeddingError) as refused:
        await answer(engine, body, "m", tokens)
    assert (refused.value.status, refused.value.type, refused.value.param) == (400, "invalid_request_error", param)
    assert says in refused.value.message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(json_values, json_values)
def test_any_json_is_parsed_or_refused(value: object, dimensions: object) -> None:
    """Nothing else comes out of the parser than a request or InvalidInput."""
    try:
        request = parse(msgspec.json.encode({"input": value, "dimensions": dimensions}))
    except InvalidInput:
        return
    assert request.input


def test_rendering_is_exact() -> None:
    """Little-endian float32, whatever the machine and the array."""
    vectors = np.array([[1.0, -0.5], [0.25, 3e-8]], ">f4").astype("=f4")
    body = json.loads(render(Embedded(vectors, 7), "m", "base64"))
    assert base64.b64decode(body["data"][1]["embedding"]) == np.array([0.25, 3e-8], "<f4").tobytes()
    assert json.loads(render(Embedded(vectors, 7), "m", "float"))["data"][0]["embedding"] == [1.0, -0.5]


def test_a_table_that_was_tampered_with_is_not_used(tmp_path: Path) -> None:
    """A genuine one behind it is."""
    fake = tmp_path / "cl100k_base.tiktoken"
    fake.write_bytes(b"SGVsbG8= 0\n")
    with pytest.raises(TokensUnsupported):
        Cl100k([fake]).decode([0])
    genuine = cl100k.installed()._files
    assert Cl100k([fake, *genuine]).decode([*HELLO, 100257]) == "Hello world!<|endoftext|>"


def test_a_character_that_is_cut_in_two_is_marked(tokens: Cl100k) -> None:
    """LangChain cuts long texts between tokens, which may be inside a character."""
    assert tokens.decode([9468]) == "\ufffd"
