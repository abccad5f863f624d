"""What the gateway itself reads of a request to `/v1/responses` or `/v1/conversations`: what is kept, and what went before."""

from collections.abc import Mapping
from typing import Annotated, Any, Final
from urllib.parse import parse_qs

import msgspec
from msgspec import Meta, Raw

from gateway import bodies, errors, wire
from gateway.bodies import NULL

Id = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,128}\Z")]
Text = Annotated[str, Meta(max_length=512, pattern=r"^[^\x00]*\Z")]
Name = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[^\x00]*\Z")]
Metadata = Annotated[dict[Name, Text], Meta(max_length=16)]

MOST_ON_A_PAGE: Final = 100


class _Named(msgspec.Struct, gc=False):
    id: Id


class _Reasoning(msgspec.Struct, gc=False):
    summary: str | None = None
    generate_summary: str | None = None


class Create(msgspec.Struct, gc=False):
    """`POST /v1/responses`."""

    model: bodies.ModelName
    input: Raw = NULL
    previous_response_id: Id | None = None
    conversation: Id | _Named | None = None
    background: bool | None = None
    store: bool | None = None
    stream: bool | None = None
    include: list[str] | None = None
    reasoning: _Reasoning | None = None
    metadata: Metadata | None = None

    @property
    def conversation_id(self) -> str | None:
        return self.conversation.id if isinstance(self.conversation, _Named) else self.conversation

    @property
    def summarised(self) -> bool:
        asked = self.reasoning
        return asked is not None and (asked.summary or asked.generate_summary) is not None


class CreateConversation(msgspec.Struct, gc=False):
    """`POST /v1/conversations`."""

    items: Raw = NULL
    metadata: Metadata | None = None


class UpdateConversation(msgspec.Struct, gc=False):
    metadata: Metadata | None


class CreateItems(msgspec.Struct, gc=False):
    items: Raw


class Page(msgspec.Struct, frozen=True):
    """Which part of a list. OpenAI's lists of items begin with the newest."""

    after: str | None
    limit: int
    ascending: bool
    include: frozenset[str]


create_decoder: Final = msgspec.json.Decoder(Create)
conversation_decoder: Final = msgspec.json.Decoder(CreateConversation)
update_decoder: Final = msgspec.json.Decoder(UpdateConversation)
items_decoder: Final = msgspec.json.Decoder(CreateItems)


def create(body: bytes) -> Create:
    """Raises BadRequest."""
    asked = wire.parse(create_decoder, body)
    if asked.previous_response_id is not None and asked.conversation_id is not None:
        raise errors.BadRequest(
            "previous_response_id and conversation cannot be used together",
            param="previous_response_id",
            code="mutually_exclusive_parameters",
        )
    if asked.background and asked.store is False:
        raise errors.BadRequest(
            "A response in the background has to be stored: leave out store, or background", param="store"
        )
    return asked


Query = Mapping[str, list[str]]


def query_of(url: bytes) -> Query:
    """Of a request target. Lists come as `include=a&include=b` or, as the SDK sends them, `include[]=a`."""
    found: dict[str, list[str]] = {}
    for name, values in parse_qs(url.partition(b"?")[2].decode("latin-1"), max_num_fields=64).items():
        found.setdefault(name.removesuffix("[]"), []).extend(values)
    return found


def one_of(query: Query, name: str) -> str | None:
    values = query.get(name)
    return values[-1] if values else None


def included(query: Query) -> frozenset[str]:
    return frozenset(query.get("include", ()))


def page_of(query: Query) -> Page:
    """Raises BadRequest."""
    limit = whole_number(query, "limit")
    order = one_of(query, "order") or "desc"
    if limit is not None and not 1 <= limit <= MOST_ON_A_PAGE:
        raise errors.BadRequest(f"Invalid 'limit': from 1 to {MOST_ON_A_PAGE}", param="limit")
    if order not in {"asc", "desc"}:
        raise errors.BadRequest("Invalid 'order': asc or desc", param="order")
    return Page(one_of(query, "after"), limit or 20, order == "asc", included(query))


def whole_number(query: Query, name: str) -> int | None:
    """Raises BadRequest."""
    text = one_of(query, name)
    if text is None:
        return None
    if not (text.isascii() and text.removeprefix("-").isdecimal() and len(text) < 12):
        raise errors.BadRequest(f"Invalid '{name}': a whole number", param=name)
    return int(text)


def flag(query: Query, name: str) -> bool:
    return (one_of(query, name) or "").lower() in {"true", "1"}


def raw_fields(body: bytes) -> dict[str, Any]:
    """A body that was read before, by fields. Raises BadRequest for a name that is no text."""
    try:
        return msgspec.json.decode(body, type=dict[str, Raw])
    except UnicodeDecodeError as error:
        raise errors.BadRequest(f"The body is not valid JSON: {error}", code="invalid_json") from None
