"""What can go wrong on the data plane, with the status and code that a client sees.

    GatewayError
    ├── BadRequest            400 invalid_request_error
    ├── Unauthenticated       401 authentication_error / invalid_api_key
    │   └── KeyExpired        401 authentication_error / expired_api_key
    ├── AccessDenied          403 permission_error / model_access_denied
    ├── NotFound              404 invalid_request_error / model_not_found
    ├── MethodNotAllowed      405 invalid_request_error / method_not_allowed
    ├── RequestTimeout        408 timeout_error / request_timeout
    ├── Conflict              409 invalid_request_error / conflict
    ├── BodyTooLarge          413 invalid_request_error / request_too_large
    ├── HeadersTooLarge       431 invalid_request_error / headers_too_large
    ├── BudgetExceeded        429 insufficient_quota / budget_exceeded, with x-should-retry: false
    ├── RateLimited           429 rate_limit_error / rate_limit_exceeded, with retry-after
    ├── Internal              500 internal_error
    ├── UpstreamError         502 upstream_error            the upstream answered nonsense or broke off
    │   ├── UpstreamUnreachable   502 upstream_error / upstream_unreachable
    │   ├── UpstreamFailed        502 upstream_error        it says so itself: a 5xx, or an error inside a 200
    │   └── UpstreamCut           502 upstream_error        its connection broke
    ├── Overloaded            503 overloaded / no_healthy_deployment, overloaded
    │   ├── LimitsUnavailable     503 overloaded / limits_unavailable
    │   └── Shed                  503 overloaded / overloaded, with retry-after: it waited, or could not be let wait
    ├── UpstreamTimeout       504 timeout_error / upstream_timeout
    ├── Unsure                503 overloaded / low_confidence: the model's fallbacks are asked
    └── UpstreamRefused       400 … 429, the upstream's own, passed on

Every one renders as `{"error": {"message", "type", "param", "code"}}`, the shape of the OpenAI API.
"""

import msgspec


class GatewayError(Exception):
    """An error with the face that a client sees. `headers` are extra response headers, names in lower case.

    `native`: status and body with which an upstream said so itself, for who speaks its API.
    """

    status = 500
    type = "internal_error"
    code: str | None = None
    native: tuple[int, bytes] | None = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.headers = headers
        if code is not None:
            self.code = code

    def body(self) -> bytes:
        """The JSON body in OpenAI's error shape."""
        return error_body(self.message, self.type, self.param, self.code)


class BadRequest(GatewayError):
    status, type = 400, "invalid_request_error"


class Unsure(GatewayError):
    """A model that would rather have another one answer: nothing is wrong with it, and its fallbacks are asked."""

    status, type, code = 503, "overloaded", "low_confidence"


class Unauthenticated(GatewayError):
    status, type, code = 401, "authentication_error", "invalid_api_key"


class KeyExpired(Unauthenticated):
    code = "expired_api_key"


class AccessDenied(GatewayError):
    status, type, code = 403, "permission_error", "model_access_denied"


class NotFound(GatewayError):
    status, type, code = 404, "invalid_request_error", "model_not_found"


class MethodNotAllowed(GatewayError):
    status, type, code = 405, "invalid_request_error", "method_not_allowed"


class RequestTimeout(GatewayError):
    status, type, code = 408, "timeout_error", "request_timeout"


class Conflict(GatewayError):
    status, type, code = 409, "invalid_request_error", "conflict"


class BodyTooLarge(GatewayError):
    status, type, code = 413, "invalid_request_error", "request_too_large"


class HeadersTooLarge(GatewayError):
    status, type, code = 431, "invalid_request_error", "headers_too_large"


class BudgetExceeded(GatewayError):
    """A repeated call would not fit either: clients that retry a 429 are told not to."""

    status, type, code = 429, "insufficient_quota", "budget_exceeded"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers=(("x-should-retry", "false"),))


class RateLimited(GatewayError):
    status, type, code = 429, "rate_limit_error", "rate_limit_exceeded"


class Internal(GatewayError):
    code = "internal_error"


class UpstreamError(GatewayError):
    status, type, code = 502, "upstream_error", "upstream_error"


class UpstreamUnreachable(UpstreamError):
    code = "upstream_unreachable"


class UpstreamFailed(UpstreamError):
    """The upstream reports that it failed."""


class UpstreamCut(UpstreamError):
    """The connection broke before the answer was complete."""


class Overloaded(GatewayError):
    status, type, code = 503, "overloaded", "no_healthy_deployment"


class LimitsUnavailable(Overloaded):
    code = "limits_unavailable"


class Shed(Overloaded):
    """A call that found its model full, and cannot be served in time."""

    code = "overloaded"


class UpstreamTimeout(GatewayError):
    status, type, code = 504, "timeout_error", "upstream_timeout"


class UpstreamRefused(GatewayError):
    """A refusal of the upstream's that the client can do something about, passed on with its status."""

    def __init__(
        self,
        status: int,
        message: str,
        type_: str,
        code: str | None,
        *,
        param: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message, param=param, code=code, headers=headers)
        self.status = status
        self.type = type_


def error_body(message: str, type_: str, param: str | None, code: str | None) -> bytes:
    """The one place that knows how an error looks on the wire."""
    return msgspec.json.encode({"error": {"message": message, "type": type_, "param": param, "code": code}})
