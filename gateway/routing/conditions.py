"""Which deployments a request may go to at all: by what they serve, its tags, its key's metadata, and where the answer has to come from."""

from gateway.catalog import Deployment, When
from gateway.kinds import Kind
from gateway.routing.asked import Asked


def admits(deployment: Deployment, asked: Asked) -> bool:
    """Whether every condition holds. A request that is bound to a region goes to no place that does not say that it lies there."""
    when = deployment.when
    if not serves(deployment, asked.kind):
        return False
    if asked.providers is not None and deployment.provider not in asked.providers:
        return False
    if asked.regions:
        region = deployment.region or (when.region if when is not None else None)
        if any(wanted != region for wanted in asked.regions):
            return False
    return when is None or _holds(when, asked)


def serves(deployment: Deployment, kind: Kind) -> bool:
    return deployment.kinds is None or kind in deployment.kinds


def _holds(when: When, asked: Asked) -> bool:
    if when.region is not None and when.region not in asked.regions:
        return False
    if when.tags and not any(tag in when.tags for tag in asked.tags):
        return False
    return all(_among(asked.metadata.get(name), values) for name, values in when.metadata)


def _among(value: object, values: tuple[object, ...]) -> bool:
    """A list in the metadata stands for any of its members. True is not 1 here."""
    given = value if isinstance(value, (list, tuple)) else (value,)
    return any(type(one) is type(other) and one == other for one in given for other in values)
