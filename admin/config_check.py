"""What can be wrong with a configuration beyond its YAML, in words for people, and what waits for a later version.

Every function takes values and returns findings as (path, message); where a path stands is settled by the caller.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from admin.config_file import KeyPath, dotted
from gateway.providers import PROVIDERS
from gateway.routers.policy import complaints

Finding = tuple[KeyPath, str]

# Contracts of later versions: accepted, so that one file serves both, and named at start. A feature deletes its row.
NOT_IN_FORCE: tuple[tuple[str, frozenset[str] | None], ...] = ()

_EXPECTED: Mapping[str, str] = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "path_type": "a path",
    "dict_type": "a mapping (lines of `key: value`)",
    "model_type": "a mapping (lines of `key: value`)",
    "tuple_type": "a list (lines that start with `-`)",
    "url_type": "a URL such as http://127.0.0.1:8000/v1",
    "url_parsing": "a URL such as http://127.0.0.1:8000/v1",
    "url_scheme": "a URL that starts with http:// or https://",
    "string_pattern_mismatch": "a name without spaces",
    "string_too_short": "a name of at least one character",
}
_SECRET = frozenset(
    {
        "admin_key",
        "api_key",
        "client_secret",
        "database_url",
        "env",
        "headers",
        "query",
        "redis_url",
        "refresh_token",
        "secret",
        "secret_key",
        "url",
    }
)


def explain(error: ValidationError, root: type[BaseModel], references: Mapping[KeyPath, str]) -> Iterator[Finding]:
    """Pydantic's complaints in the words of a configuration file: what was expected, what was found, what is near."""
    for detail in error.errors(include_url=False):
        path: KeyPath = detail["loc"]
        match detail["type"]:
            case "extra_forbidden":
                known = known_keys(root, path[:-1])
                yield path, f'unknown key "{path[-1]}"; {nearest(str(path[-1]), known)}'
            case "missing":
                yield path[:-1], f'missing key "{path[-1]}"'
            case _:
                yield path, _mismatch(detail, path, references.get(path))


def guards(given: Sequence[Mapping[str, Any]], references: Mapping[KeyPath, str]) -> Iterator[Finding]:
    """What is wrong with guards: their settings are loaded for those who have any."""
    from gateway.guards.settings import GuardSpec  # noqa: PLC0415 — half a megabyte in a process that has none

    for at, guard in enumerate(given):
        below = {path[2:]: text for path, text in references.items() if path[:2] == ("guards", at)}
        try:
            GuardSpec.model_validate(guard)
        except ValidationError as error:
            yield from ((("guards", at, *path), message) for path, message in explain(error, GuardSpec, below))


def feature_views(given: Sequence[Mapping[str, Any]], references: Mapping[KeyPath, str]) -> Iterator[Finding]:
    """What is wrong with feature views, as with guards."""
    from admin.rest.feature_bodies import FeatureViewBody  # noqa: PLC0415 — NumPy, for those who have some
    from inference.errors import BadRequest  # noqa: PLC0415 — as above

    names: set[str] = set()
    for at, view in enumerate(given):
        place = ("features", "views", at)
        below = {path[3:]: text for path, text in references.items() if path[:3] == place}
        try:
            body = FeatureViewBody.model_validate(view)
            body.view(0, "")
        except ValidationError as error:
            yield from (((*place, *path), message) for path, message in explain(error, FeatureViewBody, below))
        except BadRequest as error:
            yield place, error.message
        else:
            if body.name in names:
                yield (*place, "name"), f'there is a feature view "{body.name}" already'
            names.add(body.name)


def _mismatch(detail: ErrorDetails, path: KeyPath, reference: str | None) -> str:
    value, context = detail["input"], detail.get("ctx", {})
    found = _found(value, path, reference)
    match detail["type"]:
        case "literal_error":
            choices = re.findall(r"'([^']*)'", context["expected"])
            close = difflib.get_close_matches(str(value), choices, 1)
            hint = f'; did you mean "{close[0]}"?' if close else ""
            return f"expected one of {', '.join(choices)}, found {found}{hint}"
        case "value_error":
            return str(context["error"])
        case "string_type" if isinstance(value, int | float):
            return f"expected text, found {found}; put it in quotes"
        case kind if kind in _EXPECTED:
            return f"expected {_EXPECTED[kind]}, found {found}"
        case _:
            return f"{detail['msg'].replace('Input should', 'should')}, found {found}"


def _found(value: object, path: KeyPath, reference: str | None) -> str:
    """What stands there, without showing what may be secret."""
    if reference is not None:
        return f"the value of {reference}"
    if isinstance(value, str):
        return "some text" if _SECRET.intersection(path) else f'"{value[:60]}"'
    if isinstance(value, Mapping | list | tuple):
        return "a mapping" if isinstance(value, Mapping) else "a list"
    if value is None or isinstance(value, bool):
        return "nothing" if value is None else str(value).lower()
    return f"the number {value}"


def known_keys(root: type[BaseModel], path: KeyPath) -> tuple[str, ...]:
    """The keys that are allowed at a path of the configuration."""
    model: type[BaseModel] | None = root
    for part in path:
        if model is not None and isinstance(part, str):
            field = model.model_fields.get(part)
            model = _model_in(field.annotation) if field else None
    return tuple(model.model_fields) if model is not None else ()


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that `X | None` or `tuple[X, ...]` speaks of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for model in map(_model_in, get_args(annotation)) if model is not None), None)


def nearest(word: str, known: Iterable[str]) -> str:
    """`did you mean "weight"?`, or what there is to choose from."""
    choices = sorted(known)
    close = difflib.get_close_matches(word, choices, 1, cutoff=0.6)
    return f'did you mean "{close[0]}"?' if close else f"known here: {', '.join(choices) or 'nothing'}"


def contradictions(data: Mapping[str, object]) -> Iterator[Finding]:
    """What no single value shows: names taken twice, providers that do not exist, missing addresses.

    Works on the raw tree and skips what has the wrong shape, so that these findings come along with all others.
    """
    models = list(_mappings(data.get("models"), ("models",)))
    yield from _repeated(((*path, "name"), model.get("name")) for path, model in models)
    for path, model in models:
        yield from _bad_wildcard(path, model)
        for place, name in _fallbacks(path, model):
            if name == model.get("name"):
                yield place, f'"{name}" cannot fall back on itself'
        every = (*(each for _, each in models), *_served(data))
        yield from (((*path, *place), what) for place, what in complaints(model, every))
    deployments = [
        found for path, model in models for found in _mappings(model.get("deployments"), (*path, "deployments"))
    ]
    yield from _repeated(((*path, "id"), deployment.get("id")) for path, deployment in deployments)
    for path, deployment in deployments:
        yield from _bad_provider(path, deployment)
    yield from _refused_commands(data)
    guards = list(_mappings(data.get("guards"), ("guards",)))
    yield from _repeated(((*path, "name"), guard.get("name")) for path, guard in guards)


def _served(data: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    """Models that engines of this house make."""
    for _, engine in _mappings(data.get("engines"), ("engines",)):
        yield {"name": engine.get("serves") or engine.get("name")}
        yield from (adapter for _, adapter in _mappings(engine.get("lora"), ()))


def _refused_commands(data: Mapping[str, object]) -> Iterator[Finding]:
    """Servers that are programs, without a line that allows them."""
    section = data.get("mcp")
    if not isinstance(section, dict):
        return
    servers = list(_mappings(section.get("servers"), ("mcp", "servers")))
    yield from _repeated(((*path, "name"), server.get("name")) for path, server in servers)
    allowed = [entry.get("command") for _, entry in _mappings(section.get("stdio_commands"), ())]
    for path, server in servers:
        if (
            server.get("kind") == "stdio"
            and isinstance(server.get("command"), str)
            and server["command"] not in allowed
        ):
            yield (*path, "command"), f'"{server["command"]}" is not among mcp.stdio_commands, which have to allow it'


def _repeated(named: Iterable[tuple[KeyPath, object]]) -> Iterator[Finding]:
    first: dict[str, KeyPath] = {}
    for path, name in named:
        if isinstance(name, str) and first.setdefault(name, path) != path:
            yield path, f'"{name}" is already taken by {dotted(first[name][:-1])}'


def _bad_wildcard(path: KeyPath, model: Mapping[str, object]) -> Iterator[Finding]:
    name = model.get("name")
    if isinstance(name, str) and "*" in name[:-1]:
        yield (*path, "name"), f'"{name}": the wildcard * stands at the end of a name'


def _fallbacks(path: KeyPath, model: Mapping[str, object]) -> Iterator[tuple[KeyPath, str]]:
    for key in ("fallbacks", "context_fallbacks", "content_fallbacks"):
        listed = model.get(key)
        for index, name in enumerate(listed if isinstance(listed, list) else ()):
            if isinstance(name, str):
                yield (*path, key, index), name


def _shadow(path: KeyPath, model: Mapping[str, object]) -> Iterator[tuple[KeyPath, str]]:
    shadow = model.get("shadow")
    if isinstance(shadow, dict) and isinstance(name := shadow.get("model"), str):
        yield (*path, "shadow", "model"), name


def _names(models: Iterable[Mapping[str, object]]) -> Iterator[str]:
    """Aliases among them."""
    for model in models:
        aliases = model.get("aliases")
        yield from (
            name
            for name in (model.get("name"), *(aliases if isinstance(aliases, list) else ()))
            if isinstance(name, str)
        )


def _bad_provider(path: KeyPath, deployment: Mapping[str, object]) -> Iterator[Finding]:
    name = deployment.get("provider", "openai")
    if not isinstance(name, str):
        return
    provider = PROVIDERS.get(name)
    if provider is None:
        yield (*path, "provider"), f'unknown provider "{name}"; {nearest(name, PROVIDERS)}'
    elif not provider.placed and not deployment.get("base_url"):
        yield path, f'provider "{name}" has no address of its own; add base_url'


def _mappings(value: object, path: KeyPath) -> Iterator[tuple[KeyPath, Mapping[str, object]]]:
    for index, item in enumerate(value if isinstance(value, list) else ()):
        if isinstance(item, dict):
            yield (*path, index), item


def not_in_force(
    data: Mapping[str, object],
    paths: Iterable[KeyPath],
    waiting: Sequence[tuple[str, frozenset[str] | None]] = NOT_IN_FORCE,
) -> Iterator[Finding]:
    """One warning per feature that a later version brings, however often it is used; `paths` are those that somebody set."""
    patterns = [(path, re.sub(r"\[\d+\]", "[]", dotted(path))) for path in paths]
    for row, values in waiting:
        used = [path for path, pattern in patterns if pattern == row and _is_used(_at(data, path), values)]
        if used:
            more = f" and {len(used) - 1} more" if len(used) > 1 else ""
            value = f" ({_at(data, used[0])})" if values else ""
            yield used[0], f"accepted, not in force in this version: {dotted(used[0])}{value}{more}"


def _is_used(value: object, values: frozenset[str] | None) -> bool:
    return value in values if values is not None and isinstance(value, str) else values is None and bool(value)


def _at(data: object, path: KeyPath) -> object:
    for part in path:
        if isinstance(data, Mapping):
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            return None
    return data


def _passed_on(section: object) -> Iterator[tuple[KeyPath, str]]:
    listed = section.get("paths") if isinstance(section, dict) else None
    for path, declared in _mappings(listed, ("passthrough", "paths")):
        name = declared.get("model")
        if isinstance(name, str):
            yield (*path, "model"), name


def doubtful(data: Mapping[str, object], references: Mapping[KeyPath, tuple[str, ...]]) -> Iterator[Finding]:
    """What is allowed and hardly meant: models without an answer, fallbacks, shadows and variables that do not exist.

    An unknown fallback is no error, as models can also be made over REST.
    """
    models = list(_mappings(data.get("models"), ("models",)))
    names = list(_names([*(model for _, model in models), *_served(data)]))
    for path, model in models:
        if not model.get("deployments") and not model.get("router"):
            yield path, f"{dotted(path)} has no deployments, so that every call of it fails"
        for place, name in (*_fallbacks(path, model), *_shadow(path, model)):
            if name not in names and not any(name.startswith(n[:-1]) for n in names if n.endswith("*")):
                yield place, f'{dotted(place)}: no model "{name}" in this file; {nearest(name, names)}'
    for place, name in _passed_on(data.get("passthrough")):
        if name not in names and not any(name.startswith(n[:-1]) for n in names if n.endswith("*")):
            yield place, f'{dotted(place)}: no model "{name}" in this file; {nearest(name, names)}'
    for path, unset in references.items():
        yield path, f"{dotted(path)}: {', '.join(unset)} is not set; calls that need it fail until it is"
