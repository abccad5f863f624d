"""Question sets are read strictly, documents are known by any of their names, and what has to hold is decided with the interval in mind."""

import pytest
import pytrec_eval

from retrieval.evaluation.comparison import compare
from retrieval.evaluation.measures import ordered
from retrieval.evaluation.questions import BadQuestions, Found, Requirement, percentile, ranking, read, verdicts


def test_a_question_may_say_less_or_more() -> None:
    first, second = read(
        [
            '{"query": "gate", "relevant": ["gate.md"]}',
            "",
            '{"id": "b", "query": "pump", "relevant": ["x", {"id": "file-1", "grade": 3}], "filters": {"type": "eq"}}',
        ]
    )
    assert (first.id, first.judged, first.filters) == ("line 1", {"gate.md": 1}, None)
    assert (second.id, second.judged, second.filters) == ("b", {"x": 1, "file-1": 3}, {"type": "eq"})


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "no questions"),
        (["{"], "line 1"),
        (['{"query": "a", "relevant": ["x"]}', '{"query": "a", "relevant": []}'], "line 2"),
        (['{"query": "a", "relevant": [{"id": "x", "grade": 0}]}'], "cannot be measured"),
        (['{"query": "a", "relevent": ["x"]}'], "relevent"),
        (['{"query": "", "relevant": ["x"]}'], "line 1"),
        (['{"id": "q", "query": "a", "relevant": ["x"]}'] * 2, "'q' is there 2 times"),
    ],
)
def test_a_mistake_is_named_with_its_line(lines: list[str], message: str) -> None:
    with pytest.raises(BadQuestions, match=message):
        read(lines)


def test_a_document_is_known_by_its_id_its_path_and_its_name() -> None:
    judged = {"file-1": 1, "guide/start.md": 1, "b.txt": 1, "art.md": 1}
    assert Found("file-1", "a", "/docs/a").named(judged) == "file-1"
    assert Found("file-2", "start.md", "/docs/guide/start.md").named(judged) == "guide/start.md"
    assert Found("file-3", "b.txt").named(judged) == "b.txt"
    assert Found("file-4", "start.md", "/docs/start.md").named(judged) == "file-4", "the end of a path, by whole names"
    twice = [Found("file-3", "b.txt"), Found("file-9"), Found("file-3", "b.txt")]
    assert list(ranking(twice, judged)) == ["b.txt", "file-9"]


def test_whole_runs_come_to_what_trec_eval_says() -> None:
    judged = {f"q{n}": {f"d{(n + step) % 9}": 1 + step for step in range(3)} for n in range(40)}
    runs = {f"q{n}": ordered([f"d{(n * 7 + step * 5) % 9}" for step in range(9)]) for n in range(40)}
    theirs = pytrec_eval.RelevanceEvaluator(judged, {"recall", "ndcg_cut", "recip_rank"})
    expected = theirs.evaluate({question: dict(found) for question, found in runs.items()})
    row = compare({"a": runs}, judged, ["recall@5", "ndcg@10", "mrr@10"]).rows[0]
    for ours, name in {"recall@5": "recall_5", "ndcg@10": "ndcg_cut_10", "mrr@10": "recip_rank"}.items():
        mean = sum(each[name] for each in expected.values()) / len(expected)
        assert row.means[ours].value == pytest.approx(mean, abs=1e-9)


def test_a_gate_knows_chance_from_loss() -> None:
    judged = {f"q{n}": {"a": 1} for n in range(40)}
    good = {question: ordered(["a", "b"]) for question in judged}
    noise = {**good, "q3": ordered(["b", "a"])}
    bad = {question: ordered(["b", "a"]) for question in judged}
    found = compare({"good": good, "noise": noise, "bad": bad}, judged, ["mrr@10"])
    assert [each.passed for each in verdicts(found, [], no_worse=True)] == [True, False]
    least = verdicts(found, [Requirement("mrr@10", 0.9)], no_worse=False)
    assert [each.passed for each in least] == [True, True, False]
    assert least[2].what == "bad: mrr@10 0.5000 >= 0.9"


def test_percentiles_are_by_nearest_rank() -> None:
    values = [float(n) for n in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.95), percentile([3.0], 0.95)) == (50.0, 95.0, 3.0)
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 0.5)
