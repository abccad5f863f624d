"""In which order the deployments of a model are tried: a pure function of the model and one random number source."""

from collections.abc import Callable
from itertools import groupby

from gateway.catalog import Deployment, Model


def plan(model: Model, random: Callable[[], float]) -> tuple[Deployment, ...]:
    """Every deployment once, best first: lower `order` before higher, within one order drawn by weight without replacement.

    `random` returns floats in [0, 1). A weight of 0 takes no share and stands last in its order, as a reserve.
    """
    deployments = model.deployments
    if len(deployments) < 2:
        return deployments
    tiers = groupby(sorted(deployments, key=_order), key=_order)
    return tuple(chosen for _, tier in tiers for chosen in _draw(list(tier), random))


def _order(deployment: Deployment) -> int:
    return deployment.order


def _draw(tier: list[Deployment], random: Callable[[], float]) -> list[Deployment]:
    drawn = []
    while len(tier) > 1:
        drawn.append(tier.pop(_pick(tier, random())))
    return drawn + tier


def _pick(tier: list[Deployment], share: float) -> int:
    """The index that a share in [0, 1) of the tier's whole weight falls on; 0 if only reserves are left."""
    left = share * sum(deployment.weight for deployment in tier)
    for index, deployment in enumerate(tier):
        left -= deployment.weight
        if left < 0:
            return index
    return 0
