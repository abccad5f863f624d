"""The embedded model gives the vectors of the reference implementation, whatever the text and the company it is in."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from embedding.engine import Engine
from embedding.errors import InputTooLong, InvalidInput
from embedding.tokens import Tokenizer

REFERENCE = json.loads((Path(__file__).parent / "reference.json").read_text())["items"]
SENTENCE = "A penstock is the gate that regulates the flow of water into a turbine."


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    products: NDArray[np.float32] = (a * b).sum(axis=1)
    return products


async def test_vectors_are_those_of_the_reference(embedding_engine: Engine) -> None:
    """Eight texts that sentence-transformers embedded: German, Japanese, emoji, code, control characters, a long one."""
    expected = np.stack([np.frombuffer(base64.b64decode(item["vector"]), "<f4") for item in REFERENCE])
    embedded = await embedding_engine.embed([item["text"] for item in REFERENCE])
    assert embedded.vectors.dtype == np.float32
    assert cosines(embedded.vectors, expected).min() >= 0.99999
    assert [round(float(x), 3) for x in embedded.vectors[0, :4]] == [round(x, 3) for x in REFERENCE[0]["first"]]


async def test_a_vector_does_not_depend_on_its_batch(embedding_engine: Engine) -> None:
    """Padding and neighbours must leave no trace, and the order of the answer is the order of the question."""
    texts = [f"{SENTENCE} " * (1 + index * 7 % 12) + f"Number {index}." for index in range(48)]
    together = (await embedding_engine.embed(texts)).vectors
    alone = np.concatenate([(await embedding_engine.embed([text])).vectors for text in texts])
    assert cosines(together, alone).min() >= 0.99999
    assert (np.argmax(together @ alone.T, axis=1) == np.arange(48)).all()


async def test_meaning_shows(embedding_engine: Engine) -> None:
    """The point of it all: a paraphrase is nearer than another subject."""
    texts = ["How do I reset my password?", "I forgot my login credentials.", "The turbine turns 300 times a minute."]
    vectors = (await embedding_engine.embed(texts)).vectors
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\x00",
        "🙂" * 500,
        "👩‍👩‍👧‍👦🏳️‍🌈",
        "a\u0301\u0308",
        "\u202eright to left",
        "العربية 中文 हिन्दी",
        "x" * 100_000,
        " " * 100_000,
        "\ufffe\uffff",
    ],
    ids=["empty", "nul", "emoji", "joined", "combining", "override", "scripts", "endless", "blank", "noncharacters"],
)
async def test_any_text_becomes_a_unit_vector(embedding_engine: Engine, text: str) -> None:
    """No text makes a NaN, an error or another text's vector shorter."""
    vectors = (await embedding_engine.embed([text, SENTENCE])).vectors
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-5


async def test_a_lone_surrogate_is_refused(embedding_engine: Engine) -> None:
    """It is no Unicode text; the error says so instead of a 500."""
    with pytest.raises(InvalidInput, match="surrogate"):
        await embedding_engine.embed(["\ud800"])


async def test_a_long_text_is_cut_and_the_cut_is_told(embedding_engine: Engine) -> None:
    """The model reads 256 tokens; what lies behind them changes nothing, and the answer says that it was not read."""
    long = f"{SENTENCE} " * 400
    embedded = await embedding_engine.embed([long, SENTENCE, long + "Something else entirely."])
    assert embedded.truncated == 2
    assert embedded.prompt_tokens == 2 * 256 + 18  # [CLS] a pens ##tock … . [SEP]
    assert cosines(embedded.vectors[:1], embedded.vectors[2:])[0] > 0.99999


async def test_a_long_text_can_be_refused_instead(embedding_engine: Engine) -> None:
    """Who wants no silent cut gets an error with both numbers."""
    with pytest.raises(InputTooLong, match="256 tokens"):
        await embedding_engine.embed([f"{SENTENCE} " * 400], truncation="error")


@pytest.fixture(scope="module")
def tokenizer_file() -> Path:
    bundled = pytest.importorskip("embedding.bundled")
    return Path(bundled._source()) / "tokenizer.json"


@pytest.mark.parametrize("unit", ["word ", "x", " ", "é", "🙂", "中", "un·believ·able ", "\x00", "[SEP] "])
def test_reading_only_the_start_of_a_text_loses_nothing(tokenizer_file: Path, unit: str) -> None:
    """The shortcut for long texts finds the same ids as reading them to the end."""
    text = f"start {unit * 6_000} end"
    quick = Tokenizer(tokenizer_file, 32).encode(text)
    whole = Tokenizer(tokenizer_file, 1_000_000).encode(text)
    assert quick.truncated == (len(whole.ids) > 32)
    assert list(quick.ids[:-1]) == list(whole.ids[: len(quick.ids) - 1])
    assert quick.ids[-1] == whole.ids[-1]
