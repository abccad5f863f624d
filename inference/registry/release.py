"""The hash of a release bundle: model, preprocessing, feature view, signature and reference profile are one thing, or none of it is."""

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from inference.registry.records import Source
from inference.signature import Signature

_FINDINGS = frozenset({"conversion", "quantisation"})  # how it was found, with timings of that moment


def release_hash(
    *,
    runtime: str,
    digest: str,
    source: Source,
    signature: Signature,
    facts: Mapping[str, Any],
    lineage: Mapping[str, Any],
    profile: Mapping[str, Any] | None,
) -> str:
    """SHA-256 in hexadecimal over all that decides an answer or judges one later. Two registrations of the same have the same hash."""
    parts = {
        "runtime": runtime,
        "digest": digest,
        "source": source.digest,
        "signature": signature,
        "facts": {name: value for name, value in facts.items() if name not in _FINDINGS},
        "feature_view": lineage.get("feature_view"),
        "preprocessing": lineage.get("preprocessing"),
        "profile": profile,
    }
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()
