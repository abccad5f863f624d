"""The model repository extension: what there is, into memory, out of it. In this process alone: each worker has its own memory."""

from collections.abc import Mapping
from typing import Any, final

from inference.ports import Library
from inference.serving.errors import BadInput
from inference.serving.fleet import Fleet
from inference.serving.service import Wanted

STATES = {"ready": "READY", "loading": "LOADING", "unavailable": "UNAVAILABLE"}


@final
class Repository:
    def __init__(self, library: Library, fleet: Fleet) -> None:
        self._library = library
        self._fleet = fleet

    def index(self, *, ready: bool) -> list[dict[str, str]]:
        """Every version; `ready`: of those alone that would answer."""
        reasons = {(place.model, place.version): place.reason for place in self._fleet.places()}
        rows = []
        for name in self._library.names():
            for version in self._library.versions(name):
                bundle = self._library.bundle(name, version)
                state = STATES[self._fleet.state(bundle)]
                reason = "unloaded" if self._fleet.withheld(name, version) else reasons.get((name, version), "")
                if state == "READY" or not ready:
                    rows.append({"name": name, "version": str(version), "state": state, "reason": reason})
        return rows

    async def load(self, name: str, asked: Mapping[str, Any]) -> None:
        """The version that its alias names. Raises InferenceError."""
        if asked.get("parameters"):
            raise BadInput(
                "A model is loaded as it was registered: config and files are not taken",
                param="parameters",
                code="unsupported",
            )
        wanted = Wanted(name)
        await self._fleet.load(self._library.bundle(wanted.name, None, wanted.alias))

    async def unload(self, name: str) -> None:
        """Every version of it. Raises ModelNotFound."""
        await self._fleet.unload(name, self._library.versions(name))
