"""`penstock/rerank` without the gateway: what it finds alike, how it weighs that, and what it does with odd texts."""

import asyncio
import threading
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.reranking import reranker as module
from retrieval.reranking.likeness import Likeness, Text, compared
from retrieval.reranking.reranker import MOST_COMPARED, Reranker
from retrieval.reranking.weighing import spread

QUESTION = "How is the gate of the turbine opened by hand?"
ANSWER = "The turbine has a gate. To open the gate of the turbine by hand, turn the crank. It takes a minute."
OTHERS = [
    "The hall serves lunch at noon.",
    "A river flows to the sea, and a gate is in it.",
    "By hand, bread is kneaded.",
]


def alike(*texts: str, question: str = QUESTION) -> list[Likeness]:
    return compared(question, [Text(text) for text in texts])


def test_what_answers_comes_first() -> None:
    """By words alone, wherever it stands."""
    for at in range(len(OTHERS) + 1):
        texts = [*OTHERS[:at], ANSWER, *OTHERS[at:]]
        scores = asyncio.run(Reranker().rank(QUESTION, texts))
        assert max(range(len(texts)), key=scores.__getitem__) == at
        assert all(0 < score < 1 for score in scores)


def test_the_sentence_that_has_most_is_the_excerpt() -> None:
    found, *_ = alike(ANSWER, *OTHERS)
    assert found.excerpt == "To open the gate of the turbine by hand, turn the crank."
    assert found.words == 1


def test_the_order_of_words_counts() -> None:
    """The same words, side by side and apart."""
    close, apart = alike("copy a file to a socket", "a socket, to file a copy", question="copy a file to a socket")
    assert (close.pairs, close.near) == (1, 1)
    assert close.pairs > apart.pairs
    (far,) = alike("socket " + "x " * 40 + "file", question="file socket")
    assert far.near == 0


def test_what_a_search_says_counts_in_any_unit() -> None:
    """Cosines, shares and BM25 alike; where all are equal, nothing is said."""
    assert spread([12.0, 3.0, 7.5]) == [1.0, 0.0, 0.5]
    assert spread([0.4, 0.4]) == [1.0, 1.0]
    assert spread([]) == []
    texts = ["The gate.", "A gate."]
    for unit in (1.0, 0.001, 1e6):
        scores = asyncio.run(Reranker().rank(QUESTION, texts, [unit, 2 * unit]))
        assert scores[1] > scores[0]


def test_meaning_is_asked_of_the_best_alone() -> None:
    """It is what costs. Those that are not compared stay behind those that are, in their order."""
    asked: list[Sequence[str]] = []

    async def similar(question: str, texts: Sequence[str]) -> list[float]:
        assert question == QUESTION
        asked.append(texts)
        return [1.0 if "crank" in text else 0.1 for text in texts]

    texts = [f"The gate {n} is shut." for n in range(100)]
    texts[7] = "The gate crank is shut."
    scores = asyncio.run(Reranker(similar).rank(QUESTION, texts))
    assert max(range(100), key=scores.__getitem__) == 7
    assert [len(some) for some in asked] == [MOST_COMPARED]
    compared_ = {at for at, text in enumerate(texts) if text in asked[0]}
    assert min(scores[at] for at in compared_) >= max(scores[at] for at in range(100) if at not in compared_)


def test_without_vectors_words_decide() -> None:
    """The embedding model may be away for now."""

    async def away(question: str, texts: Sequence[str]) -> None:
        del question, texts

    plain = asyncio.run(Reranker().rank(QUESTION, [ANSWER, *OTHERS]))
    assert asyncio.run(Reranker(away).rank(QUESTION, [ANSWER, *OTHERS])) == plain


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "texts",
    [
        [""],
        ["", " \n ", "\0"],
        ["." * 100_000, "?!" * 50_000, "a" * 200_000, "' " * 50_000],
        ["水門は毎年開く。", "Ünïcödé – “gäte”", "\u202egate\u202c", "🚪" * 5_000, "e\u0301" * 5_000],
        [ANSWER] * 1_000,
        ["gate turbine hand open " * 10_000],
    ],
    ids=["empty", "blank", "endless", "unicode", "many", "huge"],
)
def test_odd_texts_have_a_score_each(texts: list[str]) -> None:
    """In bounded time: of very much text, the beginning of each is read."""
    for question in (QUESTION, "?", "gate 水門 " * 100_000):
        scores = asyncio.run(Reranker().rank(question, texts))
        assert len(scores) == len(texts)
        assert all(0 <= score <= 1 for score in scores)


@settings(max_examples=30)
@given(question=st.text(max_size=60), texts=st.lists(st.text(max_size=80), min_size=1, max_size=6))
def test_numbers_stay_within_their_bounds(question: str, texts: list[str]) -> None:
    for each in alike(*texts, question=question):
        assert all(0 <= part <= 1 + 1e-9 for part in (each.words, each.pairs, each.near))
        assert each.length >= 0


def test_equal_texts_have_equal_scores() -> None:
    first, second = asyncio.run(Reranker().rank(QUESTION, [ANSWER, ANSWER]))
    assert first == second


async def test_who_stops_waiting_stops_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read in a slice is read to its end, the next one is not begun."""
    begun, go = threading.Event(), threading.Event()
    slices = []

    def read(some: Sequence[str]) -> list[Text]:
        slices.append(len(some))
        begun.set()
        go.wait(30)
        return [Text("")] * len(some)

    monkeypatch.setattr(module, "_texts", read)
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(Reranker().rank(QUESTION, ["x" * 70_000] * 5))
        assert await asyncio.to_thread(begun.wait, 30)
        waiting.cancel()
    go.set()
    assert waiting.cancelled()
    assert slices == [1]
