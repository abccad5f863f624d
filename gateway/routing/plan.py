"""In which order the deployments of a model are tried: a pure function of the model, the load, the request, and one random source."""

from collections.abc import Callable, Sequence
from itertools import groupby

import msgspec

from gateway.catalog import Deployment, Model
from gateway.routing import windows
from gateway.routing.asked import Asked
from gateway.routing.conditions import admits
from gateway.routing.rendezvous import ranked
from gateway.routing.strategies import STRATEGIES, LoadView, Ordered, Random


class Plan(msgspec.Struct, frozen=True):
    """`order`: every deployment that the request may go to, once, best first. `reason`: why that one, for people."""

    order: tuple[Deployment, ...]
    reason: str | None = None


def plan(
    model: Model,
    view: LoadView,
    asked: Asked,
    random: Callable[[], float],
    usable: Callable[[Sequence[Deployment]], Sequence[Deployment]] = tuple,
) -> Plan:
    """Lower `order` before higher; within one order by the model's strategy, and a session's own deployment first.

    `random` returns floats in [0, 1); `usable` leaves out what is not well. What is at a limit stands aside as long as anything is not.
    """
    meant = [one for one in model.deployments if admits(one, asked)]
    matching = windows.roomy(meant, asked.body, asked.request)
    well = usable(matching)
    tokens = asked.prompt_tokens + asked.output_tokens
    roomy = [one for one in well if one.limits is None or view.fits(one, tokens, asked.key)]
    candidates = roomy or well
    if len(candidates) < 2:
        return Plan(tuple(candidates), _aside(model, meant, matching, well, roomy).lstrip("; ") or None)
    session = asked.session(model.affinity)
    order: list[Deployment] = []
    reason = ""
    for _, tier in groupby(sorted(candidates, key=_order), key=_order):
        chosen, why = _tier(model, list(tier), view, asked, random, session)
        reason = reason or why
        order += chosen
    return Plan(tuple(order), reason + _aside(model, meant, matching, well, roomy))


def _tier(
    model: Model, tier: list[Deployment], view: LoadView, asked: Asked, random: Random, session: int | None
) -> Ordered:
    """One order's deployments: those with a weight, then the reserves."""
    choose = STRATEGIES[model.strategy]
    active = [one for one in tier if one.weight] or tier
    order, why = choose(active, view, asked, random)
    reason = f"{model.strategy}: {why}"
    if session is not None:
        own = ranked(session, active, lambda one: (view.of(one).fingerprint, one.weight or 1.0))[0]
        order = [own, *(one for one in order if one is not own)]
        reason = f"session: {own.id}"
    if len(active) < len(tier):
        order = order + choose([one for one in tier if not one.weight], view, asked, random)[0]
    return order, reason


def _aside(
    model: Model,
    meant: Sequence[Deployment],
    matching: Sequence[Deployment],
    well: Sequence[Deployment],
    roomy: Sequence[Deployment],
) -> str:
    """How many were left out, and why."""
    counts = (
        (len(model.deployments) - len(meant), "not meant for it"),
        (len(meant) - len(matching), "too small for the prompt"),
        (len(matching) - len(well), "unwell"),
        (len(well) - len(roomy), "at a limit"),
    )
    return "".join(f"; {count} {what}" for count, what in counts if count)


def _order(deployment: Deployment) -> int:
    return deployment.order
