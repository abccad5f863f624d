"""What can go wrong with classic models, with the status and code that a client sees.

    InferenceError
    ├── BadRequest            400 invalid_request_error
    │   └── ArtefactRefused   400 invalid_request_error / artefact_refused, pickle_refused, artefact_invalid, …
    ├── Forbidden             403 permission_error / permission_denied
    ├── NotFound              404 invalid_request_error / version_not_found, alias_not_found
    │   └── ModelNotFound     404 invalid_request_error / model_not_found
    ├── Conflict              409 invalid_request_error / conflict, approval_required
    ├── TooLarge              413 invalid_request_error / request_too_large
    ├── Unavailable           503 overloaded / runtime_unavailable, artefact_damaged
    └── RunFailed             500 internal_error / model_failed: the model itself raised, hung or died

Whoever serves them renders them; this package knows no wire.
"""


class InferenceError(Exception):
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


class BadRequest(InferenceError):
    status, type = 400, "invalid_request_error"


class ArtefactRefused(BadRequest):
    """The file is not what it is said to be, or is of a kind that is not loaded here."""

    code = "artefact_refused"


class Forbidden(InferenceError):
    status, type, code = 403, "permission_error", "permission_denied"


class NotFound(InferenceError):
    status, type, code = 404, "invalid_request_error", "not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"


class Conflict(InferenceError):
    status, type, code = 409, "invalid_request_error", "conflict"


class TooLarge(InferenceError):
    status, type, code = 413, "invalid_request_error", "request_too_large"


class Unavailable(InferenceError):
    status, type, code = 503, "overloaded", "runtime_unavailable"


class TimedOut(InferenceError):
    status, type, code = 504, "timeout_error", "model_timeout"


class RunFailed(InferenceError):
    code = "model_failed"
