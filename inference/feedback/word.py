"""One piece of feedback."""

from typing import Any, Final

import msgspec

PAIRS: Final = "judge:pairs:"  # of who compares two answers; what he says is of the challenger's
JUDGE: Final = "judge:"  # how the source of a rollout's own judge begins; nobody else may call himself so


class Word(msgspec.Struct, frozen=True):
    """What one `source` says of what `id` names. `label` is what was true, `score` how good it was."""

    id: str
    source: str = "user"
    label: Any = None
    score: float | None = None
    comment: str | None = None
