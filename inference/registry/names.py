"""What a model, an alias and a runtime may be called."""

import re
from typing import Final, Literal

from inference.errors import BadRequest

Runtime = Literal["onnx", "sklearn", "xgboost", "lightgbm", "mlflow", "remote"]
RUNTIMES: Final[tuple[Runtime, ...]] = ("onnx", "sklearn", "xgboost", "lightgbm", "mlflow", "remote")

NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
ALIAS: Final = r"^[A-Za-z][A-Za-z0-9_-]{0,63}$"
DIGEST: Final = r"^[0-9a-f]{64}$"
CHAMPION: Final = "champion"

_RESERVED: Final = re.compile(r"latest|v\d+", re.IGNORECASE)  # MLflow's rule: they look like a version


def require_name(name: str) -> str:
    """Raises BadRequest."""
    if not re.fullmatch(NAME, name):
        raise BadRequest(
            f"name: {name[:140]!r} is no name for a model: letters, digits, '.', '_' and '-', 128 at most, a letter or digit first.",
            param="name",
            code="invalid_value",
        )
    return name


def require_alias(alias: str) -> str:
    """Raises BadRequest."""
    if not re.fullmatch(ALIAS, alias) or _RESERVED.fullmatch(alias):
        raise BadRequest(
            f"alias: {alias[:80]!r} is no alias: letters, digits, '_' and '-', 64 at most, a letter first, and neither `latest` nor "
            "`v` with a number, which would look like a version.",
            param="alias",
            code="invalid_value",
        )
    return alias
