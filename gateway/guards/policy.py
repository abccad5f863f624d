"""Which guards a call has: decided once per key and model and revision, so that a call without one pays for nothing."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, final

import msgspec

from gateway.catalog import Catalog, Model
from gateway.keys import Key

Kind = Literal[
    "pii", "secrets", "patterns", "topics", "injection", "max_cost", "json_schema", "http", "moderation", "llama_guard", "classifier",
]  # fmt: skip
Stage = Literal["before", "parallel", "after", "stream"]
Action = Literal["block", "redact", "mask_restore", "flag"]
OnError = Literal["fail_open", "fail_closed"]

MOST_KNOWN = 4096
BROKEN = "broken"  # among the options of a guard that cannot be used as it is stored
ATTACHED = "guards"  # in a key's metadata: the names of guards that it has beside those that name it


class Where(msgspec.Struct, frozen=True):
    """What a guard is for: all that is named must hold. With nothing named and no `everywhere` it is for who names it."""

    everywhere: bool = False
    keys: frozenset[str] = frozenset()  # ids or names
    teams: frozenset[str] = frozenset()  # ids
    models: frozenset[str] = frozenset()  # names, `start*`, `group:name`

    def admits(self, key: Key | None, model: Model) -> bool:
        if not (self.everywhere or self.keys or self.teams or self.models):
            return False
        if self.keys and (key is None or not {key.id, key.name} & self.keys):
            return False
        if self.teams and (key is None or key.team_id not in self.teams):
            return False
        return not self.models or _named(self.models, model)


class Guard(msgspec.Struct, frozen=True):
    """One guard as it is configured. `options` are those of its kind, as in `gateway.guards.settings`."""

    name: str
    kind: Kind
    stages: tuple[Stage, ...]
    action: Action
    on_error: OnError
    timeout_s: float
    dry_run: bool = False
    where: Where = Where()
    options: Mapping[str, Any] = {}

    def __repr__(self) -> str:
        """Without what may be a secret."""
        return f"Guard(name={self.name!r}, kind={self.kind!r})"

    def mark(self) -> bytes:
        """Changes with whatever it does."""
        return msgspec.json.encode(
            (self.name, self.kind, self.stages, self.action, self.on_error, self.dry_run, self.options), order="sorted"
        )


class Chain(msgspec.Struct, frozen=True):
    """The guards of a call, in the order of their configuration. `mark` is part of what a cached answer is found by."""

    guards: tuple[Guard, ...]
    mark: bytes

    def at(self, *stages: Stage) -> tuple[Guard, ...]:
        return tuple(guard for guard in self.guards if any(stage in guard.stages for stage in stages))


@final
class Guards:
    """All of one revision. `attached`: by a model's name, the guards that it names itself; `off` are switched off.

    A name that no guard has is one of a guard that cannot be asked: nothing passes in its place.
    """

    def __init__(
        self,
        guards: Sequence[Guard],
        catalog: Catalog,
        attached: Mapping[str, Sequence[str]],
        off: frozenset[str] = frozenset(),
    ) -> None:
        self.every = tuple(guards)
        self._names = off.union(guard.name for guard in guards)
        self._catalog = catalog
        self._attached = attached
        self._known: dict[tuple[str, str], Chain | None] = {}

    def of(self, key: Key | None, model: Model) -> Chain | None:
        """None where there are none. A model has the guards of all that may stand in for it, too."""
        place = ("" if key is None else key.id, model.name)
        try:
            return self._known[place]
        except KeyError:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            chain = self._known[place] = self._found(key, _with_stand_ins(self._catalog, (model,)))
            return chain

    def among(self, key: Key | None, model: Model, fallbacks: Iterable[str]) -> Chain | None:
        """Of a call that names models of its own to stand in."""
        named = (found[0] for name in fallbacks if (found := self._catalog.find(name)) is not None)
        return self._found(key, _with_stand_ins(self._catalog, (model, *named)))

    def _found(self, key: Key | None, models: Sequence[Model]) -> Chain | None:
        wanted = {name for model in models for name in self._attached.get(model.name, ())}
        given = () if key is None else key.metadata.get(ATTACHED, ())
        wanted.update(str(name) for name in (given if isinstance(given, (list, tuple)) else (given,)))
        chosen = tuple(
            guard
            for guard in self.every
            if guard.name in wanted or any(guard.where.admits(key, model) for model in models)
        )
        chosen += tuple(_missing(name) for name in sorted(wanted - self._names))
        if not chosen:
            return None
        return Chain(chosen, hashlib.blake2b(b"\0".join(one.mark() for one in chosen), digest_size=16).digest())


def _missing(name: str) -> Guard:
    return Guard(name[:64], "patterns", ("before",), "block", "fail_closed", 1.0, options={BROKEN: True})


def _with_stand_ins(catalog: Catalog, models: Sequence[Model]) -> list[Model]:
    """These and whatever may answer in their place, so that no fallback leads around a guard."""
    known: dict[str, Model] = {}
    waiting = list(models)
    while waiting:
        model = waiting.pop()
        if model.name in known:
            continue
        known[model.name] = model
        names = (*model.fallbacks, *model.context_fallbacks, *model.content_fallbacks)
        waiting += [found[0] for name in names if (found := catalog.find(name)) is not None]
    return list(known.values())


def _named(patterns: Iterable[str], model: Model) -> bool:
    names = (model.name, *model.aliases, *(f"group:{group}" for group in model.groups))
    return any(
        name == pattern or (pattern.endswith("*") and name.startswith(pattern[:-1]))
        for pattern in patterns
        for name in names
    )
