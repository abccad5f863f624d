"""Models of MLflow: a folder whose `MLmodel` says what is in it.

What is inside is a model of XGBoost, LightGBM, ONNX or scikit-learn more often than not, and is then taken as that: MLflow is not needed
to run it. Any other is run as a pyfunc, which is code of its author, so its archive has to be pinned by its hash.
"""

import json
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import yaml

from inference.errors import ArtefactRefused
from inference.registry.artefacts import verify
from inference.runtimes import archive
from inference.runtimes.arrays import datatype, texts
from inference.runtimes.model import Columns
from inference.signature import Column, DataType, Signature

_TYPES: Final[Mapping[str, DataType]] = {
    "boolean": "BOOL",
    "integer": "INT32",
    "long": "INT64",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
}
_MOST_BYTES: Final = 8 << 30
_FILES: Final = {  # where a flavour's own file lies, by the key that MLflow keeps it under
    "xgboost": ("data", "model_file"),
    "lightgbm": ("data", "model_file"),
    "onnx": ("data",),
    "sklearn": ("pickled_model",),
}


class Folder:
    """One unpacked model. `inputs` is the signature that its author gave, if any."""

    def __init__(self, path: Path) -> None:
        """Raises ArtefactRefused."""
        self.path = path
        try:
            said = yaml.safe_load((path / "MLmodel").read_text(encoding="utf-8"))
            self.flavours: Mapping[str, Any] = said["flavors"]
            self._signature = said.get("signature") or {}
            dict(self.flavours)
        except (yaml.YAMLError, KeyError, TypeError, ValueError, OSError) as error:
            raise ArtefactRefused(f"Its `MLmodel` cannot be read: {error}", code="artefact_invalid") from error

    def inner(self) -> tuple[str, Path] | None:
        """The runtime and the file of what needs no MLflow. Raises ArtefactRefused for a place outside of the folder."""
        for runtime, keys in _FILES.items():
            flavour = self.flavours.get(runtime)
            if not isinstance(flavour, dict):
                continue
            name = next((flavour[key] for key in keys if isinstance(flavour.get(key), str)), None)
            if name is None:
                continue
            path = (self.path / name).resolve()
            if not path.is_relative_to(self.path.resolve()):
                raise ArtefactRefused(f"Its `MLmodel` names a file outside of it: {name!r}")
            if path.is_dir():  # some flavours keep a folder with one file in it
                path = next((each for each in sorted(path.iterdir()) if each.name.startswith("model.")), path)
            if path.is_file():
                return runtime, path
        return None

    def inputs(self) -> tuple[Column, ...] | None:
        """Raises ArtefactRefused for a signature that cannot be read."""
        said = self._signature.get("inputs")
        if not said:
            return None
        try:
            return tuple(_column(number, each) for number, each in enumerate(json.loads(said)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtefactRefused(
                f"The signature in its `MLmodel` cannot be read: {error}", code="artefact_invalid"
            ) from error

    def example(self) -> Any:
        """The input example that MLflow keeps beside a model, as rows; None without one."""
        for name in ("input_example.json", "serving_input_example.json"):
            try:
                said = json.loads((self.path / name).read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            said = said.get("dataframe_split", said) if isinstance(said, dict) else said
            if isinstance(said, dict) and "data" in said:
                columns = said.get("columns")
                return (
                    said["data"] if columns is None else [dict(zip(columns, row, strict=True)) for row in said["data"]]
                )
            if isinstance(said, list) and said:
                return said
        return None


@final
class Pyfunc:
    """`inference.ports.Runnable`."""

    def __init__(self, folder: Path, inputs: tuple[Column, ...], *, owned: Path | None = None) -> None:
        """`owned` is taken away in the end. Raises ArtefactRefused."""
        import mlflow.pyfunc  # noqa: PLC0415 — seconds; an error here names the extra

        self._inputs = inputs
        self._owned = owned
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._model = mlflow.pyfunc.load_model(str(folder))
        except Exception as error:  # a flavour's loader raises whatever its library does
            raise ArtefactRefused(
                f"MLflow cannot load the model: {str(error)[:300]}", code="artefact_invalid"
            ) from error

    def run(self, columns: Columns) -> Columns:
        import pandas as pd  # noqa: PLC0415 — MLflow's models take a frame

        single = len(self._inputs) == 1 and len(self._inputs[0].shape) > 1
        rows = (
            columns[self._inputs[0].name] if single else pd.DataFrame({e.name: columns[e.name] for e in self._inputs})
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = self._model.predict(rows)
        if isinstance(made, Mapping):
            return {str(name): _plain(values) for name, values in made.items()}
        if isinstance(made, pd.DataFrame):
            return {str(name): _plain(made[name]) for name in made.columns}
        return {"predictions": _plain(made)}

    def close(self) -> None:
        self._model = None
        if self._owned is not None:
            shutil.rmtree(self._owned, ignore_errors=True)


def restore(path: Path, digest: str, signature: Signature, facts: Mapping[str, Any]) -> Pyfunc:
    """Unpacks the archive for as long as the model is used."""
    if not facts.get("pinned"):
        raise ArtefactRefused("This pyfunc is not pinned", code="pickle_refused")
    verify(path, digest)
    folder = Path(tempfile.mkdtemp(prefix="penstock-mlflow-"))
    try:
        archive.unpack(path, folder, _MOST_BYTES)
        return Pyfunc(archive.root(folder), signature.inputs, owned=folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _column(number: int, said: Mapping[str, Any]) -> Column:
    if said["type"] == "tensor":
        spec = said["tensor-spec"]
        return Column(
            said.get("name") or "input", datatype(np.dtype(spec["dtype"])), tuple(int(size) for size in spec["shape"])
        )
    kind = _TYPES[said["type"]]
    return Column(said.get("name") or f"x{number}", kind, required=bool(said.get("required", True)))


def _plain(values: Any) -> Any:
    array = np.asarray(values)
    return texts(array) if array.dtype.kind in "US" else array
