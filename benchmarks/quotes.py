"""What `penstock/quotes` is worth, and the constants of its support: `python -m benchmarks.quotes [--questions 300]`.

For each question about the manuals: eight passages of the same manual by chance, and again with the best passage of an answering page in
place of one. A quotation is right if it stands in an answering page. Half of the questions (by hash) fit the logistic regression of
`retrieval.quotes.support`, the other half is what the table is about. Embedding takes minutes.
"""

import argparse
import asyncio
import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from math import log
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

from benchmarks import manuals
from benchmarks.manual_sources import Question
from embedding import bundled
from embedding.engine import Engine
from retrieval.chunking import strategies
from retrieval.chunking.chunk import Document, Sizes
from retrieval.chunking.tokens import Estimate
from retrieval.parsing.registry import read
from retrieval.parsing.source import Source
from retrieval.quotes import support
from retrieval.quotes.passage import Passage
from retrieval.quotes.quoting import Ranking, rank
from retrieval.quotes.words import content_words, words

PASSAGES = 8
TOP = 3  # candidates of each question that the regression sees
SIZES = Sizes(254, 0)


@dataclass(frozen=True, slots=True)
class Case:
    """One question over some passages; `right`: whether each candidate stands in an answering page."""

    question: Question
    answerable: bool
    ranking: Ranking
    right: Sequence[bool]
    cosines: Sequence[float]

    def rows(self, *, vectors: bool) -> NDArray[np.float64]:
        features = [
            self.ranking.features(place, cosine if vectors else None)
            for place, cosine in zip(self.ranking.candidates, self.cosines, strict=True)
        ]
        return np.array([[1.0, each.shared, each.similar or 0.0] for each in features]).reshape(-1, 3)


class Passages:
    """All passages under an inverted index: the retriever of this benchmark, which no answer depends on."""

    def __init__(self, folder: Path) -> None:
        self.passages: list[Passage] = []
        self._postings: dict[str, dict[int, int]] = defaultdict(dict)
        self._lengths: list[int] = []
        for file in sorted(folder.rglob("*.html")):
            self._add(str(file.relative_to(folder)), file)
        self._mean = sum(self._lengths) / len(self._lengths)

    def best(self, question: str, pages: frozenset[str], most: int) -> list[int]:
        """Among the passages of some pages, by words."""
        scores: dict[int, float] = defaultdict(float)
        for word in content_words(question):
            postings = self._postings.get(word, {})
            rarity = log(1 + (len(self.passages) - len(postings) + 0.5) / (len(postings) + 0.5))
            for place, count in postings.items():
                if self.passages[place].document_id in pages:
                    norm = support.K1 * (1 - support.B + support.B * self._lengths[place] / self._mean)
                    scores[place] += rarity * count * (support.K1 + 1) / (count + norm)
        return nlargest(most, scores, key=scores.__getitem__)

    def any_of(self, question: Question, most: int) -> list[int]:
        """Passages of the same manual that do not answer, chosen by chance."""
        manual = question.pages[0].partition("/")[0].removesuffix("-faq")
        others = [
            place
            for place, passage in enumerate(self.passages)
            if passage.document_id not in question.pages and str(passage.document_id).startswith(manual)
        ]
        return Random(question.id).sample(others, most)

    def _add(self, page: str, file: Path) -> None:
        parsed = read(Source(file.name, file))
        for chunk in strategies.by_tokens(Document(parsed.text, parsed.blocks, verbatim=False), Estimate(), SIZES):
            counts = Counter(words(chunk.text))
            for word, count in counts.items():
                self._postings[word][len(self.passages)] = count
            self._lengths.append(sum(counts.values()))
            heading = chunk.heading[-2:]
            self.passages.append(Passage(chunk.text, "manual", chunk.start, heading=heading, document_id=page))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=300)
    arguments = parser.parse_args()
    if not (manuals.OUT / "questions.jsonl").exists():
        manuals.build(manuals.OUT, 500)
    questions = manuals.choose(manuals.load(), arguments.questions)
    passages = Passages(manuals.OUT / "documents")
    print(f"{len(passages.passages):,} passages, {len(questions)} questions")
    cases = asyncio.run(_cases(passages, questions))
    fitted, held = ([case for case in cases if _half(case.question) == half] for half in (0, 1))
    for vectors in (False, True):
        _report(fitted, held, vectors=vectors)


async def _cases(passages: Passages, questions: Sequence[Question]) -> list[Case]:
    engine = Engine(bundled.MINILM, bundled.opener(manuals.OUT / "model"))
    cases = []
    try:
        for question in questions:
            for answerable in (True, False):
                case = await _case(passages, question, engine, answerable=answerable)
                if case is not None:
                    cases.append(case)
    finally:
        await engine.close()
    return cases


async def _case(passages: Passages, question: Question, engine: Engine, *, answerable: bool) -> Case | None:
    pages = frozenset(question.pages)
    found = passages.any_of(question, PASSAGES - answerable)
    found += passages.best(question.text, pages, 1) if answerable else []
    ranking = rank(question.text, [passages.passages[place] for place in found])
    if not ranking.candidates:
        return None
    sentences = [ranking.sentences[place] for place in ranking.candidates]
    vectors = (await engine.embed([question.text, *(sentence.text for sentence in sentences)])).vectors
    cosines = [float(each) for each in vectors[1:] @ vectors[0]]
    right = [sentence.passage.document_id in pages for sentence in sentences]
    return Case(question, answerable, ranking, right, cosines)


def _half(question: Question) -> int:
    return hashlib.sha256(b"half " + question.id.encode()).digest()[0] % 2


def _report(fitted: Sequence[Case], held: Sequence[Case], *, vectors: bool) -> None:
    name = "WITH_VECTORS" if vectors else "LEXICAL"
    columns = 3 if vectors else 2
    start = support.WITH_VECTORS if vectors else support.LEXICAL
    weights = np.array([start.bias, start.shared, start.similar][:columns])
    for _ in range(3):  # which candidates are on top depends on the weights
        rows, labels = _training(fitted, weights, vectors=vectors)
        weights = _logistic(rows, labels)
    print(f"\n{name}: " + ", ".join(f"{part:.2f}" for part in weights))
    probabilities, labels = _top(held, weights, vectors=vectors)
    print(f"calibration error of the first quotation {_calibration(probabilities, labels):.3f}")
    print("threshold  answered   right of these   answered without an answer there")
    for threshold in (0.3, 0.4, 0.5, 0.6, 0.7):
        print(f"{threshold:9.1f}" + _line(held, weights, threshold, vectors=vectors))


def _training(
    cases: Sequence[Case], weights: NDArray[np.float64], *, vectors: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rows, labels = [], []
    for case in cases:
        features = case.rows(vectors=vectors)[:, : len(weights)]
        for place in np.argsort(-(features @ weights))[:TOP]:
            rows.append(features[place])
            labels.append(float(case.right[place]))
    return np.array(rows), np.array(labels)


def _logistic(rows: NDArray[np.float64], labels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Newton's method with a little ridge."""
    weights = np.zeros(rows.shape[1])
    for _ in range(50):
        likely = 1 / (1 + np.exp(-(rows @ weights)))
        slope = rows.T @ (labels - likely) - 0.01 * weights
        curve = (rows * (likely * (1 - likely))[:, None]).T @ rows + 0.01 * np.eye(len(weights))
        weights += np.linalg.solve(curve, slope)
    return weights


def _top(
    cases: Sequence[Case], weights: NDArray[np.float64], *, vectors: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The probability of each case's first quotation, and whether it is right."""
    found = []
    for case in cases:
        scores = case.rows(vectors=vectors)[:, : len(weights)] @ weights
        best = int(np.argmax(scores))
        found.append((1 / (1 + np.exp(-scores[best])), float(case.right[best])))
    both = np.array(found)
    return both[:, 0], both[:, 1]


def _calibration(probabilities: NDArray[np.float64], labels: NDArray[np.float64], bins: int = 10) -> float:
    """Expected calibration error."""
    place = np.minimum((probabilities * bins).astype(int), bins - 1)
    gaps = [
        abs(probabilities[place == one].mean() - labels[place == one].mean()) * (place == one).mean()
        for one in range(bins)
        if (place == one).any()
    ]
    return float(sum(gaps))


def _line(cases: Sequence[Case], weights: NDArray[np.float64], threshold: float, *, vectors: bool) -> str:
    answered: Mapping[bool, list[bool]] = {True: [], False: []}
    total: Counter[bool] = Counter(case.answerable for case in cases)
    probabilities, labels = _top(cases, weights, vectors=vectors)
    for case, probability, label in zip(cases, probabilities, labels, strict=True):
        if probability >= threshold:
            answered[case.answerable].append(bool(label))
    right = sum(answered[True]) / max(1, len(answered[True]))
    return f"{len(answered[True]) / total[True]:10.0%}{right:17.0%}{len(answered[False]) / total[False]:31.0%}"


if __name__ == "__main__":
    main()
