"""What this deployment lets batches do."""

from collections.abc import Mapping
from typing import Literal

import msgspec


class BatchTerms(msgspec.Struct, frozen=True):
    """`lines` at the same time in this process; no line starts while `calls` are in flight, live ones included.

    `on_budget`: whether a batch that meets the end of a budget waits for more, or ends. `service_tiers`: what lines ask their upstream
    for, by the public name of a model, `gpt-*` for all with that start.
    """

    lines: int = 16
    calls: int = 64
    max_lines: int = 50_000
    on_budget: Literal["pause", "fail"] = "pause"
    service_tiers: Mapping[str, str] = {}

    def tier(self, model: str) -> str | None:
        found = self.service_tiers.get(model)
        if found is not None:
            return found
        starts = (name for name in self.service_tiers if name.endswith("*") and model.startswith(name[:-1]))
        longest = max(starts, key=len, default=None)
        return None if longest is None else self.service_tiers[longest]
