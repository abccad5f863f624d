"""Retrievers: a name that searches by versions, each of them a collection and how it is searched. A rollout moves searches between them.

A retriever may have the id of a collection as its name: then whoever searches that one gets it, and need not know.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, final

import msgspec

from gateway.routing.versions import Family, RetrieverVersion
from retrieval.access import Caller
from retrieval.errors import RetrievalError

if TYPE_CHECKING:  # loaded with the first search
    from admin.rollouts.searches import Searches
    from retrieval.asking import Question, Results
    from retrieval.service import Retrieval

# What a search may be refused for without anything being wrong with the version that it was drawn for.
ASKERS: Final = frozenset((400, 401, 402, 403, 409, 413, 422, 429))
BROKEN: Final = frozenset(("dimension_mismatch", "vector_store_expired"))
# Fields of a question that belong together: what a version says of them holds where the search itself says nothing.
TOGETHER: Final = (
    ("k",),
    ("dense", "lexical", "fusion"),
    ("threshold",),
    ("rerank",),
    ("expansion",),
    ("diversity",),
    ("recency",),
)


class Asker(msgspec.Struct, frozen=True):
    """`id`: the search's own. `session`: what it says it belongs to. `usual`: a question in which nothing is said."""

    id: str
    usual: "Question"
    session: str | None = None


@final
class Retrievers:
    """One per process. `families`: those in force. `searches`: which rollout they belong to, asked only where there is a retriever."""

    def __init__(
        self,
        families: Callable[[], Mapping[str, Family[RetrieverVersion]]],
        searches: "Callable[[], Searches]",
    ) -> None:
        self._families = families
        self._searches = searches

    def collections(self, name: str) -> Sequence[str]:
        """Those that searches by the name are made in. Empty if it is no retriever's, or nothing is searched by it."""
        family = self._families().get(name)
        return (
            [] if family is None else list(dict.fromkeys(v.spec["collection"] for v in family.versions if v.weight > 0))
        )

    def read_by(self, caller: Caller, name: str) -> Sequence[str]:
        """Those of them that a search of the caller's may be made in, which is one unless each request is drawn by itself."""
        family = self._families().get(name)
        if family is None or family.sticky == "request":
            return self.collections(name)
        version = family.draw(f"key {caller.key_id}")
        return [] if version is None else [version.spec["collection"]]

    async def search(
        self, plane: "Retrieval", caller: Caller, name: str, question: "Question", asker: Asker
    ) -> "tuple[Results, str | None]":
        """What is found, and the version that found it, `name@2`. A name that is no retriever's is a collection's.

        Where a challenger fails, the champion answers. Raises whatever a search raises.
        """
        family = self._families().get(name)
        version = None if family is None else family.draw(_told_apart(family, caller, asker))
        if family is None or version is None:
            return await plane.search(caller, name, question), None
        arm = self._searches().arm(name, version.version)
        if arm is None:
            return await self._asked(plane, caller, version, question, asker), _label(name, version)
        began = time.monotonic()
        try:
            found = await self._asked(plane, caller, version, question, asker)
        except RetrievalError as error:
            if error.status in ASKERS and error.code not in BROKEN:
                raise
            self._searches().observe(arm, asker.id, None, empty=None)
            instead = None if arm.instead is None else family.numbered(arm.instead)
            if instead is None:
                raise
            return await self._asked(plane, caller, instead, question, asker), _label(name, instead)
        took = 1000 * (time.monotonic() - began)
        self._searches().observe(arm, asker.id, took, empty=not found.results)
        return found, _label(name, version)

    @staticmethod
    async def _asked(
        plane: "Retrieval", caller: Caller, version: RetrieverVersion, question: "Question", asker: Asker
    ) -> "Results":
        settings = version.spec.get("search") or {}
        wanted = as_set(question, asker.usual, settings) if settings else question
        return await plane.search(caller, version.spec["collection"], wanted)


def as_set(question: "Question", usual: "Question", settings: Mapping[str, Any]) -> "Question":
    """With what the settings say and the question does not. `usual`: a question in which nothing is said."""
    from admin.api.search_wire import SearchBody, unsaid  # noqa: PLC0415 — for whom there are retrievers

    plain, said = unsaid(), SearchBody.model_validate({"query": "-", **settings}).question()
    changes = {
        field: getattr(said, field)
        for fields in TOGETHER
        if all(getattr(question, field) == getattr(usual, field) for field in fields)
        for field in fields
        if any(getattr(said, each) != getattr(plain, each) for each in fields)
    }
    return msgspec.structs.replace(question, **changes)


def _told_apart(family: Family[RetrieverVersion], caller: Caller, asker: Asker) -> str:
    if family.sticky == "request":
        return asker.id
    if family.sticky == "session" and asker.session is not None:
        return f"session {asker.session}"
    return f"key {caller.key_id}"


def _label(name: str, version: RetrieverVersion) -> str:
    return f"{name}@{version.version}"
