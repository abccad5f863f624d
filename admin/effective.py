"""The configuration in force as rows for people: path, value without its secrets, and who decided it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from admin.config_file import KeyPath, dotted
from admin.settings import Loaded
from gateway.secret_box import shown as reference_or_set

_HIDDEN = frozenset({"admin_key", "secret", "secret_key", "url"})  # a webhook's address often is its password
_SEALED = frozenset({"api_key", "client_secret", "refresh_token"})
_MAPS = frozenset({"headers", "query", "env"})
_PASSWORD = re.compile(r"(?<=://)([^/@]*:)[^@]*(?=@)")


@dataclass(frozen=True, slots=True)
class Value:
    path: str
    shown: str
    origin: str


def effective(loaded: Loaded) -> tuple[Value, ...]:
    """Every value; of models only what was written, as their defaults would drown it."""
    settings = loaded.settings
    tree = settings.model_dump(
        mode="json", exclude={"models": True, "guards": True, "engines": True, "mcp": {"servers"}}
    )
    models = {"models": [model.model_dump(mode="json", exclude_unset=True) for model in settings.models]}
    models["engines"] = [engine.model_dump(mode="json", exclude_unset=True) for engine in settings.engines]
    tree["mcp"]["servers"] = [server.model_dump(mode="json", exclude_unset=True) for server in settings.mcp.servers]
    tree["guards"] = list(settings.guards)
    return tuple(
        Value(dotted(path), _shown(path, value), loaded.origin(*path))
        for path, value in _leaves({**tree, **models}, ())
        if not (path[0] in ("models", "engines") and len(path) == 1)
    )


def _leaves(value: object, path: KeyPath) -> Iterator[tuple[KeyPath, object]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        for index, inner in enumerate(value):
            yield from _leaves(inner, (*path, index))
    else:
        yield path, value


def _shown(path: KeyPath, value: object) -> str:
    if value is None:
        return "-"
    if path[-1] in _HIDDEN and path[0] != "mcp":
        return "set"
    if path[-1] in _SEALED or _MAPS.intersection(path):
        return reference_or_set(str(value)) or "-"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    plain = f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
    return _PASSWORD.sub(r"\1***", plain) or '""'
