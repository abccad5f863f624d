"""Models as Anthropic's clients list them: https://docs.claude.com/en/api/models-list. Pure: OpenAI's rows in, pages out."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final
from urllib.parse import parse_qs

from gateway.errors import BadRequest

MARK: Final = b"anthropic-version"  # the header by which these clients are known: every one of them has to send it
MAX_ROWS: Final = 1000
_USUAL: Final = 20
_KNOWN: Final = frozenset(("limit", "after_id", "before_id", "beta"))

Row = Mapping[str, object]


def model(row: Row) -> dict[str, object]:
    """A name stands for itself; what is known beside it keeps the names that it has in OpenAI's shape."""
    made = datetime.fromtimestamp(int(str(row["created"])), UTC).isoformat().replace("+00:00", "Z")
    rest = {name: value for name, value in row.items() if name not in {"id", "object", "created", "owned_by"}}
    return {"type": "model", "id": row["id"], "display_name": row["id"], "created_at": made, **rest}


def page(rows: Sequence[Row], query: str) -> dict[str, object]:
    """The models behind `after_id` or before `before_id`, at most `limit`. Raises BadRequest."""
    limit, after, before = _asked(query)
    names = [str(row["id"]) for row in rows]
    start, end = 0, len(names)
    if after is not None:
        start = _place(names, after, "after_id") + 1
    if before is not None:
        end = _place(names, before, "before_id")
    first = max(start, end - limit) if before is not None else start
    last = min(end, first + limit)
    shown = [model(row) for row in rows[first:last]]
    more = first > start if before is not None else last < end
    ends = {"first_id": shown[0]["id"], "last_id": shown[-1]["id"]} if shown else {"first_id": None, "last_id": None}
    return {"data": shown, "has_more": more, **ends}


def _asked(query: str) -> tuple[int, str | None, str | None]:
    fields = {name: values[-1] for name, values in parse_qs(query, keep_blank_values=True).items()}
    unknown = sorted(fields.keys() - _KNOWN)
    if unknown:
        raise BadRequest(f"{unknown[0]} is not a parameter of this list", param=unknown[0], code="unknown_parameter")
    limit = fields.get("limit", str(_USUAL))
    if not (limit.isascii() and limit.isdigit() and len(limit) < 5 and 1 <= int(limit) <= MAX_ROWS):
        raise BadRequest(f"limit is a number from 1 to {MAX_ROWS}", param="limit", code="invalid_value")
    return int(limit), fields.get("after_id"), fields.get("before_id")


def _place(names: Sequence[str], name: str, param: str) -> int:
    if name not in names:
        raise BadRequest(f"{param}: there is no model '{name}' in this list", param=param, code="invalid_value")
    return names.index(name)
