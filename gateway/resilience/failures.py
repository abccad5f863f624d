"""Failures by class: which ones may be tried again, where, and what they say about a deployment."""

from typing import Final, Literal

from gateway import errors

Failure = Literal[
    "connect",  # no connection: nothing was sent
    "timeout",  # sent, and no answer in time
    "rate_limited",  # 429
    "credentials",  # 401, 402, 403, or a quota that is used up: no other call with this key will fare better
    "overloaded",  # 503, 529
    "server",  # any other 5xx, or an error inside a 200
    "cut",  # the connection broke before the answer was complete
    "malformed",  # an answer that is none
    "busy",  # our own limit of connections: says nothing about the deployment
    "unfit",  # the deployment's provider cannot do what is asked for, or its model is not sure: another one is asked
    "missing",  # 404: its model or its path is not there; whoever named it is us
    "context",  # the prompt is too long for the model
    "content",  # the provider refuses the content
    "client",  # the request is wrong everywhere
    "unaffordable",  # what the attempt might cost does not fit a budget or limit: nothing was sent
]

NEVER_REPEATED: Final = frozenset[Failure](("context", "content", "client", "unaffordable"))
FREE: Final = frozenset[Failure](
    ("connect", "credentials", "busy", "unfit", "missing")
)  # no work was done, so another place costs nothing
NO_USE_REPEATING: Final = frozenset[Failure](("credentials", "unfit", "missing"))  # at the same deployment
BREAKS: Final = frozenset[Failure](
    ("timeout", "overloaded", "server", "cut", "malformed")
)  # ends of streams that may be continued
SAYS_NOTHING: Final = frozenset[Failure](
    ("busy", "unfit", "missing")
)  # about the deployment: a 404 may be of a client's file
ANSWERED: Final = frozenset[Failure](("context", "content", "client"))  # the deployment did its work: it is well

_BY_KIND: Final[tuple[tuple[type[errors.GatewayError], Failure, Failure], ...]] = (  # sent, and not
    (errors.UpstreamUnreachable, "connect", "connect"),
    (errors.UpstreamCut, "cut", "cut"),
    (errors.UpstreamFailed, "server", "server"),
    (errors.UpstreamError, "malformed", "malformed"),
    (errors.UpstreamTimeout, "timeout", "connect"),
    (errors.Unsure, "unfit", "unfit"),
    (errors.Overloaded, "overloaded", "busy"),
    (errors.BadRequest, "client", "unfit"),
)
_CONTEXT_CODES = frozenset(("context_length_exceeded", "string_above_max_length"))
_CONTENT_CODES = frozenset(("content_policy_violation", "content_filter", "moderation_blocked"))


def failure_of(error: errors.GatewayError, *, sent: bool, named: bool = False) -> Failure:
    """The class of what an attempt raised. `sent`: whether an upstream may have seen the request.

    `named`: the configuration says which model is asked for there, not the client.
    """
    if isinstance(error, errors.UpstreamRefused):
        return _refused(error, named=named)
    if isinstance(error, errors.UpstreamError) and error.code == "upstream_credentials":
        return "credentials"
    for kind, when_sent, unsent in _BY_KIND:
        if isinstance(error, kind):
            return when_sent if sent else unsent
    return "client"


def wait_asked_s(error: errors.GatewayError) -> float | None:
    """What the upstream asks to wait: `retry-after-ms`, else `retry-after` in seconds, as which a date is kept."""
    fields = dict(error.headers)
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(fields[name]) * unit
        except (KeyError, ValueError):
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    return None


def _refused(error: errors.UpstreamRefused, *, named: bool) -> Failure:
    if error.code == "insufficient_quota" and error.status == 429:
        return "credentials"
    if error.status == 429:
        return "rate_limited"
    if error.code in _CONTEXT_CODES:
        return "context"
    if error.code in _CONTENT_CODES:
        return "content"
    if error.status == 404 and named and error.param in (None, "model"):
        return "missing"
    return "client"
