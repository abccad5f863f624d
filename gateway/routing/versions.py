"""Routes and prompts in versions, each with a weight: which version a caller gets, for as long as the weights stay.

A caller's version is drawn by weighted rendezvous hashing of who it is, salted with the family's name: the same in every process, other
for every family. Raising one version's weight only moves callers to it, lowering it only moves its own.
"""

from collections.abc import Mapping
from typing import Any, Generic, Literal, TypeVar

import msgspec

from gateway.routing.rendezvous import fingerprint, ranked

Sticky = Literal["key", "user", "session", "request"]


class RouteVersion(msgspec.Struct, frozen=True):
    """A route's name stands for this model; `params` replace those of the request."""

    version: int
    weight: float
    model: str
    params: Mapping[str, Any] = {}


class PromptVersion(msgspec.Struct, frozen=True):
    """Messages that come before the request's own. `params` and `model` stand in for what the request leaves out."""

    version: int
    weight: float
    messages: tuple[Mapping[str, Any], ...]
    variables: frozenset[str]
    params: Mapping[str, Any] = {}
    model: str | None = None


class RetrieverVersion(msgspec.Struct, frozen=True):
    """Where a retriever's name searches, and how: `spec` is whose searches they are to know."""

    version: int
    weight: float
    spec: Mapping[str, Any]


V = TypeVar("V", RouteVersion, PromptVersion, RetrieverVersion)


class Family(msgspec.Struct, Generic[V], frozen=True):
    """`sticky`: by what callers are told apart."""

    name: str
    sticky: Sticky
    versions: tuple[V, ...]

    def draw(self, caller: str) -> V | None:
        """None if no version has a weight."""
        key = fingerprint(f"{self.name}\n{caller}".encode())
        drawable = [one for one in self.versions if one.weight > 0]
        return ranked(key, drawable, _identity)[0] if drawable else None

    def numbered(self, version: int) -> V | None:
        return next((one for one in self.versions if one.version == version), None)


class Versions(msgspec.Struct, frozen=True):
    """Every family of one revision, by name. `mirrors`, by kind and name: those that copy some of their requests."""

    routes: Mapping[str, Family[RouteVersion]] = {}
    prompts: Mapping[str, Family[PromptVersion]] = {}
    mirrors: Mapping[tuple[str, str], "Mirror"] = {}


class Mirror(msgspec.Struct, frozen=True):
    """`share` of a family's requests is also made as if everybody had one other version: `versions` says so."""

    versions: Versions
    share: float


def _identity(version: RouteVersion | PromptVersion | RetrieverVersion) -> tuple[int, float]:
    return fingerprint(b"%d" % version.version), version.weight
