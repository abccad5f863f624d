"""How often a cache by meaning answers, and how often rightly: on pairs of questions, by similarity alone and with the second check.

    python -m benchmarks.semantic_cache [--write]      (make bench-cache ARGS=…)

The pairs are in question_pairs.txt. Every number follows from them and from the embedded model: the same on any machine.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks import report
from benchmarks.question_pairs import KINDS, Pair, every, held_out
from embedding import bundled
from embedding.engine import Engine
from gateway.cache.facts import agree, facts
from gateway.cache.precision import wilson
from gateway.settings import SemanticSpec

if TYPE_CHECKING:
    from embedding.model import Model

MARKS = ("<!-- semantic cache: written by make bench-cache ARGS=--write -->", "<!-- semantic cache: end -->")
PLAIN = (0.8, 0.9, 0.95)
CHECKED = (0.8, 0.85, 0.9, 0.95)


class Row(NamedTuple):
    """What a rule answers of all pairs. `wrong` by kind of the near miss."""

    threshold: float
    checked: bool
    right: int
    same: int
    wrong: Mapping[str, int]

    @property
    def precision(self) -> float:
        """Of what is answered; 1 where nothing is."""
        answered = self.right + sum(self.wrong.values())
        return self.right / answered if answered else 1.0

    @property
    def hit_rate(self) -> float:
        """Of the paraphrases."""
        return self.right / self.same


async def vectors(open_model: "Callable[[], Model]", pairs: Iterable[Pair]) -> dict[str, Any]:
    """Each text's vector, of length 1."""
    texts = sorted({text for pair in pairs for text in (pair.one, pair.other)})
    engine = Engine(bundled.MINILM, open_model)
    try:
        embedded = await engine.embed(texts)
    finally:
        await engine.close()
    return dict(zip(texts, embedded.vectors, strict=True))


def rows(pairs: Sequence[Pair], known: Mapping[str, Any], thresholds: Sequence[float], *, checked: bool) -> list[Row]:
    similar = [float(known[pair.one] @ known[pair.other]) for pair in pairs]
    passes = [not checked or agree(facts(pair.one), facts(pair.other)) for pair in pairs]
    made = []
    for threshold in thresholds:
        given = [
            pair for pair, near, passed in zip(pairs, similar, passes, strict=True) if near >= threshold and passed
        ]
        wrong = {kind: sum(pair.kind == kind for pair in given) for kind in KINDS.values() if kind != "paraphrase"}
        right = sum(pair.same for pair in given)
        made.append(Row(threshold, checked, right, sum(pair.same for pair in pairs), wrong))
    return made


def page(known: Mapping[str, Any]) -> str:
    default, pairs, apart = SemanticSpec().threshold, every(), held_out()
    count, same = len(pairs), sum(pair.same for pair in pairs)
    origin = (
        f"`make bench-cache`: {count} pairs of questions ([question_pairs.txt](question_pairs.txt)), {same} of them the same in other "
        f"words and {count - same} near misses, with the embedded model (all-MiniLM-L6-v2). *Precision* is the share of right answers "
        "among those given, with its 95 % interval; *hit rate* the share of the paraphrases that are answered. The other columns count "
        f"wrong answers by what sets the questions apart. The default is the second check at {default}."
    )
    parts = [
        "## Cache by meaning",
        origin,
        _table([*rows(pairs, known, PLAIN, checked=False), *rows(pairs, known, CHECKED, checked=True)]),
        "The half of the pairs that the rules were not written by:",
        _table([*rows(apart, known, PLAIN, checked=False), *rows(apart, known, (default,), checked=True)]),
    ]
    return "\n\n".join(parts)


def _table(some: Sequence[Row]) -> str:
    kinds = [kind for kind in KINDS.values() if kind != "paraphrase"]
    body = []
    for row in some:
        answered = row.right + sum(row.wrong.values())
        low, high = wilson(row.right, answered)
        rule = f"similarity ≥ {row.threshold}" + (" and second check" if row.checked else "")
        figures = (f"**{row.precision:.3f}**", f"{low:.3f} to {high:.3f}", f"{row.hit_rate:.2f}")
        body.append((rule, *figures, *(str(row.wrong[kind]) for kind in kinds)))
    return report.table(("rule", "precision", "interval", "hit rate", *kinds), body)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="make bench-cache ARGS=…", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--write", action="store_true", help="renew the section in RESULTS.md")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        known = asyncio.run(vectors(bundled.opener(Path(folder), threads=1), every()))
    made = page(known)
    print(made)
    if options.write:
        report.write_section(Path(__file__).parent / "RESULTS.md", made, MARKS)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
