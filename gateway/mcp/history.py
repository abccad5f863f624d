"""Items of calls that the gateway made, as a model reads them: functions that were called, and what came of it. Pure.

An approval that a client gives for a call is answered by the call itself, at the place of the request for it.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Raw

from gateway import errors
from gateway.bodies import NULL
from gateway.responses.items import encode

OURS: Final = frozenset(("mcp_list_tools", "mcp_call", "mcp_approval_request", "mcp_approval_response"))
CALL: Final = "mcp_"
REQUEST: Final = "mcpr_"
_SAFE: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")


class Item(msgspec.Struct, gc=False):
    """What is read of such an item."""

    type: str = ""
    id: str = ""
    server_label: str = ""
    name: str = ""
    arguments: str = ""
    output: str | None = None
    error: Raw = NULL
    approval_request_id: str | None = None
    approve: bool = False
    reason: str | None = None


class Approved(msgspec.Struct, frozen=True):
    """A call that a person has agreed to, and that is to be made now."""

    request_id: str
    label: str
    name: str
    arguments: str


_item: Final = msgspec.json.Decoder(Item)
_kind: Final = msgspec.json.Decoder(dict[str, Raw])


def read(items: Sequence[Raw]) -> list[Item | None]:
    """Ours, and None for every other. Raises BadRequest."""
    return [_read(one, number) for number, one in enumerate(items)]


def approved(read_items: Sequence[Item | None]) -> list[Approved]:
    """Those that were agreed to and not made yet. Raises BadRequest for an approval of what nobody asked for."""
    requests = {one.id: one for one in read_items if one is not None and one.type == "mcp_approval_request"}
    made = {one.approval_request_id for one in read_items if one is not None and one.type == "mcp_call"}
    found: dict[str, Approved] = {}
    for number, one in enumerate(read_items):
        if one is None or one.type != "mcp_approval_response":
            continue
        asked = requests.get(one.approval_request_id or "")
        if asked is None:
            at = f"input[{number}].approval_request_id"
            raise errors.BadRequest(
                "There is no such request for an approval in this conversation", param=at, code="item_not_found"
            )
        if one.approve and asked.id not in made:
            found[asked.id] = Approved(asked.id, asked.server_label, asked.name, asked.arguments)
    return list(found.values())


def listed(read_items: Sequence[Item | None]) -> set[str]:
    """The labels of the servers whose tools are told already."""
    return {one.server_label for one in read_items if one is not None and one.type == "mcp_list_tools"}


def as_functions(
    items: Sequence[Raw], read_items: Sequence[Item | None], names: Mapping[tuple[str, str], str], fresh: Sequence[Item]
) -> list[Raw]:
    """The same conversation for a model. `names`: of functions, by label and tool; `fresh`: calls that were made for approvals just now."""
    every = [*(one for one in read_items if one is not None), *fresh]
    calls = {one.approval_request_id: one for one in every if one.type == "mcp_call" and one.approval_request_id}
    refused = {one.approval_request_id: one for one in every if one.type == "mcp_approval_response" and not one.approve}
    made: list[Raw] = []
    for raw, one in zip(items, read_items, strict=True):
        if one is None:
            made.append(raw)
        elif one.type == "mcp_call" and one.approval_request_id is None:
            made += pair(call_id_of(one.id), _name(one, names), one.arguments, told(one))
        elif one.type == "mcp_approval_request":
            call, no = calls.get(one.id), refused.get(one.id)
            if call is not None:
                made += pair(call_id_of(one.id), _name(one, names), one.arguments, told(call))
            elif no is not None:
                reason = f": {no.reason}" if no.reason else ""
                made += pair(
                    call_id_of(one.id), _name(one, names), one.arguments, f"The user did not approve this call{reason}"
                )
    return made


def pair(call_id: str, name: str, arguments: str, output: str) -> list[Raw]:
    """A function's call and what came of it."""
    call = {
        "type": "function_call",
        "call_id": call_id,
        "name": name,
        "arguments": arguments or "{}",
        "status": "completed",
    }
    result = {"type": "function_call_output", "call_id": call_id, "output": output, "status": "completed"}
    return [Raw(encode({"id": f"fc_{call_id}", **call})), Raw(encode({"id": f"fco_{call_id}", **result}))]


def told(call: Item) -> str:
    """What a model hears of a call."""
    if call.output is not None:
        return call.output
    return f"Error: {bytes(call.error).decode()}"


def item_id(prefix: str, call_id: str, taken: set[str], spare: str) -> str:
    """An id that has the model's own name for the call in it, which a provider may want to see again; `spare` where that is taken."""
    made = f"{prefix}{call_id}"
    if not _SAFE.fullmatch(call_id) or made in taken:
        made = f"{prefix}{spare}"
    taken.add(made)
    return made


def call_id_of(id_: str) -> str:
    """What `item_id` was made of."""
    for prefix in (REQUEST, CALL):
        if id_.startswith(prefix):
            return id_.removeprefix(prefix)
    return id_


def _name(one: Item, names: Mapping[tuple[str, str], str]) -> str:
    """Of a tool that is not offered any more there is still the plain name."""
    return (
        names.get((one.server_label, one.name))
        or re.sub(r"[^A-Za-z0-9_-]", "_", f"{one.server_label}__{one.name}")[:64]
    )


def _read(raw: Raw, number: int) -> Item | None:
    if b'"mcp_' not in bytes(raw):
        return None
    try:
        if bytes(_kind.decode(raw).get("type", NULL))[1:-1].decode("latin-1") not in OURS:
            return None
        return _item.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        at = f"input[{number}]"
        raise errors.BadRequest(f"Invalid '{at}': {error}", param=at, code="invalid_type") from None
