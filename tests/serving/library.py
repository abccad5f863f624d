"""A library in a folder: `bundles.jsonl` has one release a line, `aliases.json` moves while servers run."""

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from inference.errors import ModelNotFound
from inference.ports import Arm, Bundle
from inference.serving.child import told, understood
from inference.signature import Column, DataType, Signature


class FolderLibrary:
    """`inference.ports.Library`, and a `Split` by `split.json`: shares of arms by model."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: tuple[int, int] = (0, 0)
        self._looked = 0.0
        self._split: dict[str, dict[str, Any]] = {}
        self._bundles: dict[tuple[str, int], Bundle] = {}
        self._aliases: dict[str, dict[str, int]] = {}

    def names(self) -> tuple[str, ...]:
        self._look()
        return tuple(sorted({name for name, _ in self._bundles}))

    def versions(self, model: str) -> tuple[int, ...]:
        self._look()
        found = tuple(sorted(version for name, version in self._bundles if name == model))
        if not found:
            raise ModelNotFound(f"The model '{model}' does not exist", param="model")
        return found

    def bundle(self, model: str, version: int | None = None, alias: str | None = None) -> Bundle:
        versions = self.versions(model)
        aliases = self._aliases.get(model, {})
        wanted = aliases.get(alias) if alias is not None else version
        if alias is None and version is None:
            wanted = aliases.get("champion", versions[-1])
        if wanted not in versions:
            raise ModelNotFound(f"The model '{model}' has no version {alias or version}", param="version")
        return self._bundles[model, wanted]

    def choose(self, model: str, unit: str) -> Arm | None:
        self._look()
        said = self._split.get(model)
        if said is None:
            return None
        first = int(hashlib.sha256(unit.encode()).hexdigest()[:8], 16) / 2**32 < said["share"]
        version, name = (said["challenger"], "challenger") if first else (said["champion"], "champion")
        return Arm(version, name, "r1", tuple(said.get("shadows", ())))

    def _look(self) -> None:
        if time.monotonic() - self._looked < 0.02:
            return
        self._looked = time.monotonic()
        split = self._folder / "split.json"
        self._split = json.loads(split.read_text()) if split.is_file() else {}
        bundles, aliases = self._folder / "bundles.jsonl", self._folder / "aliases.json"
        seen = bundles.stat().st_mtime_ns, aliases.stat().st_mtime_ns if aliases.is_file() else 0
        if seen != self._seen:
            self._seen = seen
            every = [understood(line.encode()) for line in bundles.read_text().splitlines()]
            self._bundles = {(bundle.model, bundle.version): bundle for bundle in every}
            self._aliases = json.loads(aliases.read_text()) if aliases.is_file() else {}


def write(folder: Path, bundles: Iterable[Bundle]) -> None:
    (folder / "bundles.jsonl").write_text("\n".join(told(bundle).decode() for bundle in bundles))


def point(folder: Path, aliases: Mapping[str, Mapping[str, int]]) -> None:
    """Moves every alias at once."""
    fresh = folder / "aliases.new"
    fresh.write_text(json.dumps(aliases))
    fresh.rename(folder / "aliases.json")


def python(
    model: str, version: int = 1, *, datatype: DataType = "FP64", runtime: str = "python", **metadata: Any
) -> Bundle:
    """A model of `tests.serving.runtime.Python`: x in, y out."""
    column = Column("x", datatype, (metadata.pop("rows", -1),))
    signature = Signature((column,), (Column("y", datatype),))
    digest = hashlib.sha256(f"{model}{version}{metadata}".encode()).hexdigest()
    return Bundle(model, version, runtime, digest, Path("/nowhere/model.py"), signature, metadata)
