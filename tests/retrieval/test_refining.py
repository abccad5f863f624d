"""What is done to an order once it is there, without a server: age, groups, difference, highlights, neighbours as one text."""

import msgspec
import numpy as np
import pytest

from retrieval import expansion, refining
from retrieval.asking import Diversity, Recency, Result, Span
from retrieval.chunking_strategy import Chunking
from retrieval.document_store import Document, Value
from retrieval.passage_store import Found

DAY = 86_400.0


def result(number: int, score: float, *, document: int = 0, date: Value | None = None, created_at: float = 0) -> Result:
    attributes = {} if date is None else {"date": date}
    whose = Document(
        document, "vs", f"file-{document}", "a.txt", "completed", None, None, False, attributes, Chunking(), None, 1, 1, 1,
        created_at, None,
    )  # fmt: skip
    return Result(found(number, "text", number * 10, number * 10 + 4), whose, score, ())


def found(number: int, text: str, start: int, end: int) -> Found:
    return Found(number, 1, number, start, end, None, None, 1, (), text)


def ids(results: list[Result]) -> list[int]:
    return [each.passage.id for each in results]


def test_a_reranker_s_scores_are_the_results() -> None:
    """Shares are told as they are, logits as probabilities; equals stay in their order, and the trace has the model's own number."""
    before = [result(number, 1 - number / 10) for number in range(3)]
    shares = refining.reranked(before, [0.1, 0.9, 0.1])
    assert [(each.passage.id, each.score) for each in shares] == [(1, 0.9), (0, 0.1), (2, 0.1)]
    logits = refining.reranked(before, [-11.0, 0.0, 8.0])
    assert ids(logits) == [2, 1, 0]
    assert logits[1].score == 0.5
    assert [each.traces[-1].score for each in logits] == [8.0, 0.0, -11.0]
    assert all(0 < each.score < 1 for each in logits)


def test_what_is_older_is_worth_less() -> None:
    now = 1000 * DAY
    before = [
        result(0, 0.9, date=now - 30 * DAY),
        result(1, 0.8, date="1972-09-26T00:00:00Z"),  # a day ago
        result(2, 0.7),
        result(3, 0.6, date="no date"),
    ]
    aged = refining.by_age(before, Recency(10 * DAY, "date"), now)
    assert ids(aged) == [1, 0, 2, 3]
    assert [round(each.score, 4) for each in aged] == [round(0.8 * 0.5**0.1, 4), round(0.9 / 8, 4), 0, 0]
    half = refining.by_age(before, Recency(10 * DAY, "date", weight=0.5), now)
    assert half[2].score == pytest.approx(0.35), "half of its score is its own"
    added = refining.by_age([result(0, 1.0, created_at=now - 10 * DAY)], Recency(10 * DAY), now)
    assert added[0].score == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (DAY, DAY),
        ("1970-01-02", DAY),
        ("1970-01-02T01:00:00+01:00", DAY),
        (True, None),
        (None, None),
        ("soon", None),
    ],
)
def test_a_date_is_a_number_or_iso_8601(value: Value | None, expected: float | None) -> None:
    assert refining.moment(value) == expected


def test_a_document_is_one_result() -> None:
    before = [result(0, 0.9, document=7), result(1, 0.8), result(2, 0.7, document=7), result(3, 0.6, document=7)]
    groups = refining.grouped(before, 2)
    assert ids(groups) == [0, 1]
    assert [each.passage.id for each in groups[0].more] == [2]
    assert ids(refining.grouped(before, 1)) == [0, 1]


def test_what_says_the_same_comes_later() -> None:
    """Of two that are alike and one that is not, the other one is second, unless relevance is all that counts."""
    before = [result(0, 1.0), result(1, 0.99), result(2, 0.5)]
    east, north = np.array([1, 0], np.float32), np.array([0, 1], np.float32)
    vectors = {0: east, 1: east, 2: north}
    assert ids(refining.diverse(before, vectors, Diversity(0.5), 3)) == [0, 2, 1]
    assert ids(refining.diverse(before, vectors, Diversity(1.0), 3)) == [0, 1, 2]
    assert ids(refining.diverse(before, vectors, Diversity(0.5), 2)) == [0, 2]
    assert ids(refining.diverse(before, {}, Diversity(0.5), 3)) == [0, 1, 2]


def test_words_are_marked_in_any_ending() -> None:
    text = "The gate opens: gates opened, a kettle."
    spans = refining.highlights(text, ["how do I open a gate?"])
    assert [text[each.start : each.end] for each in spans] == ["gate opens", "gates opened"]
    assert refining.highlights(text, ["the"]) == (Span(0, 3),), "where there is nothing else, any word"
    assert refining.highlights(text, ["?"]) == ()
    assert len(refining.highlights("gate and " * 1000, ["gate"])) == refining.MAX_SPANS


def test_neighbours_are_one_text_without_repetition() -> None:
    whole = "0123456789abcdef"
    parts = [found(0, whole[0:6], 0, 6), found(1, whole[4:12], 4, 12), found(2, whole[13:], 13, 16)]
    joined = refining.joined(parts)
    assert joined is not None
    assert (joined.text, joined.start, joined.end) == ("0123456789ab\ndef", 0, 16)
    assert refining.joined([]) is None
    inside = refining.joined([found(0, whole[0:6], 0, 6), found(1, whole[2:4], 2, 4)])
    assert inside is not None
    assert inside.text == whole[0:6]


def test_every_passage_of_a_group_is_changed() -> None:
    groups = refining.grouped([result(0, 1.0), result(1, 0.9)], 2)
    changed = refining.every(groups, lambda each: msgspec.structs.replace(each, score=0.0))
    assert [changed[0].score, changed[0].more[0].score] == [0.0, 0.0]


def test_queries_are_read_from_whatever_a_model_writes() -> None:
    written = "<think>hm\nwell</think>1. open the gate\n- \u201copening gates\u201d\n\n---\n(3) open the gate\nGate"
    assert expansion.queries_in(written) == ["open the gate", "opening gates", "Gate"]
    assert expansion.queries_in("2024 report") == ["2024 report"], "a number that belongs to it"
    assert len(expansion.queries_in("x" * 5000)[0]) == expansion.MAX_CHARACTERS
    assert expansion.passage("  \n") == []
    assert expansion.passage(" A passage.\nOf two lines. ") == ["A passage.\nOf two lines."]
