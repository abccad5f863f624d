"""A deployment's limits over all processes: the parts of them that this process has borrowed, and decides by without asking anybody.

Each limit is an account of slots in the lease store, which lends no more than there are. A call in flight has one of `parallel`; a request,
and each token, has one of its limit for as long as this process's sliding minute counts it. So over all processes no minute has more than
the limit, and whoever uses little gives back what it does not need (`gateway.leases.policy`).
"""

from typing import Final, Literal, final

import msgspec

from gateway.catalog import Limits
from gateway.scopes import deployment_limit
from gateway.shares import Hold, Share, Shares

Measured = Literal["parallel", "rpm", "tpm"]
ASK_AGAIN_S: Final = 0.2  # after the store had no more
IDLE: Final = 0.05  # of a call per sync: half a second's use, halved so often


class Used(msgspec.Struct, frozen=True):
    """What this process uses now."""

    parallel: int
    rpm: int
    tpm: int


@final
class Quota:
    """Of one deployment with these limits."""

    __slots__ = ("_denied_at", "_parts", "limits")

    def __init__(self, deployment: str, limits: Limits, shares: Shares) -> None:
        self.limits = limits
        named: tuple[tuple[Measured, int | None], ...] = (
            ("parallel", limits.parallel),
            ("rpm", limits.rpm),
            ("tpm", limits.tpm),
        )
        self._parts: dict[Measured, Share] = {
            name: shares.of(deployment_limit(deployment, name, limit), 0.0)
            for name, limit in named
            if limit is not None
        }
        self._denied_at = float("-inf")

    def lent(self, name: Measured) -> int:
        """How much of a limit this process may use."""
        return self._parts[name].lent

    def sharers(self, name: Measured) -> int:
        return self._parts[name].sharers

    def used_part(self, name: Measured) -> float:
        """Of the whole limit, by all processes, as far as is known here."""
        part = self._parts[name]
        return 1.0 - part.left / part.account.limit

    def may_ask(self, now: float) -> bool:
        """Whether the store may have more by now."""
        return now >= self._denied_at + ASK_AGAIN_S

    def denied(self, now: float) -> None:
        self._denied_at = now

    def refresh(self, used: Used) -> None:
        """What is in use is held, the rest of what is lent is free: for whoever reports and borrows."""
        for name, part in self._parts.items():
            held = getattr(used, name)
            part.free, part.held = part.lent - held, held
            if part.recent < IDLE * part.latest:
                part.recent = 0.0  # or one place would be kept for ever by who has not needed it for long

    def lacking(self, used: Used, tokens: int) -> Hold:
        """What one more call needs and this process has not borrowed."""
        self.refresh(used)
        return tuple(
            [(part, need) for name, part in self._parts.items() if part.free < (need := self._need(name, tokens))]
        )

    def note(self, tokens: int) -> None:
        """A call begins: how fast a limit is used is what the next slice is made by."""
        for name, part in self._parts.items():
            part.latest = self._need(name, tokens)
            part.recent += part.latest

    def cut_off(self) -> None:
        """The store does not answer: this process goes on with an even part of each limit. It is told when it is back."""
        for part in self._parts.values():
            part.free += max(0, max(1, part.account.limit // part.sharers) - part.lent)

    def close(self) -> None:
        """The deployment is gone, or has other limits."""
        for part in self._parts.values():
            part.free = part.held = 0

    def _need(self, name: Measured, tokens: int) -> int:
        """A call that is larger than a whole minute has it to itself."""
        return min(tokens, self._parts[name].account.limit) if name == "tpm" else 1
