"""An OpenAPI document as tools: each operation that takes and gives JSON is one. Pure: a document in, requests out.

References are followed inside the document alone. A schema that contains itself keeps its references, as `$defs` of the tool's own.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, final
from urllib.parse import quote, urlencode

import msgspec

Json = dict[str, Any]
Place = Literal["path", "query", "header", "cookie"]

METHODS: Final = ("get", "put", "post", "delete", "patch", "head", "options")
MAX_OPERATIONS: Final = 1000
MAX_NODES: Final = 20_000  # of one tool's schema, with all that it refers to
MAX_DEPTH: Final = 60
JSON_BODY: Final = "application/json"
FORM_BODY: Final = "application/x-www-form-urlencoded"
_OWN_HEADERS: Final = frozenset(
    ("accept", "content-type", "authorization", "host", "cookie", "content-length", "connection", "transfer-encoding")
)
_PLACES: Final = frozenset(("path", "query", "header", "cookie"))
_NOT_A_NAME: Final = re.compile(r"[^A-Za-z0-9_-]+")
_DROPPED: Final = frozenset(("example", "examples", "xml", "externalDocs", "discriminator", "nullable"))
_HEADER_TEXT: Final = re.compile(r"[\t\x20-\x7e]*")


class DocumentError(ValueError):
    """Why a document, or one operation of it, cannot be used."""


class Parameter(msgspec.Struct, frozen=True):
    """`argument` is what a caller names it; `exploded`: a list is repeated, not joined by commas."""

    name: str
    argument: str
    place: Place
    required: bool
    exploded: bool


class Operation(msgspec.Struct, frozen=True):
    """One tool. `path` has its parameters in braces; `body` is the content type of the argument `body`."""

    name: str
    method: str
    path: str
    description: str
    schema: Json
    parameters: tuple[Parameter, ...]
    body: str | None = None

    def tool(self) -> Json:
        """As MCP lists it."""
        safe = self.method == "get"
        made: Json = {"name": self.name, "description": self.description, "inputSchema": self.schema}
        return made | {"annotations": {"readOnlyHint": safe, "openWorldHint": True}}


class Made(msgspec.Struct, frozen=True):
    """A request. `path` begins with a slash and stands behind the base URL."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: tuple[tuple[str, str], ...]
    body: bytes | None


def operations(document: Mapping[str, Any]) -> tuple[list[Operation], list[str]]:
    """The tools, and why others are left out. Raises DocumentError for what is no OpenAPI 3 document."""
    version = document.get("openapi")
    paths = document.get("paths")
    if not isinstance(version, str) or not version.startswith("3.") or not isinstance(paths, dict):
        raise DocumentError("it is no OpenAPI 3 document with paths")
    found: dict[str, Operation] = {}
    left: list[str] = []
    for path, method, item, operation in _each(document, paths):
        if len(found) >= MAX_OPERATIONS:
            left.append(f"everything behind the first {MAX_OPERATIONS}")
            break
        try:
            made = _operation(document, path, method, item, operation)
        except DocumentError as error:
            left.append(f"{method.upper()} {path}: {error}")
            continue
        if made.name in found:
            left.append(f"{method.upper()} {path}: its name {made.name} is taken")
        else:
            found[made.name] = made
    return list(found.values()), left


def made(operation: Operation, arguments: Mapping[str, Any]) -> Made:
    """The request of one call. Raises ValueError that names the argument."""
    path = operation.path
    query: list[tuple[str, str]] = []
    headers: list[tuple[str, str]] = []
    cookies: list[str] = []
    known = {parameter.argument for parameter in operation.parameters} | ({"body"} if operation.body else set())
    unknown = next((name for name in arguments if name not in known), None)
    if unknown is not None:
        raise ValueError(f"there is no argument {unknown!r}")
    for parameter in operation.parameters:
        value = arguments.get(parameter.argument)
        if value is None:
            if parameter.required:
                raise ValueError(f"the argument {parameter.argument!r} is missing")
            continue
        texts = _texts(value, parameter)
        match parameter.place:
            case "path":
                path = path.replace("{" + parameter.name + "}", _segment(",".join(texts), parameter))
            case "query":
                query += [(parameter.name, text) for text in (texts if parameter.exploded else [",".join(texts)])]
            case "header":
                headers.append((parameter.name, _header(",".join(texts), parameter)))
            case "cookie":
                cookies.append(f"{quote(parameter.name, safe='')}={quote(','.join(texts), safe='')}")
    if cookies:
        headers.append(("cookie", "; ".join(cookies)))
    return Made(operation.method, path, tuple(query), tuple(headers), _body(operation, arguments))


def _each(document: Mapping[str, Any], paths: Json) -> Iterator[tuple[str, str, Json, Json]]:
    for path, given in paths.items():
        try:
            item = _followed(document, given)
        except DocumentError:
            continue
        for method in METHODS:
            operation = item.get(method)
            if isinstance(operation, dict) and path.startswith("/"):
                yield path, method, item, operation


def _operation(document: Mapping[str, Any], path: str, method: str, item: Json, operation: Json) -> Operation:
    name = _name(operation.get("operationId"), method, path)
    schemas = _Schemas(document)
    properties: Json = {}
    required: list[str] = []
    parameters: list[Parameter] = []
    for given in _parameters(document, item, operation):
        place, own = given.get("in"), given.get("name")
        if place not in _PLACES or not isinstance(own, str) or (place == "header" and own.lower() in _OWN_HEADERS):
            continue
        argument = own if own not in properties and own != "body" else f"{own}_{place}"
        needed = given.get("required") is True or place == "path"
        schema = schemas.plain(given.get("schema", {"type": "string"}))
        described = given.get("description")
        properties[argument] = {**schema, "description": described} if isinstance(described, str) else schema
        required += [argument] if needed else []
        exploded = given.get("explode", place in {"query", "cookie"}) is True
        parameters.append(Parameter(own, argument, place, needed, exploded))
    kind = _add_body(document, operation, schemas, properties, required)
    missing = set(re.findall(r"\{([^}]*)\}", path)) - {one.name for one in parameters if one.place == "path"}
    if missing:
        raise DocumentError(f"its path has {min(missing)!r}, which is no parameter")
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    if schemas.definitions:
        schema["$defs"] = schemas.definitions
    told = operation.get("description") or operation.get("summary") or item.get("summary")
    text = told if isinstance(told, str) else f"{method.upper()} {path}"
    return Operation(name, method, path, text[:8000], schema, tuple(parameters), kind)


def _parameters(document: Mapping[str, Any], item: Json, operation: Json) -> Sequence[Json]:
    """Those of the path, and over them those of the operation."""
    found: dict[tuple[object, object], Json] = {}
    for group in (item.get("parameters"), operation.get("parameters")):
        for given in group if isinstance(group, list) else ():
            one = _followed(document, given)
            found[str(one.get("name")), str(one.get("in"))] = one
    return list(found.values())


def _add_body(
    document: Mapping[str, Any], operation: Json, schemas: "_Schemas", properties: Json, required: list[str]
) -> str | None:
    if "requestBody" not in operation:
        return None
    given = _followed(document, operation["requestBody"])
    content = given.get("content")
    kinds = content if isinstance(content, dict) else {}
    kind = next((one for one in (JSON_BODY, FORM_BODY) if one in kinds), None)
    if kind is None:
        if given.get("required") is True:
            raise DocumentError("its body is neither JSON nor a form of texts")
        return None
    media = kinds[kind]
    properties["body"] = schemas.plain(media.get("schema", {}) if isinstance(media, dict) else {})
    if given.get("required") is True:
        required.append("body")
    return kind


def _followed(document: Mapping[str, Any], value: object) -> Json:
    """What a reference stands for, through any number of others."""
    for _ in range(MAX_DEPTH):
        if not isinstance(value, dict):
            break
        reference = value.get("$ref")
        if reference is None:
            return value
        value = _at(document, reference)
    raise DocumentError("it has a reference that leads nowhere")


def _at(document: Mapping[str, Any], reference: object) -> object:
    """RFC 6901, in this document: nothing is fetched."""
    if not isinstance(reference, str) or not reference.startswith("#/"):
        raise DocumentError(f"it refers to another document ({str(reference)[:100]})")
    value: object = document
    for part in reference[2:].split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(value, dict) or key not in value:
            raise DocumentError(f"it refers to {reference[:100]}, which is not there")
        value = value[key]
    return value


@final
class _Schemas:
    """The schemas of one tool, as JSON Schema without references to elsewhere."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._left = MAX_NODES
        self.definitions: Json = {}

    def plain(self, schema: object, above: tuple[str, ...] = ()) -> Json:
        """Raises DocumentError for one that is too large."""
        made = self._plain(schema, above)
        return made if isinstance(made, dict) else {}

    def _plain(self, value: object, above: tuple[str, ...]) -> object:
        self._left -= 1
        if self._left < 0 or len(above) > MAX_DEPTH:
            raise DocumentError("its schema is too large")
        if isinstance(value, list):
            return [self._plain(one, above) for one in value]
        if not isinstance(value, dict):
            return value
        reference = value.get("$ref")
        if isinstance(reference, str):
            return self._referred(reference, above)
        made = {key: self._inner(key, inner, above) for key, inner in value.items() if key not in _DROPPED}
        if value.get("nullable") is True and isinstance(made.get("type"), str):
            made["type"] = [made["type"], "null"]
        return made

    def _inner(self, key: str, value: object, above: tuple[str, ...]) -> object:
        if key == "properties" and isinstance(value, dict):  # a property may be called as a keyword is
            return {name: self._plain(inner, above) for name, inner in value.items()}
        return value if key in {"default", "enum", "const"} else self._plain(value, above)

    def _referred(self, reference: str, above: tuple[str, ...]) -> Json:
        name = _NOT_A_NAME.sub("_", reference.removeprefix("#/").removeprefix("components/schemas/"))
        if name in self.definitions:
            return {"$ref": f"#/$defs/{name}"}
        target = _at(self._document, reference)
        if reference in above:  # it contains itself
            self.definitions[name] = {}
            self.definitions[name] = self.plain(target, ())
            return {"$ref": f"#/$defs/{name}"}
        return self.plain(target, (*above, reference))


def _name(given: object, method: str, path: str) -> str:
    plain = _NOT_A_NAME.sub("_", given if isinstance(given, str) else f"{method}{path}").strip("_")
    if not plain:
        raise DocumentError("it has no name")
    return plain[:80]


def _texts(value: object, parameter: Parameter) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [_text(one, parameter) for one in values]


def _text(value: object, parameter: Parameter) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str() | int() | float():
            return str(value)
        case dict() if parameter.place == "query":
            return msgspec.json.encode(value).decode()
        case _:
            raise ValueError(f"the argument {parameter.argument!r} has to be a text, a number or a list of them")


def _segment(text: str, parameter: Parameter) -> str:
    """One segment: nothing that a caller says leads to another path."""
    if text in {"", ".", ".."}:
        raise ValueError(f"the argument {parameter.argument!r} may not be {text!r}")
    return quote(text, safe="")


def _header(text: str, parameter: Parameter) -> str:
    if not _HEADER_TEXT.fullmatch(text):
        raise ValueError(f"the argument {parameter.argument!r} has characters that no header can have")
    return text


def _body(operation: Operation, arguments: Mapping[str, Any]) -> bytes | None:
    if operation.body is None or "body" not in arguments:
        return None
    value = arguments["body"]
    if operation.body == JSON_BODY:
        return msgspec.json.encode(value)
    if not isinstance(value, dict):
        raise DocumentError("the argument 'body' has to be an object")
    return urlencode(
        {
            name: inner if isinstance(inner, str) else msgspec.json.encode(inner).decode()
            for name, inner in value.items()
        }
    ).encode()
