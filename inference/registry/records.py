"""What the registry holds, as it is read: models, versions, aliases, approvals."""

from collections.abc import Mapping
from typing import Any

import msgspec

from inference.signature import Signature

Json = Mapping[str, Any]


class Gate(msgspec.Struct, frozen=True):
    """What an alias asks for before it is moved: `approvals` by as many people, each with one of `roles`."""

    approvals: int
    roles: tuple[str, ...] = ("platform_admin",)


class Model(msgspec.Struct, frozen=True):
    """`gates` by alias. `newest`: the last version number that was given away. Times are Unix seconds."""

    name: str
    description: str | None
    tags: Mapping[str, str]
    gates: Mapping[str, Gate]
    newest: int
    revision: int
    created_at: float
    updated_at: float


class Source(msgspec.Struct, frozen=True):
    """What was given: kept beside what is served where a model was converted, so that the one can be made from the other again.

    `filename` is what its owner calls it; `uri`, where it came from if not from a form, as `models:/fraud@champion`.
    """

    runtime: str
    digest: str
    bytes: int
    filename: str
    uri: str | None = None


class NewVersion(msgspec.Struct, frozen=True):
    """`facts`: what was learnt of the artefact (task, classes, conversion); `lineage`: where it comes from, in its owner's words."""

    runtime: str
    digest: str
    bytes: int
    source: Source
    signature: Signature
    facts: Json
    lineage: Json
    profile: Json | None
    bundle: str
    description: str | None = None
    tags: Mapping[str, str] = {}


class Version(NewVersion, frozen=True, kw_only=True):
    """`archived_at`: since when it is not served any more. `profile` is only read where it is asked for."""

    model: str
    version: int
    created_by: str
    created_at: float
    archived_at: float | None
    profiled: bool


class Alias(msgspec.Struct, frozen=True):
    model: str
    alias: str
    version: int
    set_by: str
    set_at: float


class Approval(msgspec.Struct, frozen=True):
    id: str
    model: str
    version: int
    alias: str
    actor: str
    role: str
    comment: str | None
    at: float
