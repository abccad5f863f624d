"""Looks at an artefact, in a process of its own: opens it, learns its signature, tries a graph in its place, and profiles its data."""

import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from inference.errors import ArtefactRefused, InferenceError, Unavailable
from inference.runtimes import archive, sample
from inference.runtimes.arrays import column_of
from inference.runtimes.job import Examined, Job
from inference.runtimes.mlflow import Folder, Pyfunc
from inference.runtimes.model import Description, Hints, Inconvertible
from inference.runtimes.onnx import OnnxModel
from inference.runtimes.parity import compared
from inference.runtimes.profile import profiled
from inference.runtimes.sample import Table
from inference.signature import Column, Signature

OPENERS: Final[Mapping[str, str]] = {
    "onnx": "inference.runtimes.graph",
    "sklearn": "inference.runtimes.sklearn",
    "xgboost": "inference.runtimes.xgboost",
    "lightgbm": "inference.runtimes.lightgbm",
}
EXTRAS: Final[Mapping[str, str]] = {name: "embedded" if name == "onnx" else "classic" for name in (*OPENERS, "mlflow")}

Outputs = Mapping[str, NDArray[Any]]


def examine(job: Job) -> Examined:
    """Raises InferenceError."""
    if job.runtime == "mlflow":
        return _of_mlflow(job)
    if job.runtime == "remote":
        return _Examination(job, Path(job.path), job.runtime, job.inputs, job.example).elsewhere()
    return _Examination(job, Path(job.path), job.runtime, job.inputs, job.example).done()


def _of_mlflow(job: Job) -> Examined:
    unpacked = Path(job.folder) / "unpacked"
    archive.unpack(Path(job.path), unpacked, 4 * job.most_bytes)
    folder = Folder(archive.root(unpacked))
    example = job.example if job.example is not None else folder.example()
    inner = folder.inner()
    if inner is not None:
        runtime, path = inner
        declared = job.inputs or folder.inputs()
        try:
            return _Examination(job, path, runtime, declared, example).done()
        except ArtefactRefused as error:
            if error.code != "pickle_refused" or not job.pinned:
                raise
    if not job.pinned:
        raise ArtefactRefused("A pyfunc of MLflow runs code of its author", code="pickle_refused")
    return _pyfunc(job, folder, example)


def _pyfunc(job: Job, folder: Folder, example: Any) -> Examined:
    inputs = job.inputs or folder.inputs()
    table = _table(job, example)
    if inputs is None and table is not None and "" not in table:
        inputs = tuple(
            Column(name, "BYTES" if kind == "BYTES" else "FP64") for name, kind in sample.kinds(table).items()
        )
    if inputs is None:
        raise ArtefactRefused(
            "The model has no signature: log it with one, or give one in the metadata",
            param="metadata.signature",
            code="signature_missing",
        )
    try:
        model = Pyfunc(folder.path, inputs)
    except ImportError as error:
        raise _missing(error, "mlflow") from error
    rows = sample.generated(inputs, 4) if table is None else sample.fitted(table, inputs)
    outputs = _run(model, rows)
    signature = Signature(inputs, tuple(column_of(name, array) for name, array in outputs.items()))
    facts = {
        "task": "other",
        "classes": None,
        "pinned": True,
        "conversion": {"kept": False, "reason": "a pyfunc is not converted"},
    }
    reference = None if job.reference is None else profiled(rows)
    return Examined("mlflow", "mlflow", job.path, signature, facts, reference)


class _Examination:
    def __init__(self, job: Job, path: Path, runtime: str, inputs: tuple[Column, ...] | None, example: Any) -> None:
        self._job = job
        self._path = path
        self._runtime = runtime
        self._declared = inputs
        self._table = _table(job, example)
        self._notes: dict[str, Any] = {}

    def done(self) -> Examined:
        job, runtime = self._job, self._runtime
        module = import_module(OPENERS[runtime])
        try:
            opened = module.open_artefact(self._path.read_bytes(), pinned=job.pinned)
            kinds = {} if self._table is None else sample.kinds(self._table)
            found: Description = module.describe(opened, Hints(self._declared, kinds, job.classes, job.pinned))
        except ImportError as error:
            raise _missing(error, runtime) from error
        inputs = self._with_ranges(found)
        facts = dict(found.facts)
        if runtime == "onnx":
            if job.classes is not None:  # a graph has no place for them
                facts["classes"] = list(job.classes)
            return self._graph(opened, inputs, facts)
        rows = self._rows(inputs)
        native = module.runnable(opened, inputs, facts)
        wanted = _run(native, rows)
        signature = Signature(inputs, tuple(column_of(name, array) for name, array in wanted.items()))
        graph = self._converted(module, opened, signature, facts, rows, wanted)
        facts |= self._notes
        if graph is None:
            if job.convert == "require":
                raise ArtefactRefused(
                    f"It cannot be converted: {self._notes['conversion']['reason']}", code="conversion_failed"
                )
            facts |= {"pinned": True} if runtime == "sklearn" and self._path.read_bytes()[:4] != b"PK\x03\x04" else {}
            return Examined(runtime, runtime, str(self._path), signature, facts, self._profile(inputs))
        path = Path(job.folder) / "converted.onnx"
        path.write_bytes(graph)
        model = OnnxModel(graph, signature, facts.get("labels"))
        outputs = tuple(column_of(name, array) for name, array in model.run(rows).items())
        return Examined("onnx", runtime, str(path), Signature(inputs, outputs), facts, self._profile(inputs))

    def elsewhere(self) -> Examined:
        """What another server says of its model, and what it answers."""
        from inference.runtimes.peers import Peer, PeerModel, named  # noqa: PLC0415 — httpx comes with it

        peer, said = msgspec.convert(self._job.peer, Peer), named(self._path.read_bytes())
        inputs, single = (self._declared, frozenset[str]()) if self._declared else PeerModel(peer, said, ()).said()
        if not inputs:
            raise ArtefactRefused(
                f"The server '{peer.name}' does not say what the model takes: give its signature in the metadata",
                param="metadata.signature",
                code="signature_missing",
            )
        outputs = _run(PeerModel(peer, said, inputs), self._rows(inputs))
        made = {  # MLServer says a value a row, and gives a matrix of one column
            name: array.reshape(-1) if name in single and array.ndim == 2 and array.shape[1] == 1 else array
            for name, array in outputs.items()
        }
        signature = Signature(inputs, tuple(column_of(name, array) for name, array in made.items()))
        classes = None if self._job.classes is None else list(self._job.classes)
        facts = {"task": "other", "classes": classes, "peer": peer.name, "protocol": peer.protocol}
        return Examined("remote", "remote", str(self._path), signature, facts, self._profile(inputs))

    def _graph(self, opened: Any, inputs: tuple[Column, ...], facts: dict[str, Any]) -> Examined:
        """What came as a graph is served as it is, or with eight bits where that holds."""
        data, session = opened
        rows = self._rows(inputs)
        names = [each.name for each in session.get_outputs()]
        draft = Signature(inputs, tuple(Column(name, "FP32", (-1, -1)) for name in names))
        outputs = _run(OnnxModel(data, draft), rows)
        signature = Signature(inputs, tuple(column_of(name, outputs[name]) for name in names))
        facts |= _roles(outputs)
        smaller = self._quantised(data, signature, rows)
        facts |= self._notes
        path = self._path
        if smaller is not None:
            path = Path(self._job.folder) / "quantised.onnx"
            path.write_bytes(smaller)
        return Examined("onnx", "onnx", str(path), signature, facts, self._profile(inputs))

    def _converted(
        self, module: Any, opened: Any, signature: Signature, facts: Mapping[str, Any], rows: Table, wanted: Outputs
    ) -> bytes | None:
        """A graph that answers as the model does; None, with the reason in the notes, where there is none."""
        note: dict[str, Any] = {"kept": False, "rows": _length(rows), "sample": "given" if self._table else "generated"}
        self._notes["conversion"] = note
        if self._job.convert == "never":
            note["reason"] = "not wanted"
            return None
        try:
            candidates = module.convert(opened, signature.inputs, facts)
        except (Inconvertible, ImportError) as error:
            note["reason"] = str(error)
            return None
        for data in candidates:
            try:
                verdict = compared(wanted, OnnxModel(data, signature, facts.get("labels")).run(rows))
            except (InferenceError, ValueError) as error:
                note["reason"] = str(error)
                continue
            note["difference"] = verdict.difference
            if verdict.reason is None:
                note.pop("reason", None)
                note["kept"] = True
                return self._quantised(data, signature, rows) or data
            note["reason"] = verdict.reason
        return None

    def _quantised(self, data: bytes, signature: Signature, rows: Table) -> bytes | None:
        """With eight bits for weights, if that costs no more than is allowed, and is faster here."""
        allowed = self._job.quantise
        if allowed is None:
            return None
        from inference.runtimes.quantisation import attempt  # noqa: PLC0415 — for those who ask for it

        labels = None if self._table is None or self._job.target is None else self._table.get(self._job.target)
        smaller, self._notes["quantisation"] = attempt(data, signature, rows, labels, allowed, Path(self._job.folder))
        return smaller

    def _rows(self, inputs: tuple[Column, ...]) -> Table:
        if self._table is None:
            return sample.generated(inputs)
        return {name: array[: sample.TRIED] for name, array in sample.fitted(self._features(), inputs).items()}

    def _features(self) -> Table:
        assert self._table is not None
        return {name: array for name, array in self._table.items() if name != self._job.target}

    def _profile(self, inputs: tuple[Column, ...]) -> dict[str, Any] | None:
        """Only of a reference sample: a handful of example rows says nothing of the training data."""
        if self._job.reference is None or self._table is None:
            return None
        made = profiled(sample.fitted(self._features(), inputs))
        target = None if self._job.target is None else self._table.get(self._job.target)
        return made if target is None else {**made, "target": profiled({"target": target})["columns"]["target"]}

    def _with_ranges(self, found: Description) -> tuple[Column, ...]:
        """What the reference held: ranges, and whether values were missing."""
        if self._job.reference is None or self._table is None or self._declared is not None:
            return found.inputs
        made = []
        for each in found.inputs:
            array = self._table.get(each.name)
            if array is None or array.dtype.kind != "f" or len(each.shape) > 1 or not np.isfinite(array).any():
                made.append(each)
                continue
            low, high = float(np.nanmin(array)), float(np.nanmax(array))
            made.append(
                Column(each.name, each.datatype, each.shape, each.required, each.nullable, each.categories, low, high)
            )
        return tuple(made)


def _table(job: Job, example: Any) -> Table | None:
    if job.reference is not None:
        return sample.of_file(Path(job.reference))
    return None if example is None else sample.of_rows(example)


def _run(model: Any, rows: Table) -> Outputs:
    """A model that raises on its own sample is refused: it would fail every caller."""
    started = time.monotonic()
    try:
        outputs: Outputs = model.run(rows)
    except InferenceError as error:
        raise ArtefactRefused(f"The model does not answer its sample: {error.message}", code="sample_failed") from error
    except Exception as error:  # a model raises whatever it likes
        raise ArtefactRefused(
            f"The model raised on its sample after {time.monotonic() - started:.1f} s: {type(error).__name__}: {str(error)[:300]}. "
            "Give rows that it takes as `input_example`.",
            code="sample_failed",
        ) from error
    return outputs


def _roles(outputs: Outputs) -> dict[str, Any]:
    """Which output of a graph is the class and which its probabilities, by the names that scikit-learn's converter gives."""
    if {"label", "probabilities"} <= outputs.keys() or {"output_label", "output_probability"} <= outputs.keys():
        return {"task": "classification"}
    return {}


def _length(rows: Table) -> int:
    return len(next(iter(rows.values()), ()))


def _missing(error: ImportError, runtime: str) -> Unavailable:
    extra = EXTRAS[runtime]
    way = "install `mlflow-skinny`" if runtime == "mlflow" else f"install the extra `{extra}`"
    return Unavailable(f"Models of {runtime} need {error.name or 'a library'}, which is not installed here: {way}")
