"""Limits of scopes whose tokens the active keys share: who may hold more, and what is noted of it.

Calls that no such limit binds are never here.
"""

from typing import NamedTuple

from gateway.admission.fair_minute import FairMinute
from gateway.errors import RateLimited
from gateway.keys import Key
from gateway.need import Need
from gateway.scopes import Limit
from gateway.shares import Hold, Share, amounts_of

FULL_S = 5.0  # until a slot of the minute has passed, in which what others have above their shares becomes less


class Part(NamedTuple):
    """What a call holds of one such limit."""

    fair: FairMinute
    counts: int
    held: int


def check(share: Share, key: Key, amount: int, unix: float) -> None:
    """Raises RateLimited where a key has its share of a limit, and another one waits for its own."""
    fair, rule = share.fair, share.bound.rule
    assert fair is not None
    assert isinstance(rule, Limit)
    weight = key.standing.weight
    if fair.allows(unix, rule.limit / share.sharers, key.id, weight, amount):
        return
    fair.turned_away(unix, key.id, weight, FULL_S)
    scope = share.bound.scope
    raise RateLimited(
        f"This key has its share of the {rule.limit} {rule.measure} of {scope.kind} '{scope.id}', which others are waiting for",
        headers=(("retry-after", f"{FULL_S:.0f}"),),
    )


def parts(hold: Hold) -> tuple[Part, ...]:
    return tuple([Part(share.fair, share.counts, held) for share, held in hold if share.fair is not None])


def began(own: tuple[Part, ...], key: Key, unix: float) -> None:
    for part in own:
        part.fair.use(unix, key.id, key.standing.weight, part.held)


def ended(own: tuple[Part, ...], key: Key, unix: float, used: Need | None) -> None:
    """None: nothing was used."""
    amounts = None if used is None else amounts_of(used)
    for part in own:
        part.fair.correct(unix, key.id, (0 if amounts is None else amounts[part.counts]) - part.held)


def refused(hold: Hold, key: Key, unix: float, back_in_s: float) -> None:
    """The limit itself is used up: whatever becomes free is shared from now on."""
    for share, _ in hold:
        if share.fair is not None:
            share.fair.turned_away(unix, key.id, key.standing.weight, back_in_s)
