"""Fields that several nouns of the admin plane have, with what each may hold."""

import json
from typing import Annotated, Any

from msgspec import UNSET, UnsetType
from pydantic import AfterValidator, BaseModel, Field

from admin import key_quotas
from gateway.admission.classes import complaint
from gateway.mcp.settings import RightsSpec
from gateway.settings import Name

MAX_METADATA_BYTES = 16_384


def _bounded(value: dict[str, Any] | None) -> dict[str, Any] | None:
    if value is not None and len(json.dumps(value, ensure_ascii=False).encode()) > MAX_METADATA_BYTES:
        raise ValueError(f"must be at most {MAX_METADATA_BYTES} bytes of JSON")
    wrong = None if value is None else complaint(value) or key_quotas.complaint(value)
    if wrong is not None:
        raise ValueError(wrong)
    return value


Title = Annotated[str, Field(min_length=1, max_length=200)]
Id = Annotated[str, Field(min_length=1, max_length=200)]
Allowed = Annotated[tuple[Name, ...], Field(max_length=1000)]
Route = Annotated[str, Field(min_length=2, max_length=200, pattern=r"^/[^\s\x00-\x1f]+$")]
Routes = Annotated[tuple[Route, ...], Field(max_length=100)]
Metadata = Annotated[dict[str, Any] | None, AfterValidator(_bounded)]


def kept(value: RightsSpec | None) -> dict[str, Any] | None:
    """Rights as the database has them."""
    return None if value is None else value.model_dump(mode="json", exclude_none=True)


def stored(value: RightsSpec | UnsetType | None) -> dict[str, Any] | UnsetType | None:
    """The same of a PATCH: what it leaves out stays left out."""
    return kept(value) if isinstance(value, RightsSpec) else value


def given(body: BaseModel, name: str) -> Any:
    """A field of a PATCH, or UNSET where the client left it out."""
    unset: UnsetType = UNSET
    return getattr(body, name) if name in body.model_fields_set else unset
