"""What routes and prompts make of a request before anything else reads it: a body that names one model and has all its messages."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, final

import msgspec

from gateway import errors
from gateway.bodies import NULL
from gateway.endpoint import Endpoint
from gateway.journal_records import Routed
from gateway.keys import Key
from gateway.routing.template import render
from gateway.routing.versions import Family, PromptVersion, RouteVersion, Sticky, V, Versions
from gateway.wire import array_in


class _Reference(msgspec.Struct, gc=False):
    id: str
    version: int | str | None = None
    variables: dict[str, Any] = {}


class _Named(msgspec.Struct, gc=False):
    model: str | None = None
    user: str | None = None
    prompt_cache_key: str | None = None
    prompt: msgspec.Raw = msgspec.Raw(b"")
    metadata: msgspec.Raw = NULL


class _Words(msgspec.Struct, frozen=True):
    """What an endpoint calls its messages, and parameters that chat has under other names."""

    messages: str
    names: Mapping[str, str] = {}


_MESSAGES: Final = _Words("messages")
_INPUT: Final = _Words("input", {"max_tokens": "max_output_tokens", "max_completion_tokens": "max_output_tokens"})

_named = msgspec.json.Decoder(_Named)
_reference = msgspec.json.Decoder(_Reference)
_fields = msgspec.json.Decoder(dict[str, Any])


@final
class Caller:
    """Who a version is drawn for: a request's key, end user, session, or the request alone."""

    def __init__(self, key: Key, headers: Mapping[bytes, bytes], request_id: str) -> None:
        self._key = key
        self._headers = headers
        self._request_id = request_id

    def told_apart_by(self, sticky: Sticky, named: _Named) -> str:
        if sticky == "request":
            return self._request_id
        if sticky == "session":
            session = self._headers.get(b"x-penstock-session")
            if session is not None:
                return f"session {session.decode('latin-1')}"
            if named.prompt_cache_key:
                return f"session {named.prompt_cache_key}"
        if sticky in {"session", "user"} and named.user:
            return f"user {self._key.id} {named.user}"
        return f"key {self._key.id}"


def applied(
    versions: Versions, endpoint: Endpoint, body: bytes, key: Key, caller: Caller
) -> tuple[bytes, Routed] | None:
    """The body that is to be answered, and which versions made it; None if it names neither a route nor a prompt.

    Raises AccessDenied, NotFound, BadRequest.
    """
    try:
        named = _named.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None  # whoever parses it says what is wrong
    if endpoint.front is not None:
        named.user = endpoint.front.end_user(named.metadata)
    prompt = named.prompt if bytes(named.prompt).startswith(b"{") and _takes(endpoint, versions, named.prompt) else None
    if prompt is None and named.model not in versions.routes:
        return None
    fields = _fields.decode(body)
    prompt_version = None if prompt is None else _prompted(versions, endpoint, fields, prompt, named, caller)
    name = fields.get("model")
    route = versions.routes.get(name) if isinstance(name, str) else None
    route_version = None if route is None else _rerouted(route, fields, named, key, caller)
    return msgspec.json.encode(fields), Routed(None, route_version, prompt_version)


def _takes(endpoint: Endpoint, versions: Versions, raw: msgspec.Raw) -> bool:
    """Whether a prompt is one of ours: always in a chat and in messages; of a response, OpenAI keeps some, too."""
    if endpoint.name != "responses":
        return endpoint.name == "chat" or endpoint.front is not None
    try:
        return _reference.decode(raw).id in versions.prompts
    except msgspec.DecodeError:
        return False


def _rerouted(route: Family[RouteVersion], fields: dict[str, Any], named: _Named, key: Key, caller: Caller) -> str:
    if not key.may_use(route.name):
        raise errors.AccessDenied(f"This key may not use the model '{route.name}'", param="model")
    drawn = _drawn(route, None, named, caller, "route")
    fields["model"] = drawn.model
    fields.update(drawn.params)
    return f"{route.name}@{drawn.version}"


def _prompted(
    versions: Versions, endpoint: Endpoint, fields: dict[str, Any], raw: msgspec.Raw, named: _Named, caller: Caller
) -> str:
    """Puts a prompt's messages before those of the request, and its parameters where the request has none."""
    try:
        reference = _reference.decode(raw)
    except msgspec.DecodeError as error:
        raise errors.BadRequest(f"Invalid 'prompt': {error}", param="prompt", code="invalid_type") from None
    family = versions.prompts.get(reference.id)
    if family is None:
        raise errors.NotFound(f"The prompt '{reference.id}' does not exist", param="prompt.id", code="prompt_not_found")
    drawn = _drawn(family, reference.version, named, caller, "prompt")
    messages = render(drawn.messages, _values(drawn, reference))
    del fields["prompt"]
    if endpoint.front is not None:
        endpoint.front.prompted(fields, messages, drawn.params, endpoint.name)
    else:
        _put_before(fields, messages, drawn.params, _INPUT if endpoint.name == "responses" else _MESSAGES)
    if drawn.model is not None:
        fields.setdefault("model", drawn.model)
    return f"{family.name}@{drawn.version}"


def _put_before(
    fields: dict[str, Any], messages: Sequence[Mapping[str, Any]], params: Mapping[str, Any], words: _Words
) -> None:
    own = array_in(fields, words.messages)
    fields[words.messages] = [*(messages if words is _MESSAGES else map(_item, messages)), *own]
    for name, value in params.items():
        fields.setdefault(words.names.get(name, name), value)


def _item(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """A chat's message as one of a response's input: texts among its parts have another name there."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    name = "output_text" if message.get("role") == "assistant" else "input_text"
    parts = [{**part, "type": name} if part.get("type") == "text" else part for part in content]
    return {**message, "content": parts}


def _drawn(family: Family[V], wanted: int | str | None, named: _Named, caller: Caller, kind: str) -> V:
    """The version that was asked for, or the one that the caller gets."""
    if wanted is None:
        found = family.draw(caller.told_apart_by(family.sticky, named))
        reason = "has no version with a weight"
    else:
        found = family.numbered(int(wanted)) if str(wanted).isdecimal() else None
        reason = f"has no version {wanted}"
    if found is None:
        param = "model" if kind == "route" else "prompt.version"
        raise errors.NotFound(f"The {kind} '{family.name}' {reason}", param=param, code=f"{kind}_not_found")
    return found


def _values(prompt: PromptVersion, reference: _Reference) -> Mapping[str, str]:
    given = reference.variables
    for name in sorted(prompt.variables ^ given.keys()):
        missing = name in prompt.variables
        raise errors.BadRequest(
            f"The prompt '{reference.id}' {'needs' if missing else 'has no'} variable '{name}'",
            param=f"prompt.variables.{name}",
            code="missing_required_parameter" if missing else "unknown_parameter",
        )
    return {name: _text(name, value) for name, value in given.items()}


def _text(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, int, float)):
        return msgspec.json.encode(value).decode()
    raise errors.BadRequest(
        f"Invalid 'prompt.variables.{name}': a text, a number or a boolean",
        param=f"prompt.variables.{name}",
        code="invalid_type",
    )
