"""The output of a batch: one result a line, as OpenAI has it, and what it says of its line when it is read again. No I/O."""

from typing import Any, Final, Literal, final

import msgspec

Verdict = Literal["done", "again", "broke", "stop"]

PREFIX: Final = "batch_req_"
_LINE_END: Final = bytes.maketrans(b"\r\n", b"  ")  # between JSON's tokens; within a text it cannot stand


class Usage(msgspec.Struct, frozen=True):
    """Tokens, as OpenAI sums them up for a batch: cached ⊆ input, reasoning ⊆ output."""

    input: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.input + other.input,
            self.cached + other.cached,
            self.output + other.output,
            self.reasoning + other.reasoning,
        )


class Done(msgspec.Struct, frozen=True):
    """What a result says of its line."""

    number: int
    ok: bool
    usage: Usage


class _Cached(msgspec.Struct):
    cached_tokens: int | None = None


class _Reasoning(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    """As chat and embeddings report it, and as responses do."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    prompt_tokens_details: _Cached | None = None
    completion_tokens_details: _Reasoning | None = None
    input_tokens_details: _Cached | None = None
    output_tokens_details: _Reasoning | None = None


class _Error(msgspec.Struct):
    code: Any = None
    message: Any = None


class _Body(msgspec.Struct):
    usage: Any = None
    error: Any = None


class _Response(msgspec.Struct):
    status_code: int
    body: Any = None


class _Result(msgspec.Struct):
    id: str
    response: _Response | None = None
    error: _Error | None = None


_result = msgspec.json.Decoder(_Result)
_answer = msgspec.json.Decoder(_Body)


def result_id(batch_id: str, number: int) -> str:
    """The same for every try of a line."""
    return f"{PREFIX}{batch_id.removeprefix('batch_')}_{number}"


def answered(id_: str, custom_id: str, status: int, request_id: str | None, body: bytes) -> bytes:
    """One line. `body` is the answer's, as it came."""
    response = {"status_code": status, "request_id": request_id, "body": msgspec.Raw(_one_line(body))}
    return _line(id_, custom_id, response, None)


def unanswered(id_: str, custom_id: str, code: str, message: str) -> bytes:
    """For a line that was not served."""
    return _line(id_, custom_id, None, {"code": code, "message": message})


def read(line: bytes) -> Done | None:
    """What a result that was written says; None for what a crash left of one."""
    try:
        line.decode()
        found = _result.decode(line)
        number = int(found.id.rpartition("_")[2])
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None
    response = found.response
    if response is None or not 200 <= response.status_code < 300:
        return Done(number, ok=False, usage=Usage())
    usage = response.body.get("usage") if isinstance(response.body, dict) else None
    return Done(number, ok=True, usage=_usage(usage))


def usage_of(body: bytes) -> Usage:
    """Of an answer. Nothing, where it reports none."""
    try:
        return _usage(_answer.decode(body).usage)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return Usage()


def error_of(body: bytes) -> tuple[str | None, str]:
    """An answer's code and message."""
    try:
        error = msgspec.convert(_answer.decode(body).error, _Error)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None, "The call failed"
    return (None if error.code is None else str(error.code)), str(error.message or "The call failed")


def verdict(status: int, code: str | None) -> Verdict:
    """Whether an answer is the line's result, or says that it should be tried again: later, when there is money, or not at all."""
    match status, code:
        case 429, "budget_exceeded":
            return "broke"
        case 429, "insufficient_quota":  # the provider's own account
            return "done"
        case (429, _) | (503, _):
            return "again"
        case (401, _) | (403, "blocked"):
            return "stop"
        case _:
            return "done"


@final
class Counts:
    """Of the results so far."""

    def __init__(self) -> None:
        self.completed = 0
        self.failed = 0
        self.usage = Usage()

    def add(self, done: Done) -> None:
        if done.ok:
            self.completed += 1
        else:
            self.failed += 1
        self.usage += done.usage


def _line(id_: str, custom_id: str, response: object, error: object) -> bytes:
    return msgspec.json.encode({"id": id_, "custom_id": custom_id, "response": response, "error": error}) + b"\n"


def _one_line(body: bytes) -> bytes:
    """JSON as it is, less its line ends; anything else as a text."""
    try:
        body.decode()
        msgspec.json.decode(body, type=msgspec.Raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return msgspec.json.encode(body.decode("utf-8", "replace"))
    return body.translate(_LINE_END)


def _usage(reported: object) -> Usage:
    try:
        found = msgspec.convert(reported, _Usage)
    except msgspec.ValidationError:
        return Usage()
    into, out = (
        found.prompt_tokens_details or found.input_tokens_details,
        (found.completion_tokens_details or found.output_tokens_details),
    )
    return Usage(
        found.prompt_tokens or found.input_tokens or 0,
        (into.cached_tokens or 0) if into is not None else 0,
        found.completion_tokens or found.output_tokens or 0,
        (out.reasoning_tokens or 0) if out is not None else 0,
    )
