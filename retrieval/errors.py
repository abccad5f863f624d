"""What can go wrong with documents, with the status and code that a client sees.

    RetrievalError
    ├── BadRequest        400 invalid_request_error
    │   ├── BadFilter     400 invalid_request_error / invalid_filter
    │   ├── Expired       400 invalid_request_error / vector_store_expired
    │   └── TenantRequired 400 invalid_request_error / tenant_required
    ├── Forbidden         403 permission_error / access_label_denied
    ├── NotFound          404 invalid_request_error / vector_store_not_found, …
    ├── Conflict          409 invalid_request_error / conflict
    ├── QuotaExceeded     413 invalid_request_error / storage_quota_exceeded
    ├── Unavailable       503 overloaded / retrieval_unavailable
    └── Refused           somebody else's refusal (an embedding that was not made), passed on as it is

Whoever serves them renders them; this package knows no wire.
"""


class RetrievalError(Exception):
    """`param` names the field of the request. `headers` are extra response headers, names in lower case."""

    status = 500
    type = "internal_error"
    code: str | None = None

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


class BadRequest(RetrievalError):
    status, type = 400, "invalid_request_error"


class BadFilter(BadRequest):
    code = "invalid_filter"


class Expired(BadRequest):
    code = "vector_store_expired"


class TenantRequired(BadRequest):
    code = "tenant_required"


class Forbidden(RetrievalError):
    status, type, code = 403, "permission_error", "access_label_denied"


class NotFound(RetrievalError):
    status, type, code = 404, "invalid_request_error", "vector_store_not_found"


class Conflict(RetrievalError):
    status, type, code = 409, "invalid_request_error", "conflict"


class QuotaExceeded(RetrievalError):
    status, type, code = 413, "invalid_request_error", "storage_quota_exceeded"


class Unavailable(RetrievalError):
    status, type, code = 503, "overloaded", "retrieval_unavailable"


class Refused(RetrievalError):
    """`again`: whether the same may work later, so that work in the background waits for it instead of failing."""

    def __init__(
        self,
        status: int,
        message: str,
        type_: str,
        code: str | None,
        *,
        again: bool = False,
        wait_s: float | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message, code=code, headers=headers)
        self.status = status
        self.type = type_
        self.again = again
        self.wait_s = wait_s
