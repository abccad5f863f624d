"""Finds the model of this gateway that a client of a provider's own API means: by its name here, or by the provider's."""

from collections.abc import Mapping, Sequence
from typing import final

from gateway.catalog import Catalog, Model
from gateway.keys import Key
from gateway.native.families import Family


@final
class Names:
    """What deployments call their models, gathered once for a catalogue."""

    def __init__(self) -> None:
        self._of: Catalog | None = None
        self._names: Mapping[tuple[str, str], Sequence[str]] = {}

    def find(self, catalog: Catalog, family: Family, name: str, key: Key | None) -> str:
        """The name here. Of several models behind one of the provider's, the first that the key may use; a name that nobody has stays.

        A name of a model that speaks another API gives way to the provider's.
        """
        found = catalog.find(name)
        if found is not None and _speaks(found[0], family):
            return name
        if self._of is not catalog:
            self._names, self._of = _gathered(catalog), catalog
        for provider in sorted(family.providers):
            names = self._names.get((provider, name), ())
            if names:
                return next((one for one in names if _may(key, catalog, one)), names[0])
            prefixed = f"{provider}/{name}"
            wild = catalog.find(prefixed)
            if wild is not None and _speaks(wild[0], family):
                return prefixed
        return name


def _gathered(catalog: Catalog) -> Mapping[tuple[str, str], Sequence[str]]:
    made: dict[tuple[str, str], list[str]] = {}
    for model in catalog.models.values():
        for deployment in model.deployments:
            names = made.setdefault((deployment.provider, deployment.target), [])
            if model.name not in names:
                names.append(model.name)
    return made


def _speaks(model: Model, family: Family) -> bool:
    return any(deployment.provider in family.providers for deployment in model.deployments)


def _may(key: Key | None, catalog: Catalog, name: str) -> bool:
    found = catalog.find(name)
    return key is not None and found is not None and key.may_use(name, found[0].admitted_by)
