"""The data plane's part of /openapi.json: its paths are no framework's, so what they take and give is written down in `data_plane.yaml`."""

import re
from pathlib import Path
from typing import Any, Final

import yaml

SOURCE: Final = Path(__file__).with_name("data_plane.yaml")

Json = dict[str, Any]

_PLACE: Final = re.compile(r"{(\w+)}")
_OPEN: Final = "Health"  # needs no key
_ERRORS: Final = {
    "Messages": "AnthropicError",
    "Pass-through": "Native",
    "Dify": "DifyError",
    "Inference protocol": "ProtocolError",
}  # their own; elsewhere OpenAI's
_LONGER: Final = {"/v1/files": 10_000}  # pages, where they differ


def extend(document: Json) -> None:
    """Adds paths, schemas and the key to a document that has `ErrorBody` among its schemas."""
    source: Json = yaml.safe_load(SOURCE.read_text("utf-8"))
    components = document.setdefault("components", {})
    components.setdefault("schemas", {}).update(source["schemas"])
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, methods in source["paths"].items():
        document["paths"][path] = {
            method: _operation(path, method, short, source["query"]) for method, short in methods.items()
        }


def _operation(path: str, method: str, short: Json, query: Json) -> Json:
    made: Json = {
        "tags": [short["tag"]],
        "summary": short["summary"],
        "operationId": re.sub(r"\W+", "_", f"{method} {path}").strip("_"),
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
            for name in _PLACE.findall(path)
        ]
        + [{"name": name, "in": "query", "schema": _parameter(path, name, query)} for name in short.get("query", ())],
        "responses": _responses(short),
    }
    if short["tag"] != _OPEN:
        made["security"] = [{"key": []}]
    for kind, media in (("body", "application/json"), ("form", "multipart/form-data")):
        if kind in short:
            made["requestBody"] = {"required": True, "content": {media: {"schema": _schema(short[kind])}}}
    return made


def _parameter(path: str, name: str, query: Json) -> Json:
    schema: Json = query[name]
    return schema | {"maximum": _LONGER[path]} if name == "limit" and path in _LONGER else schema


def _responses(short: Json) -> Json:
    content: Json = {}
    if "answer" in short:
        content["application/json"] = {"schema": _schema(short["answer"])}
    if "events" in short:
        content["text/event-stream"] = {"schema": _schema("Event")}
    if "text" in short:
        content["text/plain"] = {"schema": {"type": "string"}}
    if "bytes" in short:
        content["application/octet-stream"] = content["audio/*"] = {"schema": {"type": "string", "format": "binary"}}
    error = _ERRORS.get(short["tag"], "ErrorBody")
    answers: Json = {"200": {"description": "The answer.", "content": content}}
    for status, name in short.get("statuses", {}).items():
        answers[str(status)] = {"description": "The same.", "content": _json(name)}
    return answers | {"default": {"description": "What went wrong, and what to do about it.", "content": _json(error)}}


def _json(name: str) -> Json:
    return {"application/json": {"schema": _schema(name)}}


def _schema(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}
