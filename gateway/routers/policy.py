"""Which model a router sends a call to, by what its classifier made of the question; and which routers lead nowhere. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

# What a model that is a router says of itself; everything else is said by those that answer.
OWN: Final = frozenset({"name", "aliases", "groups", "affinity", "guards", "router"})
FALLBACKS: Final = ("fallbacks", "context_fallbacks", "content_fallbacks")

Spec = Mapping[str, Any]
Place = tuple[str | int, ...]


class Router(msgspec.Struct, frozen=True):
    """`labels` are the classifier's, each with a model. `otherwise`: for what has no label of `threshold`, or not in `timeout_s`."""

    classifier: str
    labels: Mapping[str, str]
    otherwise: str
    threshold: float
    timeout_s: float

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.labels.values(), self.otherwise)))


def chosen(router: Router, said: Mapping[str, float]) -> tuple[str, str]:
    """The model for the likeliest label, and why it is that one. `said`: the probability of each label."""
    label = max(said, key=lambda one: said[one], default="")
    why = f"{label} {said.get(label, 0.0):.3f}"
    if not said.get(label, 0.0) >= router.threshold:  # not a number is not sure, either
        return router.otherwise, f"otherwise ({why})"
    model = router.labels.get(label)
    return (router.otherwise, f"otherwise ({why}, which has no model)") if model is None else (model, why)


def complaints(model: Spec, every: Iterable[Spec]) -> Iterator[tuple[Place, str]]:
    """What is wrong with a model because it is a router, or falls back on one: where, and what. Specifications as in the file."""
    known = _by_name(every)
    router = model.get("router")
    if not isinstance(router, Mapping):
        for place, name in _fallbacks(model):
            if _is_router(_found(known, name)):
                yield place, f'"{name}" is a router, which cannot stand in for a model: name one of its models'
        return
    beside = sorted(field for field, value in model.items() if value and field not in OWN)
    if beside:
        yield ("router",), f"a router has no {', '.join(beside)}: that is for the models that it leads to"
    for place, name in led_to(router):
        found = _found(known, name)
        if found is None:
            yield place, f'there is no model "{name}"'
        elif _is_router(found):
            yield place, f'"{name}" is a router: a router leads to models that answer'


def led_to(router: Spec) -> Iterator[tuple[Place, str]]:
    """The models that a router names, and where."""
    labels = router.get("labels")
    for label, name in labels.items() if isinstance(labels, Mapping) else ():
        if isinstance(name, str):
            yield ("router", "labels", str(label)), name
    if isinstance(router.get("otherwise"), str):
        yield ("router", "otherwise"), router["otherwise"]


def names_of(model: Spec) -> frozenset[str]:
    """Its own and its aliases."""
    listed = model.get("aliases")
    aliases = listed if isinstance(listed, list | tuple) else ()
    return frozenset(name for name in (model.get("name"), *aliases) if isinstance(name, str))


def _by_name(every: Iterable[Spec]) -> dict[str, Spec]:
    made: dict[str, Spec] = {}
    for model in every:
        for name in names_of(model):
            made.setdefault(name, model)
    return made


def _found(known: Mapping[str, Spec], name: str) -> Spec | None:
    """As the catalogue finds it: the name itself, or the longest beginning that ends in `*`."""
    if name in known:
        return known[name]
    wild = [one for one in known if one.endswith("*") and name.startswith(one[:-1]) and len(name) >= len(one)]
    return known[max(wild, key=len)] if wild else None


def _is_router(model: Spec | None) -> bool:
    return model is not None and bool(model.get("router"))


def _fallbacks(model: Spec) -> Iterator[tuple[Place, str]]:
    for field in FALLBACKS:
        listed = model.get(field)
        for at, name in enumerate(listed if isinstance(listed, list | tuple) else ()):
            if isinstance(name, str):
                yield (field, at), name
