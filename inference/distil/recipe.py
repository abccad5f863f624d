"""What is learnt, and how good it has to be."""

from collections.abc import Mapping
from typing import Literal, TypeAlias

import msgspec

Kind: TypeAlias = Literal["classifier", "regressor"]

MARK = "distilled:"  # begins what an answer of such a model says of itself: nobody learns from those
FACTS = "distilled"  # of a version: what its model needs besides the artefact


class Recipe(msgspec.Struct, frozen=True):
    """`agreement`: the share of answers, of those it is sure enough of to give, that have to be the large model's, on unseen texts.

    `coverage`: the least share of texts that it has to be so sure of. `field`: of answers that are JSON objects, the one with the label.
    """

    kind: Kind = "classifier"
    agreement: float = 0.95
    coverage: float = 0.2
    held_out: float = 0.2
    seed: int = 7
    field: str | None = None
    least_of_a_label: int = 5


class Lesson(msgspec.Struct, frozen=True):
    """For the process that trains: `vectors` is a file of NumPy, a row for each label; `groups` has the same number for the same text."""

    vectors: str
    labels: list[str | float]
    groups: list[int]
    recipe: Recipe
    model: str


class Learnt(msgspec.Struct, frozen=True):
    """`threshold`: what its probability has to reach for an answer to be given; None where nothing is good enough.

    `metrics`: on held-out texts.
    """

    threshold: float | None
    metrics: Mapping[str, float]


class Student(msgspec.Struct, frozen=True):
    """What the facts of a version say of a distilled model. `field`: an answer is a JSON object with the label in it."""

    route: str
    kind: Kind
    embedding: str
    threshold: float
    field: str | None = None
