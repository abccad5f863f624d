"""What can be served, in memory: `Library` over one immutable state of the registry."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import final

from sqlalchemy import Connection

from inference.errors import ModelNotFound
from inference.features import view_store
from inference.features.view import FeatureView
from inference.ports import Bundle
from inference.registry import alias_store, version_store
from inference.registry.artefacts import Artefacts
from inference.registry.names import CHAMPION
from inference.registry.records import Version


@dataclass(frozen=True, slots=True)
class Shelf:
    """One model: its bundles by version, oldest first, and where its aliases lead. `revision`: as of when.

    `usual` answers who names no version: the champion's; without one, the newest that no other alias claims, since a challenger must not
    come to serve everybody because nobody has named a champion; else the newest.
    """

    revision: int
    bundles: Mapping[int, Bundle]
    aliases: Mapping[str, int]
    usual: int | None


@final
@dataclass(frozen=True, slots=True)
class Catalogue:
    """One state of the registry, and of the feature views that its models name. `seen`: which of these, see `view_store.state`."""

    shelves: Mapping[str, Shelf] = field(default_factory=dict)
    views: Mapping[str, FeatureView] = field(default_factory=dict)
    seen: tuple[int, int] = (0, 0)

    def names(self) -> tuple[str, ...]:
        """Of what can be served."""
        return tuple(name for name, shelf in self.shelves.items() if shelf.bundles)

    def versions(self, model: str) -> tuple[int, ...]:
        """Raises ModelNotFound."""
        return tuple(self._shelf(model).bundles)

    def aliases(self, model: str) -> Mapping[str, int]:
        """Where each alias leads. Raises ModelNotFound."""
        return self._shelf(model).aliases

    def bundle(self, model: str, version: int | None = None, alias: str | None = None) -> Bundle:
        """As `inference.ports.Library`. Raises ModelNotFound."""
        shelf = self._shelf(model)
        if version is None:
            version = shelf.usual if alias is None else shelf.aliases.get(alias)
            if version is None:
                raise ModelNotFound(f"The model '{model}' has no alias '{alias}'", param="alias")
        found = shelf.bundles.get(version)
        if found is None:
            raise ModelNotFound(f"The model '{model}' has no version {version}", param="version")
        return found

    def _shelf(self, model: str) -> Shelf:
        shelf = self.shelves.get(model)
        if shelf is None or not shelf.bundles:
            raise ModelNotFound(f"The model '{model}' does not exist", param="model")
        return shelf


EMPTY = Catalogue()


@final
class CurrentLibrary:
    """`inference.ports.Library`: each question is answered by the state in force at that moment."""

    def __init__(self, current: Callable[[], Catalogue]) -> None:
        self._current = current

    @property
    def catalogue(self) -> Catalogue:
        """For who asks more than one question of the same state."""
        return self._current()

    def names(self) -> tuple[str, ...]:
        return self._current().names()

    def versions(self, model: str) -> tuple[int, ...]:
        """Raises ModelNotFound."""
        return self._current().versions(model)

    def bundle(self, model: str, version: int | None = None, alias: str | None = None) -> Bundle:
        """Raises ModelNotFound."""
        return self._current().bundle(model, version, alias)


def load(tx: Connection, artefacts: Artefacts, known: Catalogue = EMPTY) -> Catalogue:
    """The state as of the transaction's moment. Of models, only those that changed since `known` are read; the same object if none did."""
    revisions, seen = version_store.revisions(tx), view_store.state(tx)
    views = known.views
    if seen != known.seen:
        views = MappingProxyType({view.name: view for view in view_store.every(tx)})
    if views is known.views and revisions == {name: shelf.revision for name, shelf in known.shelves.items()}:
        return known
    shelves = {}
    for name in sorted(revisions):
        before = known.shelves.get(name)
        if before is None or before.revision != revisions[name]:
            before = _shelf(tx, artefacts, name, revisions[name])
        shelves[name] = before
    return Catalogue(MappingProxyType(shelves), views, seen)


def _shelf(tx: Connection, artefacts: Artefacts, name: str, revision: int) -> Shelf:
    alive = [each for each in version_store.every_version(tx, name) if each.archived_at is None]
    bundles = {each.version: bundle_of(each, artefacts) for each in alive}
    aliases = {each.alias: each.version for each in alias_store.listed(tx, name)}
    return Shelf(revision, MappingProxyType(bundles), MappingProxyType(aliases), _usual(bundles, aliases))


def _usual(bundles: Mapping[int, Bundle], aliases: Mapping[str, int]) -> int | None:
    if CHAMPION in aliases:
        return aliases[CHAMPION]
    free = [version for version in bundles if version not in aliases.values()]
    return max(free or bundles, default=None)


def bundle_of(version: Version, artefacts: Artefacts) -> Bundle:
    metadata = {
        **version.facts,
        "bundle": version.bundle,
        "source_runtime": version.source.runtime,
        "source_uri": version.source.uri,
        "tags": dict(version.tags),
        "feature_view": version.lineage.get("feature_view"),
    }
    return Bundle(
        model=version.model,
        version=version.version,
        runtime=version.runtime,
        digest=version.digest,
        artifact=artefacts.path(version.digest),
        signature=version.signature,
        metadata=MappingProxyType(metadata),
    )
