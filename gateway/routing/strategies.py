"""The strategies: each puts the deployments of one order into the order to try them, and says why in a few words.

A weight of 0 is a reserve: it takes no share and stands last.
"""

from collections.abc import Callable, Mapping, Sequence
from math import ceil
from typing import Final, Protocol

from gateway.catalog import Deployment, Strategy
from gateway.keys import Key
from gateway.pricing import cost
from gateway.routing.asked import Asked
from gateway.routing.loads import Load
from gateway.routing.rendezvous import ranked
from gateway.tariffs import Price
from gateway.usage import of_tokens

BOUND: Final = 1.25  # times its fair share is what a deployment takes of calls that hashing wants there
USUAL_TOKENS: Final = 100.0  # of an answer, before any was seen

Random = Callable[[], float]
Ordered = tuple[list[Deployment], str]


class LoadView(Protocol):
    """What strategies read of deployments' load. `gateway.routing.loads.Loads` is one, a simulation another."""

    def of(self, deployment: Deployment) -> Load: ...

    def used(self, deployment: Deployment) -> float: ...

    def fits(self, deployment: Deployment, tokens: int, key: Key | None = None) -> bool: ...

    def seconds(self, deployment: Deployment, tokens: float, *, stream: bool) -> float | None: ...

    def price(self, deployment: Deployment, wild: str) -> Price | None: ...


Chooser = Callable[[list[Deployment], LoadView, Asked, Random], Ordered]


def weighted(tier: list[Deployment], view: LoadView, asked: Asked, random: Random) -> Ordered:  # noqa: ARG001 — one shape for all
    """Drawn by weight, without replacement."""
    drawn = draw(tier, random)
    return drawn, f"{drawn[0].id} of {len(tier)}"


def in_order(tier: list[Deployment], view: LoadView, asked: Asked, random: Random) -> Ordered:  # noqa: ARG001 — one shape for all
    """As they are listed."""
    return tier, f"{tier[0].id} is first"


def least_busy(tier: list[Deployment], view: LoadView, asked: Asked, random: Random) -> Ordered:  # noqa: ARG001 — one shape for all
    """The fewest calls in flight for its weight, other gateways' and the engine's queue included."""
    return _least(draw(tier, random), [_busy(view.of(one), one) for one in tier], tier, lambda busy: f"{busy:.3g}")


def latency(tier: list[Deployment], view: LoadView, asked: Asked, random: Random) -> Ordered:
    """The better of two that were drawn by weight: power of two choices, on what the calls there take and how many there are.

    Two and not the best of all, or everybody would go to the same one until it is slow (Mitzenmacher, 1996).
    """
    drawn = draw(tier, random)
    if len(drawn) == 1:
        return drawn, f"{drawn[0].id} alone"
    waits = {one.id: _wait(view, one, asked) for one in drawn}
    if waits[drawn[1].id] < waits[drawn[0].id]:
        drawn[0], drawn[1] = drawn[1], drawn[0]
    first, second = drawn[0].id, drawn[1].id
    rest = sorted(drawn[1:], key=lambda one: waits[one.id])
    return [drawn[0], *rest], f"{first} {waits[first] * 1000:.0f}ms < {second} {waits[second] * 1000:.0f}ms"


def cheapest(tier: list[Deployment], view: LoadView, asked: Asked, random: Random) -> Ordered:
    """The lowest price of this call, as it is likely to be; what has no known price stands last."""
    drawn = draw(tier, random)
    usage = of_tokens(asked.prompt_tokens, asked.output_tokens)
    prices = [view.price(one, asked.wild) for one in tier]
    costs = [float("inf") if price is None else cost(usage, price) / 1e9 for price in prices]
    return _least(drawn, costs, tier, lambda usd: "unknown" if usd == float("inf") else f"${usd:.6f}")


def headroom(tier: list[Deployment], view: LoadView, asked: Asked, random: Random) -> Ordered:  # noqa: ARG001 — one shape for all
    """The smallest used part of its limits, whichever is nearest to its end."""
    return _least(draw(tier, random), [view.used(one) for one in tier], tier, lambda used: f"{used:.0%}")


def prefix(tier: list[Deployment], view: LoadView, asked: Asked, random: Random) -> Ordered:
    """Calls that begin alike go to the same place, which still has what it made of the beginning; but nobody takes much more than
    its share (consistent hashing with bounded loads; Mirrokni, Thorup and Zadimoghaddam, 2016)."""
    key = asked.lead()
    if key is None:
        return least_busy(tier, view, asked, random)
    places = ranked(key, tier, lambda one: (view.of(one).fingerprint, one.weight or 1.0))
    loads = {one.id: view.of(one) for one in places}
    pressures = {id_: load.depth * load.strain for id_, load in loads.items()}
    share = (sum(pressures.values()) + 1) * BOUND / sum(one.weight or 1.0 for one in places)
    roomy = [one for one in places if pressures[one.id] + 1 <= max(1.0, ceil(share * (one.weight or 1.0)))]
    crowded = sorted((one for one in places if one not in roomy), key=lambda one: _busy(loads[one.id], one))
    if not roomy or roomy[0] is places[0]:
        return roomy + crowded, (roomy + crowded)[0].id
    return roomy + crowded, f"{roomy[0].id}, as {places[0].id} has its share ({loads[places[0].id].depth:.0f})"


STRATEGIES: Final[Mapping[Strategy, Chooser]] = {
    "weighted": weighted,
    "order": in_order,
    "least_busy": least_busy,
    "latency": latency,
    "cost": cheapest,
    "usage": headroom,
    "prefix": prefix,
}


def draw(tier: Sequence[Deployment], random: Random) -> list[Deployment]:
    """By weight, without replacement."""
    left, drawn = list(tier), []
    while len(left) > 1:
        drawn.append(left.pop(_pick(left, random())))
    return drawn + left


def _pick(tier: list[Deployment], share: float) -> int:
    """The index that a share in [0, 1) of the tier's whole weight falls on; 0 if only reserves are left."""
    left = share * sum(deployment.weight for deployment in tier)
    for index, deployment in enumerate(tier):
        left -= deployment.weight
        if left < 0:
            return index
    return 0


def _least(
    drawn: list[Deployment], values: Sequence[float], tier: Sequence[Deployment], shown: Callable[[float], str]
) -> Ordered:
    """By value; equals stay as they were drawn."""
    by_id = {one.id: value for one, value in zip(tier, values, strict=True)}
    drawn.sort(key=lambda one: by_id[one.id])
    if len(drawn) == 1:
        return drawn, f"{drawn[0].id} alone"
    first, second = drawn[0].id, drawn[1].id
    sign = "<" if by_id[first] < by_id[second] else "="
    return drawn, f"{first} {shown(by_id[first])} {sign} {second} {shown(by_id[second])}"


def _busy(load: Load, deployment: Deployment) -> float:
    """Counts the call that is to be placed, so that of two idle ones the heavier is less busy."""
    return (load.depth + 1) * load.strain / (deployment.weight or 1.0)


def _wait(view: LoadView, deployment: Deployment, asked: Asked) -> float:
    """Seconds until the answer would be through. One that was never measured looks fast until it has a call."""
    load = view.of(deployment)
    tokens = min(load.tokens_each or USUAL_TOKENS, asked.output_tokens)
    seconds = view.seconds(deployment, tokens, stream=asked.stream)
    if seconds is None:
        return load.depth  # as if a call took a second
    return seconds * (load.in_flight + 1) * load.strain
