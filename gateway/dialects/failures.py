"""What an error inside an answer means, whatever API it came in: one meaning for every dialect."""

from gateway import errors
from gateway.bodies import UpstreamFault


def failed(found: UpstreamFault, unsaid: str) -> errors.GatewayError:
    """The error behind a fault in OpenAI's terms that came with a 200. `unsaid` stands for a message that is missing."""
    message = found.message or unsaid
    match found.type:
        case "overloaded":
            return errors.Overloaded(message, code="upstream_overloaded")
        case "rate_limit_error":
            return errors.UpstreamRefused(429, message, "rate_limit_error", "rate_limit_exceeded")
        case "timeout_error":
            return errors.UpstreamTimeout(message)
        case "authentication_error" | "permission_error" | "insufficient_quota":
            return errors.UpstreamError(message, code="upstream_credentials")
        case "invalid_request_error":
            code = found.code if isinstance(found.code, str) else None
            return errors.UpstreamRefused(400, message, "invalid_request_error", code, param=found.param)
        case _:
            return errors.UpstreamFailed(message)
