"""Searches side by side over the same questions: a row for each, against the first."""

from collections.abc import Mapping, Sequence

import msgspec

from retrieval.evaluation.intervals import Difference, Mean, difference, mean
from retrieval.evaluation.measures import MEASURES, Judgements, Ranking, measure


class Row(msgspec.Struct, frozen=True):
    """One search: its means by measure, and how it differs from the first one (None for that itself)."""

    name: str
    means: Mapping[str, Mean]
    differences: Mapping[str, Difference] | None


class Comparison(msgspec.Struct, frozen=True):
    questions: int
    rows: tuple[Row, ...]

    def table(self) -> str:
        """Markdown. A star marks what differs from the first row by more than chance (p < 0.05)."""
        names = list(self.rows[0].means)
        lines = [f"| search | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
        lines += [f"| {row.name} | {' | '.join(_cell(row, name) for name in names)} |" for row in self.rows]
        return "\n".join(lines)


def compare(
    runs: Mapping[str, Mapping[str, Ranking]],
    judged: Mapping[str, Judgements],
    measures: Sequence[str] = MEASURES,
) -> Comparison:
    """`runs`: by search, then by question. What a search found nothing for counts as 0. Raises ValueError for no run or no question."""
    if not runs or not judged:
        raise ValueError("a comparison needs a search and a question")
    questions = sorted(judged)
    values = {
        run: {
            name: [measure(name, found.get(question, {}), judged[question]) for question in questions]
            for name in measures
        }
        for run, found in runs.items()
    }
    first = next(iter(runs))
    rows = tuple(
        Row(
            run,
            {name: mean(values[run][name]) for name in measures},
            None if run == first else {name: difference(values[first][name], values[run][name]) for name in measures},
        )
        for run in runs
    )
    return Comparison(len(questions), rows)


def _cell(row: Row, name: str) -> str:
    value = row.means[name]
    differs = row.differences is not None and row.differences[name].certain
    return f"{value.value:.3f}{'*' if differs else ''} ({value.low:.3f} to {value.high:.3f})"
