"""Errors as lines for people: a command that fails says what is wrong and what to do, without a traceback."""

from sqlalchemy.exc import SQLAlchemyError

from admin.commands.documents import Failed
from admin.config_file import ConfigError
from admin.migrate import SchemaError
from admin.telemetry.settings import TelemetryError
from gateway.errors import GatewayError
from gateway.secret_box import BoxError


def explained(error: Exception) -> str | None:
    """What to print for an expected error; None for one that is a bug."""
    match error:
        case ConfigError():
            return str(error)  # one line per mistake, each with its file and line
        case GatewayError():
            return f"penstock: {error.message}"
        case SQLAlchemyError():
            cause = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
            return f"penstock: the database does not answer: {cause.splitlines()[0]}"
        case Failed() | SchemaError() | TelemetryError() | BoxError() | OSError():
            return f"penstock: {error}"
        case _:
            return None
