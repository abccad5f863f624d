"""What `penstock/rerank` is worth, and the constants of `retrieval.reranking.weighing`: `python -m benchmarks.reranking`.

The half of the questions about manuals that `make bench-retrieval ARGS=--tune` chooses by fits the weights: those under which something
that answers is likeliest to come first of what a hybrid search found (a softmax over its passages). The table is about the other half.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from benchmarks.finding import CALLER, Kept, Manuals, manuals_in, tuning
from benchmarks.manual_sources import Question as Asked
from retrieval.asking import Question
from retrieval.evaluation.intervals import difference
from retrieval.evaluation.measures import measure, ordered
from retrieval.inquiry import Inquiry
from retrieval.reranking.likeness import Text, compared
from retrieval.reranking.reranker import MOST_COMPARED
from retrieval.reranking.weighing import spread

CANDIDATES = 50
RIDGE = 5.0
COMMON = ("words", "pairs", "near", "length")
# Each by what is known without vectors, then those that come first of them with meaning as well.
FITTED: Mapping[str, tuple[Sequence[str], str]] = {
    "WORDED": (COMMON, "MEANT"),
    "FOUND": ((*COMMON, "prior"), "FOUND_AND_MEANT"),
}

Numbers = NDArray[np.float64]


class Case(msgspec.Struct):
    """One question, and what was found for it in the order of the search. `columns`: a number for each passage."""

    question: Asked
    pages: Sequence[str]
    excerpts: Sequence[str]
    columns: dict[str, Numbers]

    @property
    def right(self) -> NDArray[np.bool_]:
        return np.array([page in self.question.pages for page in self.pages])

    def rows(self, names: Sequence[str]) -> Numbers:
        return np.stack([self.columns[name] for name in names], axis=1)

    def ndcg(self, scores: Numbers) -> float:
        best = [self.pages[at] for at in np.argsort(-scores, kind="stable")]
        return measure("ndcg@10", ordered(best), dict.fromkeys(self.question.pages, 1))

    def first(self, scores: Numbers) -> "Case":
        """Those that the reranker compares by meaning."""
        best = np.argsort(-scores, kind="stable")[:MOST_COMPARED]
        columns = {name: column[best] for name, column in self.columns.items()}
        return Case(self.question, [self.pages[at] for at in best], [self.excerpts[at] for at in best], columns)


async def case(inquiry: Inquiry, all_: Manuals, question: Asked) -> Case:
    found = (await inquiry.run(CALLER, all_.collection, Question((question.text,), CANDIDATES))).results
    texts = ["\n".join((*each.passage.heading, each.passage.text)) for each in found]
    alike = compared(question.text, [Text(text) for text in texts])
    columns = {name: np.array([getattr(each, name) for each in alike]) for name in COMMON}
    columns["prior"] = np.array(spread([each.score for each in found]))
    return Case(question, [each.document.source_id for each in found], [each.excerpt for each in alike], columns)


async def with_meaning(cases: Sequence[Case], kept: Kept) -> None:
    await kept.of([excerpt for each in cases for excerpt in each.excerpts])  # all at once: they are sorted by length
    for each in cases:
        asked, *vectors = await kept.of([each.question.text, *each.excerpts])
        each.columns["similar"] = np.array([float(vector @ asked) for vector in vectors])


def fit(cases: Sequence[Case], names: Sequence[str]) -> Numbers:
    """Weights, the last of them the bias: the order first, then how likely each is by itself (Platt)."""
    every = np.concatenate([each.rows(names) for each in cases])
    usual, spread_ = every.mean(axis=0), every.std(axis=0) + 1e-9
    sets = [((each.rows(names) - usual) / spread_, each.right) for each in cases if each.right.any()]

    def loss(weights: Numbers) -> tuple[float, Numbers]:
        total, slope = RIDGE * float(weights @ weights), 2 * RIDGE * weights
        for rows, right in sets:
            scores = rows @ weights
            likely = np.exp(scores - scores.max())
            likely /= likely.sum()
            share = likely[right].sum()
            total -= float(np.log(share))
            slope -= rows.T @ (np.where(right, likely / share, 0.0) - likely)
        return total, slope

    weights = minimize(loss, np.zeros(len(names)), jac=True).x
    scores = ((every - usual) / spread_) @ weights
    labels = np.concatenate([each.right for each in cases]).astype(float)

    def surprise(line: Numbers) -> float:
        return float(np.logaddexp(0, line[0] * scores + line[1]).sum() - labels @ (line[0] * scores + line[1]))

    scale, offset = minimize(surprise, np.array([1.0, 0.0])).x
    plain = scale * weights / spread_
    return np.array([*plain, offset - float(plain @ usual)])


async def report(cases: Sequence[Case], kept: Kept) -> str:
    fitted, held = ([each for each in cases if tuning(each.question) is half] for half in (True, False))
    before = [each.ndcg(each.columns["prior"]) for each in held]
    lines = [f"hybrid: nDCG@10 {np.mean(before):.4f} on {len(held)} questions that nothing is fitted to"]

    def told(title: str, names: Sequence[str], weights: Numbers, known: Sequence[Case], asked: Sequence[Case]) -> None:
        after, seen = ([each.ndcg(each.rows(names) @ weights[:-1]) for each in some] for some in (asked, known))
        gain = difference(before, after)
        constants = ", ".join(f"{name}={weight:.2f}" for name, weight in zip((*names, "bias"), weights, strict=True))
        lines.append(f"{title}: {constants}")
        lines.append(f"  nDCG@10 {np.mean(after):.4f}, {gain.value:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})")
        lines.append(f"  and {np.mean(seen):.4f} on those that it is fitted to")

    for title, (names, second) in FITTED.items():
        weights = fit(fitted, names)
        told(title, names, weights, fitted, held)
        first = {
            half: [each.first(each.rows(names) @ weights[:-1]) for each in some]
            for half, some in ((True, fitted), (False, held))
        }
        await with_meaning([*first[True], *first[False]], kept)
        told(second, (*names, "similar"), fit(first[True], (*names, "similar")), first[True], first[False])
    return "\n".join(lines)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=3000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        async with manuals_in(Path(folder), arguments.documents) as all_:
            inquiry = Inquiry(all_.database, all_.search, None, None)
            print(await report([await case(inquiry, all_, each) for each in all_.questions], all_.kept))


if __name__ == "__main__":
    asyncio.run(main())
