"""The tool `file_search` as clients ask for it: read strictly, so that a mistake is named and not searched with. Pure."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw

from gateway import errors
from gateway.bodies import NULL, RawObject
from gateway.grounding.ports import Wanted
from gateway.wire import present

TYPE: Final = "file_search"
MOST_STORES: Final = 16
StoreName = Annotated[str, Meta(min_length=1, max_length=256)]


class _Hybrid(msgspec.Struct, forbid_unknown_fields=True):
    embedding_weight: Annotated[float, Meta(ge=0, le=1000)]
    text_weight: Annotated[float, Meta(ge=0, le=1000)]


class _Ranking(msgspec.Struct, forbid_unknown_fields=True):
    ranker: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    score_threshold: Annotated[float, Meta(ge=0, le=1)] | None = None
    hybrid_search: _Hybrid | None = None


class _Wish(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    vector_store_ids: Annotated[list[StoreName], Meta(min_length=1, max_length=MOST_STORES)]
    max_num_results: Annotated[int, Meta(ge=1, le=50)] | None = None
    ranking_options: _Ranking | None = None
    filters: dict[str, Any] | None = None


_wish: Final = msgspec.json.Decoder(_Wish)
_tools: Final = msgspec.json.Decoder(list[Raw])
_object: Final = msgspec.json.Decoder(RawObject)


def parted(tools: Raw | Sequence[Raw]) -> tuple[list[Raw], Wanted | None, str]:
    """The other tools, what is to be searched, and where in the request that stands. Raises BadRequest."""
    if isinstance(tools, Raw):
        if not bytes(tools).startswith(b"["):
            return [], None, ""  # somebody else's to refuse
        tools = _tools.decode(tools)
    others: list[Raw] = []
    found: tuple[Wanted, str] | None = None
    for number, one in enumerate(tools):
        if kind_of(one) != TYPE:
            others.append(one)
        elif found is None:
            found = read(one, f"tools[{number}]"), f"tools[{number}]"
        else:
            raise errors.BadRequest(
                "file_search is there twice: name all vector stores in one",
                param=f"tools[{number}]",
                code="invalid_value",
            )
    return (others, *found) if found is not None else (others, None, "")


def read(tool: Raw, at: str) -> Wanted:
    """Raises BadRequest."""
    try:
        wish = _wish.decode(tool)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        text, _, where = str(error).partition(" - at `$")
        param = f"{at}{where.rstrip('`')}"
        raise errors.BadRequest(f"Invalid '{param}': {text}", param=param, code="invalid_type") from None
    ranking = wish.ranking_options or _Ranking()
    hybrid = ranking.hybrid_search
    return Wanted(
        tuple(dict.fromkeys(wish.vector_store_ids)),
        wish.max_num_results or Wanted(()).most,
        wish.filters,
        ranking.score_threshold or 0.0,
        1.0 if hybrid is None else hybrid.embedding_weight,
        1.0 if hybrid is None else hybrid.text_weight,
        weighed=hybrid is not None,
        ranker=ranking.ranker or "auto",
    )


def kind_of(item: Raw) -> str:
    """Its type, if it is an object with one."""
    fields: Mapping[str, Raw] = _object.decode(item) if bytes(item).startswith(b"{") else {}
    value = fields.get("type", NULL)
    return msgspec.json.decode(value) if present(value) and bytes(value).startswith(b'"') else ""
