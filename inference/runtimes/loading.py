"""From a bundle to a model that runs."""

from collections.abc import Mapping
from importlib import import_module
from typing import Final

from inference.errors import Unavailable
from inference.ports import Bundle, Runnable

# ONNX runs in the process that asks: its graphs were checked, and hold no code. Whatever else there is runs apart.
_MODULES: Final[Mapping[str, str]] = {
    "onnx": "inference.runtimes.onnx",
}
_HERE: Final = frozenset({"onnx"})
_EXTRAS: Final[Mapping[str, str]] = {"onnx": "embedded"}


def load(bundle: Bundle) -> Runnable:
    """Blocks: for a thread. ONNX in this process, everything else in a child of its own (`inference.runtimes.apart`).

    Raises Unavailable where the artefact or a library is missing or its bytes have changed, RunFailed where it does not load.
    """
    return load_here(bundle)


def load_here(bundle: Bundle) -> Runnable:
    """In this very process, whatever it is: only for a process that may die of it."""
    try:
        module = import_module(_MODULES[bundle.runtime])
    except ImportError as error:
        extra = _EXTRAS[bundle.runtime]
        raise Unavailable(f"Models of {bundle.runtime} need {error.name}: install the extra `{extra}`") from error
    made: Runnable = module.restore(bundle.artifact, bundle.digest, bundle.signature, bundle.metadata)
    return made
