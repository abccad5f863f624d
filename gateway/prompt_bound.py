"""How many tokens a request can have at most, from its bytes alone: what is held before a call must never be too little.

A token of a byte-level BPE vocabulary (OpenAI's, Llama 3's, Qwen's, DeepSeek's …) stands for at least one byte of text, and JSON only
makes text longer: an escape has more bytes than the character that it stands for. A message's frame in JSON
(`{"role":"user","content":""}`) is longer than its frame in a chat template. So the length of the body bounds the tokens of everything
that it spells out; what it only refers to (images, files, a template's own words) is covered by declared constants.
"""

from itertools import chain

import msgspec

from gateway.bodies import ChatRequest, CompletionRequest, Counted, EmbeddingRequest, Request, ResponsesRequest
from gateway.front import FrontRequest
from gateway.prompt_parts import Conversation, Link, Tool
from gateway.wire import capped, present

MOST_BYTES_PER_TOKEN = 8  # English prose has 4 to 5 in today's vocabularies
CALL_TOKENS = 512  # what templates and providers put around a prompt by themselves: a system prompt, how to call tools
IMAGE_TOKENS = 5_000  # the dearest picture of today's large models; gpt-4o-mini alone bills more (48,169)
FILE_TOKENS = 200_000  # a document, video or recording that is only referred to, where the model's context is not known

_ASCII_ESCAPE = b"\\u00"  # hides a plain character, so that searching for a word proves nothing
_BACKSLASH = ord("\\")  # and `find` for words: for bytes, `in` raises an exception and forgets it before it looks
_TEXTS = frozenset(("text", "input_text", "output_text", "refusal", "reasoning_text", "summary_text"))
_CLIENTS_OWN = frozenset(("function", "custom"))  # tools that the provider does not run by itself
_MEDIA = (b'"image', b'"input_', b'"file', b'"video', b'"audio', b'"document')


_tools = msgspec.json.Decoder(list[Tool])
_conversation = msgspec.json.Decoder(Conversation)


def upper_bound(
    body: bytes, request: Request, *, image_tokens: int = IMAGE_TOKENS, context_tokens: int | None = None
) -> int:
    """Tokens that the prompt cannot pass. `context_tokens`: what the model takes at most; longer prompts are refused there, unbilled."""
    bound = len(body) + CALL_TOKENS
    if isinstance(request, ChatRequest) and (
        body.find(b'"type"') >= 0 or (_BACKSLASH in body and body.find(_ASCII_ESCAPE) >= 0)
    ):
        # Templates indent the JSON of tools: at most one more token for each byte.
        bound += sum(len(bytes(tools)) for tools in (request.tools, request.functions) if present(tools))
        file_tokens = context_tokens or FILE_TOKENS
        if isinstance(request, FrontRequest):
            bound += request.pictures * image_tokens + request.files * file_tokens - request.inline_bytes
        else:
            bound += _beside_text(body, image_tokens, file_tokens)
        if isinstance(request, ResponsesRequest) and present(request.tools):
            bound += _found_by_tools(bytes(request.tools), file_tokens)
    return bound if context_tokens is None or bound < context_tokens else context_tokens


def output_bound(request: Request, max_output_tokens: int) -> int:
    """Tokens that all answers together cannot pass. `max_output_tokens`: the model's own limit, for a client that names none."""
    if not isinstance(request, ChatRequest):
        if isinstance(request, (EmbeddingRequest, Counted)):
            return 0
        limit = max_output_tokens if request.max_tokens is None else request.max_tokens
        return limit * max(request.n or 1, request.best_of or 1) * _prompts(request)
    named = request.max_tokens or 0
    if request.max_completion_tokens is not None and request.max_completion_tokens > named:
        named = request.max_completion_tokens
    most = (named or max_output_tokens) * (request.n or 1)
    return most + len(bytes(request.prediction)) if present(request.prediction) else most


def limited(body: bytes, request: Request, held_tokens: int) -> bytes:
    """The body of a chat that names a limit for its answer: what `output_bound` came to where the client named none.

    A provider that would choose for itself could go beyond what was held. Raises BadRequest.
    """
    if not isinstance(request, ChatRequest) or request.max_tokens or request.max_completion_tokens:
        return body
    predicted = len(bytes(request.prediction)) if present(request.prediction) else 0
    return capped(body, request, max(1, (held_tokens - predicted) // (request.n or 1)))


def surely_too_long(body: bytes, context_tokens: int | None) -> bool:
    """Whether a prompt of plain text cannot fit, at more bytes per token than any language has; nearer cases are the upstream's."""
    return context_tokens is not None and len(body) > MOST_BYTES_PER_TOKEN * context_tokens and text_only(body)


def text_only(body: bytes) -> bool:
    """Whether no token of the call can be audio or image or be cached for an hour, so that the dearer rates for those need no hold."""
    return (
        body.find(b"audio") < 0
        and body.find(b'"image') < 0
        and body.find(b'"input_image') < 0
        and body.find(b'"1h"') < 0
        and body.find(_ASCII_ESCAPE) < 0
    )


def _prompts(request: CompletionRequest) -> int:
    """A list of texts, or of lists of token ids, is one prompt each; a flat list of ids is one."""
    prompt = request.prompt
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        return len(prompt)
    return 1


def _found_by_tools(tools: bytes, file_tokens: int) -> int:
    """What a provider's own tools (web search, file search, …) put into the prompt while it answers: a document for each of them."""
    try:
        return file_tokens * sum(tool.type not in _CLIENTS_OWN for tool in _tools.decode(tools))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return file_tokens


def _beside_text(body: bytes, image_tokens: int, file_tokens: int) -> int:
    """What pictures and files add to the bytes of the body, less what inline pictures spell out in base64."""
    if _ASCII_ESCAPE not in body and not any(word in body for word in _MEDIA):
        return 0
    try:
        conversation = _conversation.decode(body)
    except (
        msgspec.DecodeError,
        RecursionError,
        UnicodeDecodeError,
    ):  # a shape that we do not know: take each word for the dearest
        return file_tokens * max(1, sum(body.count(word) for word in _MEDIA))
    messages = conversation.messages
    if isinstance(conversation.input, list):
        messages = [*messages, *conversation.input]
    extra = sum(file_tokens for message in messages if present(message.audio))
    contents = (one for message in messages for one in (message.content, message.output))
    for part in chain.from_iterable(content for content in contents if isinstance(content, list)):
        if isinstance(part, str) or part.type in _TEXTS:
            continue
        if part.type is not None and "image" in part.type:
            extra += image_tokens - _inline(part.image_url)
        elif part.type != "input_audio":  # its sound is inline, and a second of it has more bytes than tokens
            extra += file_tokens
    return extra


def _inline(link: Link | str | None) -> int:
    url = link.url if isinstance(link, Link) else link
    return len(url) if url is not None and url.startswith("data:image/") else 0
