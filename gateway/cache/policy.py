"""What may be answered from the cache, for whom, and for how long: values, compiled with the snapshot that a request holds."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:  # a model has a policy, and a policy knows only what tells a model from another
    from gateway.catalog import Deployment

Scope = Literal["user", "key", "team", "org"]


class Exact(msgspec.Struct, frozen=True):
    """`sampled`: also answers whose words are drawn (a temperature above 0). `single_flight`: equal calls at the same time are one."""

    ttl_s: float = 3600.0
    sampled: bool = True
    single_flight: bool = True


class CrossEncoder(msgspec.Struct, frozen=True):
    """A model that reranks: which questions it gives at least `threshold`, and how long it may take."""

    model: str
    threshold: float = 0.5
    timeout_s: float = 1.0


class Semantic(msgspec.Struct, frozen=True):
    """Answers to the same question in other words. `threshold`: the least cosine, which rises where fewer than `precision` are right.

    `recheck`: the share of hits that is asked again and judged, by the model `judge` or by comparing both answers. `max_entries`: questions
    of one partition. `cross_encoder`: who else has to agree.
    """

    threshold: float = 0.85
    ttl_s: float = 3600.0
    precision: float = 0.99
    recheck: float = 0.05
    judge: str | None = None
    max_entries: int = 10_000
    cross_encoder: CrossEncoder | None = None


class Policy(msgspec.Struct, frozen=True):
    """Of one model. `scope` is who shares entries; `version` changes with whatever the model's name leads to.

    `conditional`: the deployments are not the same for every request, so that tags, metadata and regions are part of the key.
    """

    exact: Exact
    scope: Scope
    version: bytes
    conditional: bool = False
    semantic: Semantic | None = None


def version_of(name: str, deployments: "Sequence[Deployment]") -> bytes:
    """Changes with what answers: provider, address and model of each deployment; not with weights, limits, keys or prices."""
    told: list[Any] = [name]
    told += [
        (one.id, one.provider, one.base_url, one.target, one.api_version, one.responses, one.region)
        for one in deployments
    ]
    return hashlib.blake2b(msgspec.msgpack.encode(told), digest_size=16).digest()


def is_conditional(deployments: "Sequence[Deployment]") -> bool:
    return any(one.when is not None or one.region is not None for one in deployments)
