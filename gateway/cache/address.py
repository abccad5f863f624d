"""Under which key an answer is found: who asks, what answers, and everything in the request that changes the answer.

The tenant is part of the key, as are the model's version and the versions of its route and prompt. So nothing has to be looked for and
sorted out: an entry of somebody else, or of an earlier configuration, has another key.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from gateway.cache.controls import Controls
from gateway.cache.policy import Policy
from gateway.call import Call
from gateway.planner import regions_of
from gateway.record import Record

VERSION: Final = 1  # of the key: whoever changes what it is made of counts on
MAX_BODY_BYTES: Final = 1024 * 1024  # what is larger is worth more than its hash, and seldom comes twice

Endpoint = Literal["chat", "completions", "responses", "messages", "embeddings", "rerank"]
ENDPOINTS: Final[frozenset[str]] = frozenset(Endpoint.__args__)  # type: ignore[attr-defined] # what a Literal was made of

# How the answer travels, whose it is, and what is a matter of price, place or speed: the words stay the same.
_BESIDE: Final = (
    "model", "stream", "stream_options", "user", "safety_identifier", "store", "service_tier", "prompt_cache_key",
    "prompt_cache_retention", "prompt_cache_options", "background", "priority",
)  # fmt: skip
_CLIENTS_OWN: Final = frozenset({"function", "custom"})  # tools that the provider does not run by itself
# Items that say all that they are, so that their ids tell nothing.
_WHOLE: Final = (
    "message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output",
)  # fmt: skip
_RUN_UPSTREAM: Final = ("web_search_options", "mcp_servers", "container")
_DIALECT: Final = (b"anthropic-version", b"anthropic-beta")

_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode
_canonical: Final = msgspec.json.Encoder(order="sorted").encode
_pack: Final = msgspec.msgpack.Encoder().encode


class Address(msgspec.Struct, frozen=True):
    """`key` has 32 bytes. `partition` is what must be equal before anything is compared; `fields` the request that both are made of."""

    key: bytes
    partition: bytes
    fields: dict[str, Any]


def address(call: Call, policy: Policy, asked: Controls) -> Address | None:
    """None for what is never answered from a cache. `asked` names a part of the tenant's own entries."""
    body = call.body
    if len(body) > MAX_BODY_BYTES:
        return None
    try:
        fields = _decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None  # whoever sends it on says what is wrong
    if _acts(fields):
        return None
    told = (
        VERSION,
        _tenant(call.record, policy, fields),
        asked.namespace,
        _place(call, policy),
        _conditions(call, policy),
    )
    # What it rests on in documents: it changes with each of them, and with what the key may read.
    partition = _pack(told if call.grounds is None else (*told, call.grounds.version))
    hashed = hashlib.blake2b(partition, digest_size=32)
    hashed.update(_canonical(telling(call.endpoint.name, fields)))
    return Address(hashed.digest(), partition, fields)


def is_sampled(fields: Mapping[str, Any]) -> bool:
    """Whether the words of the answer are drawn: OpenAI's and Anthropic's default temperature is 1."""
    return fields.get("temperature") != 0 and fields.get("top_k") != 1


def _acts(fields: Mapping[str, Any]) -> bool:
    """Whether the provider does something beside answering: it searches, runs code, calls a server. That is not to be left out."""
    if any(fields.get(name) for name in _RUN_UPSTREAM):
        return True
    tools = fields.get("tools")
    if not isinstance(tools, list):
        return False
    return any(isinstance(tool, dict) and not _is_clients_own(tool.get("type", "custom")) for tool in tools)


def _is_clients_own(kind: Any) -> bool:
    return isinstance(kind, str) and kind in _CLIENTS_OWN


def _tenant(record: Record, policy: Policy, fields: Mapping[str, Any]) -> tuple[Any, ...]:
    """Who shares entries. A key that is in no team or organisation shares with nobody.

    A compatible server may be an agent that looks at who the end user is, so end users are told apart unless the configuration says no.
    """
    key = record.key
    assert key is not None
    match policy.scope:
        case "org" if key.org_id is not None:
            return ("org", key.org_id)
        case "team" if key.team_id is not None:
            return ("team", key.team_id)
        case "user":
            return ("user", key.id, record.user, fields.get("safety_identifier"))
        case _:
            return ("key", key.id)


def _place(call: Call, policy: Policy) -> tuple[Any, ...]:
    """What answers, in which words. A reranking's shape and Anthropic's betas are not in the body."""
    headers, routed, door = call.exchange.headers, call.record.routed, call.endpoint.door
    versions = () if routed is None else (routed.route_version, routed.prompt_version)
    guarded = () if call.guarded is None else (call.guarded.mark,)
    return (
        call.endpoint.name,
        None if door is None else getattr(door, "version", None),
        call.model.name,
        call.match,
        policy.version,
        versions if any(versions) else None,  # a router's choice is its model's name
        [headers.get(name) for name in _DIALECT] if call.endpoint.front is not None else None,
        *guarded,
    )


def _conditions(call: Call, policy: Policy) -> Any:
    """What decides where the call may go, where that is not the same for all. Who is bound to a region gets no answer from elsewhere."""
    regions = regions_of(call)
    if not policy.conditional:
        return sorted(regions)
    key = call.record.key
    metadata = {} if key is None else {name: str(value) for name, value in sorted(key.metadata.items())}
    return (sorted(regions), sorted(call.record.tags or ()), metadata)


def telling(endpoint: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the request that changes the answer."""
    told = {name: value for name, value in fields.items() if value is not None and name not in _BESIDE}
    items = told.get("input")
    if endpoint == "responses" and isinstance(items, list):
        told["input"] = [_unnamed(item) for item in items]
    return told


def _unnamed(item: Any) -> Any:
    """Without the id that every request gives its items anew; of other items the id says which content is meant."""
    if not isinstance(item, dict) or not (item.get("type", "message") in _WHOLE or item.get("encrypted_content")):
        return item
    return {name: value for name, value in item.items() if name not in {"id", "status"}}
