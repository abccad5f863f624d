"""The input of a batch: one call a line, as OpenAI has it, and everything that can be wrong with it. No I/O."""

from typing import Any, Final, final

import msgspec

from gateway import bodies, wire

MAX_ERRORS: Final = 100  # told of one file; who has more will not read them
MAX_CUSTOM_ID: Final = 512
_BLANK: Final = b" \t\r\n"


class Line(msgspec.Struct, frozen=True):
    """`number` counts from 1, blank lines too. `body` is the client's bytes."""

    number: int
    custom_id: str
    body: bytes
    model: str
    service_tier: str | None = None


class Problem(msgspec.Struct, frozen=True):
    """As OpenAI tells what is wrong with a batch. `line` None: with all of it."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


class Invalid(Exception):
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class _Call(msgspec.Struct):
    custom_id: str | None = None
    method: str | None = None
    url: str | None = None
    body: msgspec.Raw = bodies.NULL


class _Body(msgspec.Struct):
    model: str | None = None
    stream: Any = None
    service_tier: Any = None
    background: Any = None


_call = msgspec.json.Decoder(_Call)
_body = msgspec.json.Decoder(_Body)


def blank(raw: bytes) -> bool:
    return not raw.strip(_BLANK)


def parse(raw: bytes, number: int, endpoint: str) -> Line:
    """Raises Invalid."""
    call = _decoded(_call, raw, number, "")
    if not call.custom_id:
        raise Invalid(Problem("missing_required_parameter", "The line has no custom_id.", "custom_id", number))
    if len(call.custom_id) > MAX_CUSTOM_ID:
        raise Invalid(
            Problem("invalid_value", f"A custom_id has at most {MAX_CUSTOM_ID} characters.", "custom_id", number)
        )
    if call.method != "POST":
        raise Invalid(Problem("invalid_method", "The method has to be POST.", "method", number))
    if call.url != endpoint:
        message = f"The URL {call.url!r} is not the batch's endpoint {endpoint!r}."
        raise Invalid(Problem("mismatched_url", message, "url", number))
    if not wire.present(call.body):
        raise Invalid(Problem("missing_required_parameter", "The line has no body.", "body", number))
    body = _decoded(_body, call.body, number, "body")
    if not body.model:
        raise Invalid(Problem("missing_required_parameter", "The body names no model.", "body.model", number))
    if body.stream not in (None, False):
        raise Invalid(Problem("invalid_value", "Answers of a batch do not stream.", "body.stream", number))
    if body.background is True:  # for pictures it is a word
        raise Invalid(Problem("invalid_value", "A batch is in the background already.", "body.background", number))
    tier = body.service_tier if isinstance(body.service_tier, str) else None
    return Line(number, call.custom_id, bytes(call.body), body.model, tier)


@final
class Checker:
    """Takes every line of a file in order. `problems` says what is wrong, `model` is set where all lines ask for the same."""

    def __init__(self, endpoint: str, max_lines: int) -> None:
        self._endpoint = endpoint
        self._max_lines = max_lines
        self._seen: set[str] = set()
        self._models: set[str] = set()
        self.problems: list[Problem] = []
        self.total = 0
        self.numbers = 0

    @property
    def full(self) -> bool:
        """Nobody needs to look further."""
        return len(self.problems) >= MAX_ERRORS or self.total > self._max_lines

    @property
    def model(self) -> str | None:
        return next(iter(self._models)) if len(self._models) == 1 else None

    def take(self, raw: bytes) -> None:
        self.numbers += 1
        if blank(raw):
            return
        self.total += 1
        try:
            line = parse(raw, self.numbers, self._endpoint)
        except Invalid as invalid:
            self.problems.append(invalid.problem)
            return
        if line.custom_id in self._seen:
            message = f"The custom_id {line.custom_id!r} stands on an earlier line too."
            self.problems.append(Problem("duplicate_custom_id", message, "custom_id", line.number))
        self._seen.add(line.custom_id)
        if len(self._models) < 2:
            self._models.add(line.model)

    def end(self) -> None:
        if self.total == 0:
            self.problems.append(Problem("empty_file", "The input file has no lines.", "input_file_id"))
        if self.total > self._max_lines:
            message = f"A batch has at most {self._max_lines:,} lines."
            self.problems.append(Problem("too_many_lines", message, "input_file_id"))


def with_tier(body: bytes, tier: str) -> bytes:
    """The body, asking for a service tier."""
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    fields["service_tier"] = msgspec.Raw(msgspec.json.encode(tier))
    return msgspec.json.encode(fields)


def _decoded(decoder: msgspec.json.Decoder[Any], raw: bytes | msgspec.Raw, number: int, param: str) -> Any:
    try:
        bytes(raw).decode()  # names that no decoder looks for are passed over without a look at their bytes
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise Invalid(Problem("invalid_type", f"{error}.", param or None, number)) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise Invalid(
            Problem("invalid_json_line", "This line is not parseable as valid JSON.", param or None, number)
        ) from None
