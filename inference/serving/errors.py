"""What can go wrong with a prediction, beside what `inference.errors` has for every part of this plane.

InferenceError
├── BadRequest
│   └── BadInput      400 invalid_request_error / invalid_input, and what `values` and `reading` say
├── NotAllowed        405 invalid_request_error / method_not_allowed
├── RunFailed         500 model_error / model_failed: the model raised
│   ├── LoadFailed        500 model_error / model_load_failed
│   └── InvalidOutput     500 model_error / invalid_output: it does not keep to its signature
├── ModelBusy         503 overloaded / model_busy: too many wait for it
├── ModelTimeout      504 timeout_error / model_timeout: it did not return in time, and was replaced
└── Refused           what the caller's account says: key, limit, budget
"""

import msgspec

from inference.errors import BadRequest, InferenceError, RunFailed


class BadInput(BadRequest):
    code = "invalid_input"


class NotAllowed(InferenceError):
    status, type, code = 405, "invalid_request_error", "method_not_allowed"


class ModelError(RunFailed):
    """The model itself, and nobody else."""

    type = "model_error"


class LoadFailed(ModelError):
    code = "model_load_failed"


class InvalidOutput(ModelError):
    code = "invalid_output"


class ModelBusy(InferenceError):
    status, type, code = 503, "overloaded", "model_busy"


class ModelTimeout(InferenceError):
    status, type, code = 504, "timeout_error", "model_timeout"


class Refused(InferenceError):
    """Said by whoever keeps the accounts, in its own words."""

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


def body(error: InferenceError) -> bytes:
    """JSON in OpenAI's shape."""
    fields = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    return msgspec.json.encode({"error": fields})


def head(error: InferenceError) -> bytes:
    """The header lines of its answer."""
    lines = (f"{name}: {value}\r\n" for name, value in error.headers)
    return b"content-type: application/json\r\n" + "".join(lines).encode("latin-1", "replace")
