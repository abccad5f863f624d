"""What an upstream's refusal means for the client: its own fault is passed on, ours and the upstream's become 502 to 504."""

import math
import re
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Final

from gateway import errors
from gateway.bodies import UpstreamFault
from gateway.target import Target
from gateway.upstream import UpstreamConnection
from gateway.wire import read_fault

PASSED_ON = frozenset((400, 404, 409, 413, 415, 422, 429))
KEPT_HEADERS = (b"retry-after", b"retry-after-ms", b"x-should-retry")
# How servers of OpenAI's API say that a prompt is too long, where they have no code for it.
TOO_LONG: Final = re.compile(
    r"maximum (?:context|prompt|model) length"  # vLLM, DeepSeek, Mistral, OpenRouter, Fireworks; xAI
    r"|longer than the model's context length"  # SGLang, Together
    r"|available context size"  # llama.cpp
    r"|greater than the context length"  # LM Studio
    r"|reduce the length of the (?:messages|prompt)"  # Groq
    r"|exceed(?:s|ed)? (?:the )?(?:model )?(?:context window|context length|max context length|token limit)"  # Moonshot, Ollama
    r"|context window exceeds limit"  # MiniMax
    r"|`inputs` (?:must have less than|tokens \+ `max_new_tokens` must be)",  # TGI
    re.IGNORECASE,
)
OVERLONG = frozenset((400, 413, 422))
# And that what was said is not wanted. Some say so with a 403, which says nothing of the key then: OpenRouter, xAI.
UNWANTED: Final = re.compile(
    r"was flagged for|violates usage guidelines"  # OpenRouter; xAI
    r"|content exists risk|may contain inappropriate content|considered high risk",  # DeepSeek, DashScope, Moonshot
    re.IGNORECASE,
)
# A 403 that is about one model: OpenAI's projects, Groq's.
NO_ACCESS: Final = re.compile(
    r"(?:not|n't) have access to (?:the )?model|blocked at the (?:organization|project) level"
)
OURS = frozenset(("authentication_error", "insufficient_quota"))  # some say 400 where it is the key that is wrong


Read = Callable[[int, bytes], UpstreamFault]


def refusal(connection: UpstreamConnection, target: Target, read: Read | None = None) -> errors.GatewayError:
    """The error for a complete answer that is not 2xx; `read` knows it better than the target. What it says of our credentials is
    nobody else's business."""
    error, body = _refusal(connection, target, read), connection.collected()
    if error.code != "upstream_credentials" and body.lstrip()[:1] in (b"{", b"["):
        error.native = connection.status, body
    return error


def _refusal(connection: UpstreamConnection, target: Target, read: Read | None) -> errors.GatewayError:
    status = connection.status
    body, dialect = connection.collected(), target.dialect
    if read is not None:
        fault = read(status, body)
    else:
        fault = read_fault(body) if dialect is None else dialect.fault(status, body, connection.fields)
    headers = tuple(
        (name.decode(), _seconds(value.decode("latin-1"), connection.header(b"date")))
        for name in KEPT_HEADERS
        if (value := connection.header(name)) is not None
    )
    return refused(status, fault, target.deployment.id, headers)


def refused(
    status: int, fault: UpstreamFault, where: str, headers: tuple[tuple[str, str], ...] = ()
) -> errors.GatewayError:
    """What a refusal of the deployment `where` means. `headers`: those of it that are kept."""
    message = fault.message or f"The upstream answered {status}"
    status = _about(status, fault, message)
    if not headers and fault.retry_after_s is not None:
        headers = (("retry-after", str(math.ceil(fault.retry_after_s))),)
    if status in PASSED_ON and not (status == 400 and fault.type in OURS):
        type_, code = _face(status, fault.code, message)
        return errors.UpstreamRefused(status, message, type_, code, param=fault.param, headers=headers)
    if status in (400, 401, 402, 403):
        return errors.UpstreamError(
            f"Deployment {where!r} was refused by its provider ({status}): its credentials need attention",
            code="upstream_credentials",
        )
    if status in (503, 529):
        return errors.Overloaded(
            f"Deployment {where!r} is overloaded: {message}", code="upstream_overloaded", headers=headers
        )
    if status in (408, 504):
        return errors.UpstreamTimeout(f"Deployment {where!r} timed out: {message}")
    return errors.UpstreamFailed(f"Deployment {where!r} failed ({status}): {message}", headers=headers)


def _about(status: int, fault: UpstreamFault, message: str) -> int:
    """A 403 as what it is about: the content (400) or the model (404). What is left is about the key."""
    if status != 403:
        return status
    if UNWANTED.search(message):
        return 400
    return 404 if fault.code == "model_not_found" or NO_ACCESS.search(message) else 403


def _seconds(value: str, said_at: bytes | None) -> str:
    """A wait that is given as a moment (RFC 9110 10.2.3), in seconds by the upstream's own clock; anything else as it is."""
    if said_at is None or not value.endswith("GMT"):
        return value
    try:
        until = parsedate_to_datetime(value)
        return str(max(0, math.ceil((until - parsedate_to_datetime(said_at.decode("latin-1"))).total_seconds())))
    except (ValueError, TypeError):
        return value


def _face(status: int, code: str | int | None, message: str) -> tuple[str, str | None]:
    """Type and code as the OpenAI API names them; numbers in `code` (vLLM repeats the status there) say nothing."""
    named = code if isinstance(code, str) else None
    if status == 429:
        quota = named == "insufficient_quota"
        return ("insufficient_quota" if quota else "rate_limit_error"), named or "rate_limit_exceeded"
    if status == 400 and UNWANTED.search(message):
        return "invalid_request_error", "content_policy_violation"
    if status in OVERLONG and TOO_LONG.search(message):
        return "invalid_request_error", "context_length_exceeded"
    if status == 404:
        return "invalid_request_error", named or "model_not_found"
    if status == 413:
        return "invalid_request_error", named or "request_too_large"
    return "invalid_request_error", named
