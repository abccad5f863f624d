"""From a bundle to a model that runs."""

from collections.abc import Mapping
from importlib import import_module
from typing import Final

from inference.errors import Unavailable
from inference.ports import Bundle, Runnable

# ONNX runs wherever it is asked for: its graphs were looked at, and hold no code. Whatever else there is belongs into a child.
_MODULES: Final[Mapping[str, str]] = {
    "onnx": "inference.runtimes.onnx",
    "sklearn": "inference.runtimes.sklearn",
    "xgboost": "inference.runtimes.xgboost",
    "lightgbm": "inference.runtimes.lightgbm",
    "mlflow": "inference.runtimes.mlflow",
}


def load(bundle: Bundle) -> Runnable:
    """In this very process, in a thread: it blocks. All but ONNX only in a process that may hang or die of it.

    Raises Unavailable where the artefact or a library is missing or the file's bytes have changed, ArtefactRefused where it does not load.
    """
    if (
        bundle.runtime == "remote"
    ):  # see `inference.runtimes.peers`: their servers are known to the serving process alone
        raise Unavailable("A model of another server answers requests, and no jobs", code="peer_unknown")
    try:
        made: Runnable = import_module(_MODULES[bundle.runtime]).restore(
            bundle.artifact, bundle.digest, bundle.signature, bundle.metadata
        )
    except ImportError as error:
        extra = {"onnx": "`embedded`", "mlflow": "`classic`, and mlflow-skinny"}.get(bundle.runtime, "`classic`")
        raise Unavailable(f"Models of {bundle.runtime} need {error.name}: install the extra {extra}") from error
    return made
