"""What goes to the process that looks at an artefact, and what comes back."""

from typing import Any, Literal

import msgspec

from inference.signature import Column, Signature

Convert = Literal["auto", "never", "require"]


class Job(msgspec.Struct, frozen=True):
    """`folder` is where the process may write. `reference` is the path of a sample; `target`: its column of labels, if it has one.

    `quantise`: by how much the INT8 step may lower accuracy (or agreement) at most; None is not to try it.
    """

    runtime: str
    path: str
    folder: str
    most_bytes: int
    pinned: bool = False
    convert: Convert = "auto"
    quantise: float | None = None
    inputs: tuple[Column, ...] | None = None
    example: Any = None
    reference: str | None = None
    target: str | None = None
    classes: tuple[Any, ...] | None = None
    peer: Any = None  # of `inference.runtimes.peers`, which is not imported for others


class Examined(msgspec.Struct, frozen=True):
    """`path` is what is to be served, in the runtime that it is for. `source_runtime`: what was given turned out to be."""

    runtime: str
    source_runtime: str
    path: str
    signature: Signature
    facts: dict[str, Any]
    profile: dict[str, Any] | None


class Refusal(msgspec.Struct, frozen=True):
    """An InferenceError, on its way."""

    kind: str
    message: str
    param: str | None
    code: str | None


class Outcome(msgspec.Struct, frozen=True):
    examined: Examined | None = None
    refusal: Refusal | None = None
