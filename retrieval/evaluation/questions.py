"""Questions with known answers, a JSON object on each line; what a search found of them; what has to hold. Pure.

    {"query": "how do I open the gate?", "relevant": ["docs/gate.md", {"id": "file-8", "grade": 2}], "filters": {…}, "id": "q1"}

A document is named by its file id, its path, the end of its path, or its file name. `grade` is how well it answers, 1 if it is left out.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from retrieval.evaluation.comparison import Comparison
from retrieval.evaluation.measures import Ranking, ordered

Name = Annotated[str, Meta(min_length=1)]


class BadQuestions(ValueError):
    """The message names the line."""


class Graded(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: Name
    grade: Annotated[int, Meta(ge=0, le=100)] = 1


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    query: Name
    relevant: Annotated[list[Name | Graded], Meta(min_length=1)]
    filters: dict[str, Any] | None = None
    id: str = ""

    @property
    def judged(self) -> Mapping[str, int]:
        graded = [Graded(each) if isinstance(each, str) else each for each in self.relevant]
        return {each.id: each.grade for each in graded}


class Found(msgspec.Struct, frozen=True):
    """A document that was found, by every name that it has."""

    id: str
    filename: str = ""
    path: str = ""

    def named(self, judged: Iterable[str]) -> str:
        """As the judgements call it, if they do."""
        for name in judged:
            if name in (self.id, self.path, self.filename) or self.path.endswith(f"/{name}"):
                return name
        return self.id


def read(lines: Iterable[str]) -> list[Question]:
    """Raises BadQuestions."""
    questions: list[Question] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            question = msgspec.json.decode(line.encode("utf-8", "replace"), type=Question)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise BadQuestions(f"line {number}: {error}") from None
        if not any(question.judged.values()):
            raise BadQuestions(f"line {number}: no document is judged to answer: such a question cannot be measured")
        questions.append(msgspec.structs.replace(question, id=question.id or f"line {number}"))
    if not questions:
        raise BadQuestions("there are no questions in it")
    (often, count), *_ = Counter(each.id for each in questions).most_common(1)
    if count > 1:
        raise BadQuestions(f"the id {often!r} is there {count} times")
    return questions


def ranking(found: Sequence[Found], judged: Mapping[str, int]) -> Ranking:
    """Documents in the order in which they were found, each once, by the names of the judgements."""
    return ordered([each.named(judged) for each in found])


class Requirement(msgspec.Struct, frozen=True):
    """Of each search: its mean is at least `least`."""

    measure: str
    least: float


class Verdict(msgspec.Struct, frozen=True):
    what: str
    passed: bool


def verdicts(found: Comparison, required: Sequence[Requirement], *, no_worse: bool) -> list[Verdict]:
    """`no_worse`: no search is worse than the first one by more than chance."""
    made = []
    for row in found.rows:
        for each in required:
            value = row.means[each.measure].value
            made.append(Verdict(f"{row.name}: {each.measure} {value:.4f} >= {each.least:g}", value >= each.least))
        if no_worse and row.differences is not None:
            for name, gap in row.differences.items():
                fell = gap.certain and gap.value < 0
                what = f"{row.name}: {name} differs by {gap.value:+.4f} from {found.rows[0].name} (p {gap.p:.3f})"
                made.append(Verdict(what, not fell))
    return made


def percentile(values: Sequence[float], share: float) -> float:
    """By nearest rank. Raises ValueError for no values."""
    if not values:
        raise ValueError("there is nothing to take a percentile of")
    ranked = sorted(values)
    return ranked[max(0, ceil(share * len(ranked)) - 1)]
