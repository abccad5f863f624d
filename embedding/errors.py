"""What can go wrong while texts become vectors, with the status, type and code that a client sees.

    EmbeddingError
    ├── InvalidInput              400 invalid_request_error / invalid_input
    │   ├── InputTooLong          400 invalid_request_error / context_length_exceeded
    │   ├── RequestTooLarge       400 invalid_request_error / max_tokens_per_request, too_many_inputs
    │   ├── DimensionsUnsupported 400 invalid_request_error / dimensions_unsupported
    │   └── TokensUnsupported     400 invalid_request_error / token_input_unsupported
    ├── InferenceFailed           500 internal_error / embedding_failed
    └── Unavailable               503 overloaded / embedding_unavailable
        ├── Overloaded            503 overloaded / embedding_overloaded     the queue is full; try again
        └── Closed                503 overloaded / shutting_down

The engine knows no plane above it, so these carry the fields of the wire error; whoever serves them renders them.
"""


class EmbeddingError(Exception):
    """`param` names the field of the request; `retry_after_s` says when another attempt makes sense."""

    status = 500
    type = "internal_error"
    code = "embedding_failed"
    retry_after_s: float | None = None

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code


class InvalidInput(EmbeddingError):
    status, type, code = 400, "invalid_request_error", "invalid_input"


class InputTooLong(InvalidInput):
    code = "context_length_exceeded"


class RequestTooLarge(InvalidInput):
    code = "max_tokens_per_request"


class DimensionsUnsupported(InvalidInput):
    code = "dimensions_unsupported"


class TokensUnsupported(InvalidInput):
    code = "token_input_unsupported"


class InferenceFailed(EmbeddingError):
    pass


class Unavailable(EmbeddingError):
    status, type, code = 503, "overloaded", "embedding_unavailable"


class Overloaded(Unavailable):
    code = "embedding_overloaded"
    retry_after_s = 1.0


class Closed(Unavailable):
    code = "shutting_down"
