"""What is not taken in, and why: hostile, damaged, mistaken and oversized artefacts, in a real server that lives on."""

import gzip
import hashlib
import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import skops.io
from sklearn.preprocessing import FunctionTransformer

from inference.errors import ArtefactRefused
from inference.runtimes.archive import unpack
from inference.runtimes.examination import examine
from inference.runtimes.job import Job
from inference.runtimes.limits import Limits
from inference.runtimes.sandbox import Sandbox
from tests.registry.conftest import Desk, Models
from tests.registry.test_rest import error


class Evil:
    """Whoever opens its pickle makes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self._path,)


def archived(*members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in members:
            made.writestr(name, data)
    return buffer.getvalue()


@pytest.mark.parametrize("wrap", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_pickle_is_refused_with_the_way_out_and_never_opened(
    desk: Desk, tmp_path: Path, wrap: Callable[[bytes], bytes]
) -> None:
    """The message names its hash, which is what the configuration would have to allow."""
    mark = tmp_path / "executed"
    artefact = wrap(pickle.dumps(Evil(mark)))
    told = error(desk.register("evil", artefact, "sklearn"), 400)
    assert (told["code"], told["param"]) == ("pickle_refused", "artifact")
    assert hashlib.sha256(artefact).hexdigest() in told["message"]
    assert "registry.pickles" in told["message"]
    for runtime in ("onnx", "xgboost", "lightgbm"):
        assert desk.register("evil", artefact, runtime).status_code == 400
    folder = archived(("MLmodel", b"flavors: {sklearn: {pickled_model: model.pkl}}"), ("model.pkl", artefact))
    assert error(desk.register("evil", folder, "mlflow"), 400)["code"] == "pickle_refused"
    function = b"flavors: {python_function: {loader_module: os, python_model: model.pkl}}"
    folder = archived(("MLmodel", function), ("model.pkl", artefact))
    assert error(desk.register("evil", folder, "mlflow"), 400)["code"] == "pickle_refused"
    assert not mark.exists()
    assert error(desk.http.get("/registry/evil"), 404)


def test_skops_with_a_type_that_is_not_trusted_is_refused(desk: Desk, tmp_path: Path) -> None:
    """It can name any function to be called: here one that is nobody's ufunc."""
    artefact = skops.io.dumps(FunctionTransformer(func=Path.touch, kw_args={"x": str(tmp_path / "executed")}))
    told = error(desk.register("evil", artefact, "sklearn"), 400)
    assert told["code"] == "untrusted_types"
    assert not (tmp_path / "executed").exists()


def test_a_pickle_that_is_pinned_is_opened(desk: Desk, pickled: bytes) -> None:
    """Its hash stands in the configuration; one more byte, and it does not."""
    made = desk.register("pinned", pickled, "sklearn")
    assert made.status_code == 201, made.text
    assert made.json()["runtime"] == "onnx"
    assert error(desk.register("pinned", pickled + b"\0", "sklearn"), 400)["code"] == "pickle_refused"


def strange_graph(**changes: Any) -> bytes:
    """A graph with an operator of somebody's own, or with its weights in another file."""
    weights = onnx.numpy_helper.from_array(np.ones((3, 1), np.float32), "weights")
    if changes.get("external"):
        weights.ClearField("raw_data")
        weights.data_location = onnx.TensorProto.EXTERNAL
        weights.external_data.add(key="location", value="/etc/hostname")
    node = onnx.helper.make_node("MatMul", ["rows", "weights"], ["sums"], domain=changes.get("domain", ""))
    made = onnx.helper.make_graph(
        [node],
        "sums",
        [onnx.helper.make_tensor_value_info("rows", onnx.TensorProto.FLOAT, ["n", 3])],
        [onnx.helper.make_tensor_value_info("sums", onnx.TensorProto.FLOAT, ["n", 1])],
        [weights],
    )
    opsets = [
        onnx.helper.make_opsetid("", 18),
        *([onnx.helper.make_opsetid("evil.ops", 1)] if changes.get("domain") else []),
    ]
    data: bytes = onnx.helper.make_model(made, opset_imports=opsets, ir_version=9).SerializeToString()
    return data


def test_what_is_damaged_or_mistaken_is_refused(models: Models, folder: Path) -> None:
    """With a code for each: by what the process says that looks at it."""
    graph = models["graph"].artefact
    cases = [
        ("onnx", graph[: len(graph) // 2], "artefact_invalid"),
        ("onnx", models["xgboost"].artefact, "artefact_invalid"),
        ("onnx", strange_graph(domain="evil.ops"), "custom_operators"),
        ("onnx", strange_graph(external=True), "external_data"),
        ("xgboost", models["lightgbm"].artefact, "artefact_invalid"),
        ("xgboost", models["xgboost"].artefact[:-200], "artefact_invalid"),
        ("lightgbm", models["lightgbm"].artefact[:900], "artefact_invalid"),
        ("sklearn", archived(("hello.txt", b"hello")), "artefact_invalid"),
        ("mlflow", archived(("hello.txt", b"hello")), "artefact_invalid"),
        ("mlflow", archived(("MLmodel", b"flavors: 7")), "artefact_invalid"),
        ("mlflow", archived(("../MLmodel", b"flavors: {}")), "artefact_refused"),
    ]
    for number, (runtime, artefact, code) in enumerate(cases):
        path = folder / f"artefact{number}"
        path.write_bytes(artefact)
        (folder / str(number)).mkdir()
        with pytest.raises(ArtefactRefused) as refused:
            examine(Job(runtime, str(path), str(folder / str(number)), 1 << 20))
        assert refused.value.code == code, (runtime, refused.value)


def test_a_refusal_is_a_clear_answer_and_nothing_is_registered(desk: Desk, models: Models) -> None:
    """In OpenAI's shape, from a server that lives on."""
    graph = models["graph"].artefact
    for artefact, code in (
        (b"", "artefact_invalid"),
        (graph[:40], "artefact_invalid"),
        (strange_graph(external=True), "external_data"),
    ):
        assert error(desk.register("broken", artefact, "onnx"), 400)["code"] == code
    assert error(desk.http.get("/registry/broken"), 404)
    assert desk.server.running()


def test_what_is_too_large_is_stopped(desk: Desk, models: Models) -> None:
    """While it arrives, when it unpacks, and in its words."""
    assert error(desk.register("large", bytes(3 << 20), "onnx"), 413)["param"] == "artifact"
    bomb = archived(("MLmodel", b"flavors: {}"), ("zeros", bytes(64 << 20)))
    assert len(bomb) < 1 << 20
    assert error(desk.register("large", bomb, "mlflow"), 400)["code"] == "archive_too_large"
    told = error(desk.register("large", models["graph"].artefact, "onnx", description="x" * (5 << 20)), 413)
    assert told["param"] == "metadata"


def test_words_that_mean_nothing_here_are_named(desk: Desk, models: Models) -> None:
    """Field by field."""
    graph = models["graph"].artefact

    def told(name: str = "words", runtime: str = "onnx", **metadata: Any) -> tuple[str | None, str | None]:
        answer = error(desk.register(name, graph, runtime, **metadata), 400)
        return answer["param"], answer["code"]

    assert told(digest="0" * 64) == ("metadata.digest", "digest_mismatch")
    assert told(runtime="torch")[0] == "runtime"
    assert told(name="no spaces please")[0] == "name"
    assert told(alias="v7")[0] == "alias"
    assert told(colour="red") == ("colour", "unknown_parameter")
    assert told(lineage={"code": {"sha": "x"}})[1] == "unknown_parameter"
    assert told(input_example=[[1.0, 2.0]]) == ("metadata.input_example", "invalid_value")
    assert told(tags={"a": 1})[0] == "tags.a"
    post = desk.http.post
    form: dict[str, Any] = {"artifact": ("m", graph), "metadata": (None, "{")}
    assert error(post("/registry/words/versions", files=form), 400)["code"] == "invalid_json"
    assert error(post("/registry/words/versions", files={"artifact": ("m", graph)}), 400)["param"] == "metadata"
    assert error(post("/registry/words/versions", json={}), 400)["code"] == "invalid_content_type"
    assert (
        error(post("/registry/words/versions", files={**form, "more": ("m", b"")}), 400)["code"] == "unknown_parameter"
    )
    assert error(desk.http.get("/registry/words"), 404)


def test_an_archive_stays_within_its_folder(tmp_path: Path) -> None:
    """Links and devices are not unpacked, whatever they point to."""
    path = tmp_path / "model.tar"
    with tarfile.open(path, "w") as made:
        link = tarfile.TarInfo("MLmodel")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        made.addfile(link)
    with pytest.raises(ArtefactRefused, match="link"):
        unpack(path, tmp_path / "out", 1 << 20)


def test_a_model_that_takes_too_long_or_too_much_is_ended(models: Models, folder: Path) -> None:
    """By the wall clock and by its memory: the process ends, and says so."""
    path = folder / "artefact"
    path.write_bytes(models["graph"].artefact)
    job = Job("onnx", str(path), str(folder), 1 << 24)
    with pytest.raises(ArtefactRefused) as slow:
        Sandbox(Limits(wall_s=0.01)).examine(job)
    assert slow.value.code == "too_slow"
    with pytest.raises(ArtefactRefused) as starved:
        Sandbox(Limits(memory_bytes=64 << 20)).examine(job)
    assert starved.value.code in {"artefact_crashed", "too_much_memory"}
