"""What is said of a re-embedding: what is wanted, how far it is, what was measured. Pure.

    backfilling → ready ⇄ canary → swapped → finished
         ↘ failed (→ backfilling)      ↘ rolled_back
    cancelled: from every state before `swapped`

Before the swap the collection is read in its old version, but by a canary's keys; after it in the new one, and the old one is kept up
to date until it is finished with. Whichever is not read may be `behind`: passages may lack a vector of it, and nobody reads it until none
does.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec

from retrieval.spaces import Canary, Space

State = Literal["backfilling", "ready", "canary", "swapped", "finished", "rolled_back", "failed", "cancelled"]
Mode = Literal["dense", "hybrid"]

BESIDE: Final[tuple[State, ...]] = ("backfilling", "ready", "canary", "swapped")  # both versions are written
BEFORE_SWAP: Final[tuple[State, ...]] = ("backfilling", "ready", "canary")
ENDED: Final[tuple[State, ...]] = ("finished", "rolled_back", "failed", "cancelled")


class Relevant(msgspec.Struct, frozen=True):
    """A file that answers, or with `start` and `end` a passage of it, in characters of its text."""

    id: str
    grade: int = 1
    start: int | None = None
    end: int | None = None

    @property
    def name(self) -> str:
        return self.id if self.start is None else f"{self.id}:{self.start}-{self.end}"


class Asked(msgspec.Struct, frozen=True):
    query: str
    relevant: Sequence[Relevant]


class Gate(msgspec.Struct, frozen=True):
    """Neither recall@k nor nDCG@10 may fall by more than `max_loss`, between 0 and 1, from the old version to the new one."""

    queries: Sequence[Asked]
    max_loss: float
    k: int = 10
    mode: Mode = "dense"


class Worse(msgspec.Struct, frozen=True):
    """A question that fell: its nDCG@10 in both versions."""

    query: str
    before: float
    after: float


class Verdict(msgspec.Struct, frozen=True):
    """Means over all questions, by measure."""

    passed: bool
    reason: str
    before: Mapping[str, float]
    after: Mapping[str, float]
    worst: Sequence[Worse] = ()


class Terms(msgspec.Struct, frozen=True):
    """`auto`: it is swapped as soon as it is ready, unless the gate fails. `keep_s`: so long can it be rolled back.

    `max_attempts`: after so many failures of the model in a row it is given up.
    """

    gate: Gate | None = None
    auto: bool = False
    keep_s: float = 7 * 86_400.0
    max_attempts: int = 5


class Reembedding(msgspec.Struct, frozen=True):
    """As it is kept. `payer`: the key on whose account vectors are made. Times are Unix seconds."""

    id: str
    collection_id: str
    version: int
    state: State
    reason: str | None
    behind: bool
    before: Space
    after: Space
    payer: str
    terms: Terms
    verdict: Verdict | None
    canary_share: float
    canary_keys: Sequence[str]
    cursor: int
    attempts: int
    not_before: float
    owner: str | None
    host: str | None
    seen_at: float | None
    epoch: int
    collected: bool
    created_at: float
    updated_at: float
    swapped_at: float | None
    ended_at: float | None

    @property
    def unread(self) -> Space:
        """The version that is written beside the one that all read."""
        return self.before if self.state == "swapped" else self.after

    @property
    def apart(self) -> bool:
        """Whether the two versions are of passages that are cut differently."""
        return self.before.edition != self.after.edition

    @property
    def canary(self) -> Canary:
        return Canary(self.after, self.canary_share, self.canary_keys, self.id)

    @property
    def has_canary(self) -> bool:
        """Whether some are to read it as soon as they can."""
        return self.canary_share > 0 or bool(self.canary_keys)

    @property
    def dropped(self) -> Space:
        """Of one that has ended: the version that nobody reads any more."""
        return self.before if self.state == "finished" else self.after
