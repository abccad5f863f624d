"""What a response says of itself whoever answers: its id, when it was made, and what was asked, as OpenAI's API repeats it."""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, final

import msgspec
from msgspec import Raw

from gateway.bodies import NULL, RawObject
from gateway.responses.items import encode, shown
from gateway.used import Usage
from gateway.wire import present

Status = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
ENDED: Final = frozenset(("completed", "incomplete", "failed", "cancelled"))

_RATE_LIMIT: Final = frozenset(("rate_limit_exceeded", "budget_exceeded", "insufficient_quota"))
_object: Final = msgspec.json.Decoder(RawObject)
_list: Final = msgspec.json.Decoder(list[Raw])
# What is repeated of a request, with what stands for a field that was left out.
_REPEATED: Final[tuple[tuple[str, object], ...]] = (
    ("instructions", None),
    ("max_output_tokens", None),
    ("max_tool_calls", None),
    ("parallel_tool_calls", True),
    ("previous_response_id", None),
    ("prompt_cache_key", None),
    ("reasoning", {"effort": None, "summary": None}),
    ("safety_identifier", None),
    ("service_tier", "default"),
    ("store", True),
    ("temperature", 1.0),
    ("text", {"format": {"type": "text"}}),
    ("tool_choice", "auto"),
    ("tools", []),
    ("top_logprobs", 0),
    ("top_p", 1.0),
    ("truncation", "disabled"),
    ("user", None),
    ("metadata", {}),
)


class Problem(msgspec.Struct, frozen=True):
    """Why a response failed; `code` is one of OpenAI's few."""

    code: str
    message: str


@final
class Frame:
    """One response's. `asked` is the client's body by fields; `include` what it wants to see beyond the usual."""

    __slots__ = ("_fields", "background", "conversation", "created_at", "id", "include", "model")

    def __init__(
        self,
        id_: str,
        created_at: int,
        model: str,
        asked: Mapping[str, Raw],
        *,
        include: Sequence[str] = (),
        conversation: str | None = None,
        background: bool = False,
    ) -> None:
        self.id = id_
        self.created_at = created_at
        self.model = model
        self.include = frozenset(include)
        self.conversation = conversation
        self.background = background
        self._fields = {
            name: asked[name] if present(asked.get(name, NULL)) else otherwise for name, otherwise in _REPEATED
        }

    @property
    def stem(self) -> str:
        """What ids of this response's items begin with."""
        return self.id.partition("_")[2]

    def response(
        self,
        status: Status,
        output: Sequence[Raw] = (),
        *,
        usage: Usage | None = None,
        error: Problem | None = None,
        reason: str | None = None,
        completed_at: int | None = None,
    ) -> dict[str, object]:
        """The whole object. `reason` is why it is incomplete."""
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created_at,
            "completed_at": completed_at,
            "status": status,
            "background": self.background,
            "conversation": None if self.conversation is None else {"id": self.conversation},
            "error": error,
            "incomplete_details": None if reason is None else {"reason": reason},
            "model": self.model,
            "output": list(output),
            "usage": None if usage is None else usage_of(usage),
        } | self._fields

    def own(self, foreign: Raw) -> Raw:
        """Another API's response object as this one: under its id, with what the client asked for where it was not passed on."""
        fields = _object.decode(foreign)
        mine = {
            "id": self.id,
            "created_at": self.created_at,
            "background": self.background,
            "conversation": None if self.conversation is None else {"id": self.conversation},
            **{name: self._fields[name] for name in ("previous_response_id", "store", "metadata")},
        }
        return Raw(encode(fields | {name: Raw(encode(value)) for name, value in mine.items()}))


def visible(response: Raw | bytes, include: frozenset[str]) -> Raw:
    """A response as a client gets it that asked for `include`."""
    raw = bytes(response)
    if b'"encrypted_content"' not in raw and b'"logprobs"' not in raw and b'"file_search_call"' not in raw:
        return Raw(raw)
    fields = _object.decode(raw)
    output = fields.get("output", NULL)
    if bytes(output).startswith(b"["):
        fields["output"] = Raw(encode([shown(one, include) for one in _list.decode(output)]))
    return Raw(encode(fields))


def altered(response: bytes, status: Status, problem: Problem | None) -> bytes:
    """A stored response with another status and, if it failed, the reason."""
    fields = _object.decode(response)
    fields["status"] = Raw(encode(status))
    fields["error"] = Raw(encode(problem))
    return encode(fields)


def output_of(response: bytes) -> list[Raw]:
    """The items of a stored response."""
    output = _object.decode(response).get("output", NULL)
    return _list.decode(output) if present(output) else []


def problem_of(code: str | None, message: str) -> Problem:
    """An error of ours as one of those that a response can have."""
    if code in _RATE_LIMIT:
        return Problem("rate_limit_exceeded", message)
    if code is not None and ("content" in code or code.startswith(("invalid", "unsupported", "context", "missing"))):
        return Problem("invalid_prompt", message)
    return Problem("server_error", message)


def usage_of(used: Usage) -> dict[str, object]:
    """As the Responses API reports it."""
    return {
        "input_tokens": used.input,
        "input_tokens_details": {"cached_tokens": used.cached_read, "cache_write_tokens": used.cache_write},
        "output_tokens": used.output,
        "output_tokens_details": {"reasoning_tokens": used.reasoning},
        "total_tokens": used.input + used.output,
    }
