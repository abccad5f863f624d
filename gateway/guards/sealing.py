"""Secrets of guards on their way into the database."""

from collections.abc import Mapping
from typing import Any, Final

from gateway.errors import BadRequest
from gateway.secret_box import SecretBox, is_reference

MAX_SECRET: Final = 8192


def sealed(spec: Mapping[str, Any], box: SecretBox) -> dict[str, Any]:
    """The signing secret, and the values of headers, each of which may be one."""
    made = dict(spec)
    if made.get("secret"):
        made["secret"] = _seal(made["secret"], box)
    if made.get("headers"):
        made["headers"] = {name: _seal(value, box) for name, value in made["headers"].items()}
    return made


def _seal(value: str, box: SecretBox) -> str:
    if len(value) > MAX_SECRET:
        raise BadRequest(f"A secret has at most {MAX_SECRET} characters.", code="string_above_max_length")
    return value if is_reference(value) else box.seal(value)
