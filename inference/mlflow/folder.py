"""A folder that MLflow loads: a file of ours with an `MLmodel` beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from inference.errors import BadRequest

# File, flavour, and how a pyfunc of it is loaded.
_FLAVOURS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "onnx": ("model.onnx", {"data": "model.onnx", "providers": ["CPUExecutionProvider"]}),
    "xgboost": ("model.json", {"data": "model.json", "model_class": "xgboost.core.Booster", "model_format": "json"}),
    "lightgbm": ("model.txt", {"data": "model.txt", "model_class": "lightgbm.basic.Booster"}),
}


def write_folder(folder: Path, runtime: str, content: bytes) -> None:
    """Raises BadRequest for a runtime that MLflow cannot load from its own format."""
    if runtime not in _FLAVOURS:
        raise BadRequest(
            f"A model of {runtime} is not published: MLflow would want a pickle of it", code="not_published"
        )
    name, flavour = _FLAVOURS[runtime]
    (folder / name).write_bytes(content)
    loaded = {"loader_module": f"mlflow.{runtime}", "data": name}
    said = {"flavors": {runtime: dict(flavour), "python_function": loaded}}
    (folder / "MLmodel").write_text(yaml.safe_dump(said, sort_keys=True), encoding="utf-8")
