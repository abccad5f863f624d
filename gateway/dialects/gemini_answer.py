"""An answer of Gemini's as OpenAI's chat completion. What a stream and a whole answer have in common stands here as well."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Literal

import msgspec
from msgspec import Raw

from gateway import errors
from gateway.bodies import NULL
from gateway.dialects.gemini_faults import failed
from gateway.dialects.gemini_wire import Blob
from gateway.usage import from_gemini
from gateway.usage_reports import GeminiUsage
from gateway.used import Usage
from gateway.wire import present

Finish = Literal["stop", "length", "tool_calls", "content_filter"]

# Any other reason means that there is no whole answer: a call that is none, or no reason at all.
FINISHES: Final[Mapping[str, Finish]] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "BLOCKLIST": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "LANGUAGE": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "RECITATION": "content_filter",
    "SAFETY": "content_filter",
    "SPII": "content_filter",
}


class Called(msgspec.Struct, gc=False):
    name: str = ""
    args: Raw = NULL
    id: str | None = None


class Piece(msgspec.Struct, gc=False, rename="camel"):
    """A part of an answer; those of the provider's own tools are empty here."""

    text: str | None = None
    thought: bool = False
    thought_signature: str | None = None
    function_call: Called | None = None
    inline_data: Blob | None = None


class _Content(msgspec.Struct, gc=False):
    parts: list[Piece] | None = None


class Chosen(msgspec.Struct, gc=False, rename="camel"):
    token: str = ""
    log_probability: float = 0.0


class _Top(msgspec.Struct, gc=False):
    candidates: list[Chosen] | None = None


class LogprobsResult(msgspec.Struct, gc=False, rename="camel"):
    chosen_candidates: list[Chosen] | None = None
    top_candidates: list[_Top] | None = None


class Candidate(msgspec.Struct, gc=False, rename="camel"):
    content: _Content | None = None
    finish_reason: str | None = None
    finish_message: str | None = None
    index: int = 0
    logprobs_result: LogprobsResult | None = None

    @property
    def pieces(self) -> Sequence[Piece]:
        return (self.content.parts or ()) if self.content is not None else ()


class PromptFeedback(msgspec.Struct, gc=False, rename="camel"):
    block_reason: str | None = None
    block_reason_message: str | None = None


class GenerateContentResponse(msgspec.Struct, gc=False, rename="camel"):
    """A whole answer, or one event of a stream."""

    candidates: list[Candidate] | None = None
    prompt_feedback: PromptFeedback | None = None
    usage_metadata: GeminiUsage | None = None
    response_id: str | None = None
    error: Raw = NULL


class Google(msgspec.Struct, frozen=True):
    thought_signature: str


class ExtraContent(msgspec.Struct, frozen=True):
    """Sealed thoughts, where Google's compatible endpoint puts them; they must come back for the model to go on from them."""

    google: Google


class Function(msgspec.Struct, frozen=True):
    name: str
    arguments: str


class ToolCall(msgspec.Struct, frozen=True, omit_defaults=True):
    """`index` is for streams."""

    id: str
    type: str
    function: Function
    index: int | None = None
    extra_content: ExtraContent | None = None


class _Url(msgspec.Struct, frozen=True):
    url: str


class Image(msgspec.Struct, frozen=True):
    """A picture of the model's, where OpenRouter and others put one."""

    index: int
    image_url: _Url
    type: str = "image_url"


class TopLogprob(msgspec.Struct, frozen=True):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(msgspec.Struct, frozen=True):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class Logprobs(msgspec.Struct, frozen=True):
    content: list[TokenLogprob]
    refusal: None = None


class _Message(msgspec.Struct, frozen=True, omit_defaults=True):
    role: str
    content: str | None
    refusal: str | None
    tool_calls: list[ToolCall] | None = None
    reasoning_content: str | None = None
    images: list[Image] | None = None
    extra_content: ExtraContent | None = None


class _Choice(msgspec.Struct, frozen=True):
    index: int
    message: _Message
    finish_reason: Finish
    logprobs: Logprobs | None


class _PromptDetails(msgspec.Struct, frozen=True):
    cached_tokens: int
    audio_tokens: int


class _CompletionDetails(msgspec.Struct, frozen=True):
    reasoning_tokens: int
    audio_tokens: int


class UsageOut(msgspec.Struct, frozen=True):
    """OpenAI's usage: thoughts are part of the completion."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: _PromptDetails
    completion_tokens_details: _CompletionDetails


class _Completion(msgspec.Struct, frozen=True, omit_defaults=True):
    id: str
    object: str
    created: int
    model: str
    choices: list[_Choice]
    usage: UsageOut | None = None


decode: Final = msgspec.json.Decoder(GenerateContentResponse).decode
_encode: Final = msgspec.json.Encoder().encode


def completion(body: bytes, model: str, created: int, new_id: Callable[[], str]) -> tuple[bytes, Usage | None]:
    """The answer under the client's name for the model, and what it used. Raises UpstreamError, and whatever an error inside means."""
    try:
        answer = decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise errors.UpstreamError(f"The upstream's answer is not the one it should be: {error}") from None
    if present(answer.error):
        raise failed(body)
    if not answer.candidates:
        raise no_candidates(answer.prompt_feedback)
    used = None if answer.usage_metadata is None else from_gemini(answer.usage_metadata)
    made = _Completion(
        id=answer.response_id or new_id(),
        object="chat.completion",
        created=created,
        model=model,
        choices=[_choice(candidate, new_id) for candidate in answer.candidates],
        usage=None if used is None else usage_out(used),
    )
    return _encode(made), used


def no_candidates(feedback: PromptFeedback | None) -> errors.GatewayError:
    """Why there is no answer at all: the prompt was blocked, or something is wrong with the upstream."""
    if feedback is None or feedback.block_reason is None:
        return errors.UpstreamError("The upstream's answer has no candidates")
    reason = feedback.block_reason_message or feedback.block_reason
    return errors.UpstreamRefused(
        400, f"Gemini blocked the prompt: {reason}", "invalid_request_error", "content_policy_violation"
    )


def finish(candidate: Candidate, *, called: bool) -> Finish:
    """Why the answer ended. Raises UpstreamError if it is none."""
    reason = FINISHES.get(candidate.finish_reason or "")
    if reason is None:
        said = f": {candidate.finish_message}" if candidate.finish_message else ""
        raise errors.UpstreamError(f"Gemini gave up its answer ({candidate.finish_reason}){said}")
    return "tool_calls" if called and reason == "stop" else reason


def usage_out(used: Usage) -> UsageOut:
    return UsageOut(
        used.input,
        used.output,
        used.input + used.output,
        _PromptDetails(used.cached_read, used.audio_input),
        _CompletionDetails(used.reasoning, used.audio_output),
    )


def call_of(called: Called, signature: str | None, new_id: Callable[[], str], index: int | None = None) -> ToolCall:
    """Older models give their calls no ids; a client needs one to answer."""
    arguments = bytes(called.args).decode() if present(called.args) else "{}"
    return ToolCall(
        called.id or f"call_{new_id()}", "function", Function(called.name, arguments), index, sealed(signature)
    )


def sealed(signature: str | None) -> ExtraContent | None:
    return ExtraContent(Google(signature)) if signature else None


def image_of(data: Blob, index: int) -> Image:
    return Image(index, _Url(f"data:{data.mime_type};base64,{data.data}"))


def logprobs_of(result: LogprobsResult | None) -> Logprobs | None:
    if result is None or result.chosen_candidates is None:
        return None
    tops = result.top_candidates or []
    content = []
    for place, chosen in enumerate(result.chosen_candidates):
        others = (tops[place].candidates or ()) if place < len(tops) else ()
        top = [TopLogprob(other.token, other.log_probability, list(other.token.encode())) for other in others]
        content.append(TokenLogprob(chosen.token, chosen.log_probability, list(chosen.token.encode()), top))
    return Logprobs(content)


def text_of(pieces: Iterable[Piece], *, thought: bool) -> str:
    return "".join(piece.text for piece in pieces if piece.text and piece.thought is thought)


def signature_of(pieces: Sequence[Piece]) -> str | None:
    """Of what was said; a call has its own."""
    signatures = [piece.thought_signature for piece in pieces if piece.function_call is None and not piece.thought]
    return next((signature for signature in reversed(signatures) if signature), None)


def _choice(candidate: Candidate, new_id: Callable[[], str]) -> _Choice:
    pieces = candidate.pieces
    calls = [
        call_of(piece.function_call, piece.thought_signature, new_id)
        for piece in pieces
        if piece.function_call is not None
    ]
    pictures = [piece.inline_data for piece in pieces if piece.inline_data is not None and not piece.thought]
    text = text_of(pieces, thought=False)
    said = _Message(
        role="assistant",
        content=text if text or not calls else None,
        refusal=None,
        tool_calls=calls or None,
        reasoning_content=text_of(pieces, thought=True) or None,
        images=[image_of(picture, index) for index, picture in enumerate(pictures)] or None,
        extra_content=sealed(signature_of(pieces)),
    )
    return _Choice(candidate.index, said, finish(candidate, called=bool(calls)), logprobs_of(candidate.logprobs_result))
