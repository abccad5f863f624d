"""Declared tenancy: which tenant's partition of a collection a call is about. The one place that decides it. Pure.

A collection may declare that an attribute names whose each document is. Then no document is without one, and nothing is searched or
shown but within one tenant: whoever asks is narrowed to it here, and what stands behind (tables, indexes, words) knows no other way in.
A tenant is an exact text: no other case, no other form of the same letters, no beginning of it.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from retrieval.access import Caller
from retrieval.errors import Forbidden, TenantRequired
from retrieval.filters import MAX_TEXT, AnyOf, Every, Filter, Value

PROMOTE_AT: Final = 20_000  # passages
DENIED: Final = "tenant_denied"


class Tenancy(msgspec.Struct, frozen=True):
    """`attribute` names the tenant of each document. One of `promote_at` passages gets a graph of its own."""

    attribute: str
    promote_at: int = PROMOTE_AT


def bound(value: object) -> str | None:
    """What a key is bound to that an admin has written this for: None for nothing, and a tenant that there is not for what is none."""
    if value is None:
        return None
    return value if isinstance(value, str) and _is_name(value) else ""


def of_document(tenancy: Tenancy | None, attributes: Mapping[str, Value], caller: Caller) -> str | None:
    """Whose a document with these attributes is; None where nothing is declared. Raises TenantRequired, Forbidden."""
    if tenancy is None:
        return None
    value = attributes.get(tenancy.attribute)
    if not isinstance(value, str) or not _is_name(value):
        raise TenantRequired(
            f"The vector store keeps each tenant apart, by the attribute '{tenancy.attribute}': the file needs it, as a text "
            f"of 1 to {MAX_TEXT} characters",
            param=f"attributes.{tenancy.attribute}",
        )
    if caller.tenant not in (None, value):
        raise Forbidden(
            f"This key is bound to another tenant than attributes.{tenancy.attribute} names",
            param=f"attributes.{tenancy.attribute}",
            code=DENIED,
        )
    return value


def require_whole(tenancy: Tenancy | None, caller: Caller) -> None:
    """That all tenants' collection is the caller's to change. Raises Forbidden."""
    if tenancy is not None and caller.tenant is not None:
        raise Forbidden("This key is bound to a tenant, and the vector store is all tenants'", code=DENIED)


def narrowed(
    tenancy: Tenancy | None, caller: Caller, tenant: str | None, wanted: Filter | None
) -> tuple[Caller, Filter | None]:
    """The caller within the one tenant that the call names, and what is left of its filter there.

    It is named by `tenant`, by the filter, or by the key. Raises TenantRequired, Forbidden.
    """
    if tenancy is None:
        if tenant is not None:
            raise TenantRequired("The vector store declares no tenancy: leave `tenant` out", param="tenant")
        return caller, wanted
    meant = _meant(tenancy.attribute, wanted)
    names = meant if tenant is None else meant | {tenant}
    if caller.tenant is not None:
        if names - {caller.tenant}:
            raise Forbidden("This key is bound to another tenant", param="tenant", code=DENIED)
        names = frozenset({caller.tenant})
    if len(names) != 1:
        asked = "names no tenant" if not names else f"names {len(names)} tenants at once"
        raise TenantRequired(
            f"The vector store keeps each tenant apart, by the attribute '{tenancy.attribute}', and this {asked}. Name one: "
            f"`tenant`, or a filter of type 'eq' on '{tenancy.attribute}', alone or within 'and'; "
            "or an admin binds the key, by `access_tenant` in its metadata",
            param="tenant" if tenant is not None else "filters",
        )
    (name,) = names
    if not isinstance(name, str) or not (name == caller.tenant or _is_name(name)):
        raise TenantRequired(
            f"A tenant is a text of 1 to {MAX_TEXT} characters", param="filters" if tenant is None else "tenant"
        )
    return msgspec.structs.replace(caller, tenant=name), _rest(tenancy.attribute, wanted)


def _meant(attribute: str, wanted: Filter | None) -> frozenset[Value]:
    """What the attribute has to be for the filter to hold at all, as far as that is said outright."""
    match wanted:
        case AnyOf(key, values) if key == attribute and len(set(map(_told_apart, values))) == 1:
            return frozenset(values[:1])
        case Every(parts):
            return frozenset().union(*(_meant(attribute, part) for part in parts))
    return frozenset()


def _rest(attribute: str, wanted: Filter | None) -> Filter | None:
    """Without what holds for every document of the tenant."""
    match wanted:
        case AnyOf() if _meant(attribute, wanted):
            return None
        case Every(parts):
            left = tuple(each for part in parts if (each := _rest(attribute, part)) is not None)
            return left[0] if len(left) == 1 else Every(left) if left else None
    return wanted


def _told_apart(value: Value) -> tuple[type, Value]:
    """In Python true equals 1."""
    return type(value), value


def _is_name(text: str) -> bool:
    """Whether a database can hold it."""
    if not 0 < len(text) <= MAX_TEXT or "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
