"""What is registered answers as its library does, to float precision: looked at in this process, so that libraries are imported once."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.errors import ArtefactRefused, BadRequest, Unavailable
from inference.ports import Bundle
from inference.runtimes.arrays import DTYPES
from inference.runtimes.examination import examine
from inference.runtimes.job import Examined, Job
from inference.runtimes.loading import load
from tests.registry.conftest import Models, Trained

Signed = dict[str, Any]


def looked_at(trained: Trained, folder: Path, **fields: Any) -> Examined:
    path = folder / "artefact"
    path.write_bytes(trained.artefact)
    return examine(Job(trained.runtime, str(path), str(folder), 1 << 24, **fields))


def bundle(found: Examined) -> Bundle:
    path = Path(found.path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Bundle("m", 1, found.runtime, digest, path, found.signature, found.facts)


def columns(trained: Trained, found: Examined) -> dict[str, Any]:
    """The training data in the signature's words."""
    wanted = found.signature.inputs
    if len(wanted) == 1 and len(wanted[0].shape) > 1:
        return {wanted[0].name: trained.matrix.astype(DTYPES[wanted[0].datatype])}
    return {each.name: trained.rows[each.name].to_numpy(DTYPES[each.datatype]) for each in wanted}


@pytest.mark.parametrize("name", ["cancer", "diabetes", "digits", "xgboost", "lightgbm"])
def test_a_converted_model_answers_as_its_library_does(name: str, models: Models, folder: Path) -> None:
    """Scikit-learn, XGBoost and LightGBM on breast cancer, diabetes, digits and wine: the same classes, numbers to single precision."""
    trained = models[name]
    found = looked_at(trained, folder, example=trained.matrix[:100].tolist())
    assert found.runtime == "onnx"
    assert found.facts["conversion"]["kept"] is True
    model = load(bundle(found))
    made = model.run(columns(trained, found))
    scale = float(np.abs(trained.predictions).max())
    np.testing.assert_allclose(made["predictions"], trained.predictions, rtol=1e-5, atol=1e-6 * scale)
    if trained.probabilities is not None:
        np.testing.assert_allclose(made["probabilities"], trained.probabilities, rtol=1e-5, atol=1e-6)
    assert list(made) == [each.name for each in found.signature.outputs]
    model.close()


@pytest.mark.parametrize("name", ["spread", "diabetes", "xgboost", "lightgbm"])
def test_a_model_that_is_not_converted_is_served_as_it_is(name: str, models: Models, folder: Path) -> None:
    """Because nothing converts it (label spreading), or is not to be."""
    trained = models[name]
    found = looked_at(trained, folder, convert="auto" if name == "spread" else "never")
    assert found.runtime == trained.runtime
    assert found.facts["conversion"]["kept"] is False
    assert found.facts["conversion"]["reason"]
    model = load(bundle(found))
    made = model.run(columns(trained, found))
    np.testing.assert_allclose(made["predictions"], trained.predictions, rtol=1e-6)
    if trained.probabilities is not None:
        np.testing.assert_allclose(made["probabilities"], trained.probabilities, rtol=1e-6)
    model.close()


def test_a_conversion_that_is_required_and_fails_is_an_error(models: Models, folder: Path) -> None:
    """Whoever asks for it hears why it cannot be had."""
    with pytest.raises(ArtefactRefused, match="cannot be converted") as refused:
        looked_at(models["spread"], folder, convert="require")
    assert refused.value.code == "conversion_failed"


def test_labels_stand_for_class_numbers(models: Models, folder: Path) -> None:
    """XGBoost knows classes by number only; the metadata tells their labels, and there have to be as many."""
    trained = models["xgboost"]
    found = looked_at(trained, folder, classes=("low", "mid", "high"))
    assert (found.runtime, found.facts["classes"]) == ("onnx", ["low", "mid", "high"])
    made = load(bundle(found)).run(columns(trained, found))
    want = [("low", "mid", "high")[number] for number in trained.predictions]
    assert made["predictions"].tolist() == want
    assert found.signature.outputs[0].datatype == "BYTES"
    with pytest.raises(ArtefactRefused, match="3 classes"):
        looked_at(trained, folder, classes=("low", "high"))


def test_a_signature_is_learnt_from_the_artefact(models: Models, folder: Path) -> None:
    """Names, types, missing values and ranges, as far as the library keeps them."""
    inputs = looked_at(models["lightgbm"], folder, convert="never").signature.inputs
    assert (inputs[0].name, inputs[0].datatype, inputs[0].nullable) == ("mean_radius", "FP64", True)
    assert (inputs[0].minimum, inputs[0].maximum) == (6.981, 28.11)
    inputs = looked_at(models["diabetes"], folder, convert="never").signature.inputs
    assert [each.name for each in inputs[:3]] == ["age", "sex", "bmi"]
    assert not inputs[0].nullable
    (only,) = looked_at(models["digits"], folder, convert="never").signature.inputs
    assert (only.name, only.shape) == ("input", (-1, 64))
    graph = looked_at(models["graph"], folder).signature
    assert [(each.name, each.datatype, each.shape) for each in (*graph.inputs, *graph.outputs)] == [
        ("rows", "FP32", (-1, 3)),
        ("sums", "FP32", (-1, 1)),
    ]


def test_a_reference_sample_becomes_ranges_and_a_profile(models: Models, folder: Path) -> None:
    """As Parquet or CSV: quantiles, shares of nulls, categories."""
    import pandas as pd  # noqa: PLC0415 — for this one test

    trained = models["diabetes"]
    frame = pd.DataFrame(trained.rows).assign(target=trained.predictions, site=["a", "b"] * 221)
    frame.to_parquet(folder / "reference")
    found = looked_at(trained, folder, reference=str(folder / "reference"), target="target", convert="never")
    age = found.signature.inputs[0]
    assert (age.minimum, age.maximum) == (frame["age"].min(), frame["age"].max())
    assert found.profile is not None
    told = found.profile["columns"]["age"]
    assert told["quantiles"]["0.9"] == pytest.approx(frame["age"].quantile(0.9))
    assert (sum(told["histogram"]["counts"]), told["nulls"]) == (442, 0.0)
    assert set(found.profile["columns"]) == set(frame.columns) - {"target", "site"}
    assert found.profile["target"]["mean"] == pytest.approx(frame["target"].mean())


def test_columns_of_text_go_through(folder: Path) -> None:
    """A pipeline over categories and numbers, with a frame: its graph takes each column by itself."""
    import pandas as pd  # noqa: PLC0415 — for this one test
    import skops.io  # noqa: PLC0415 — as above
    from sklearn.compose import make_column_transformer  # noqa: PLC0415 — as above
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 — as above
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415 — as above
    from sklearn.preprocessing import OneHotEncoder, StandardScaler  # noqa: PLC0415 — as above

    frame = pd.DataFrame({"city": ["Bern", "Rome", "Oslo", "Rome"] * 10, "age": range(40)})
    labels = ["yes" if age % 3 else "no" for age in frame["age"]]
    encoder = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["city"]), (StandardScaler(), ["age"]))
    model = make_pipeline(encoder, LogisticRegression()).fit(frame, labels)
    trained = Trained("sklearn", skops.io.dumps(model), frame, model.predict(frame), model.predict_proba(frame))
    found = looked_at(trained, folder, example=frame.to_dict("records"))
    assert [(each.name, each.datatype) for each in found.signature.inputs] == [("city", "BYTES"), ("age", "FP64")]
    assert found.runtime == "onnx", found.facts
    made = load(bundle(found)).run(columns(trained, found))
    assert made["predictions"].tolist() == trained.predictions.tolist()
    np.testing.assert_allclose(made["probabilities"], trained.probabilities, rtol=1e-5)


def test_eight_bits_are_kept_only_where_they_hold(models: Models, folder: Path) -> None:
    """Trees and tiny layers gain nothing, and the note says so; the graph that is served stays the exact one."""
    trained = models["cancer"]
    found = looked_at(trained, folder, example=trained.matrix.tolist(), quantise=0.01)
    note = found.facts["quantisation"]
    assert note["kept"] is ("reason" not in note)  # which of them is luck: it is timed
    made = load(bundle(found)).run(columns(trained, found))
    assert float(np.mean(made["predictions"] == trained.predictions)) >= 0.99


def test_a_file_whose_bytes_have_changed_is_never_loaded(models: Models, folder: Path) -> None:
    """The digest is looked at before anything else is."""
    good = bundle(looked_at(models["graph"], folder))
    Path(good.artifact).write_bytes(Path(good.artifact).read_bytes() + b"\0")
    with pytest.raises(Unavailable) as damaged:
        load(good)
    assert damaged.value.code == "artefact_damaged"
    Path(good.artifact).unlink()
    with pytest.raises(Unavailable) as missing:
        load(good)
    assert missing.value.code == "artefact_missing"


def test_what_a_graph_does_not_take_is_the_callers_fault(models: Models, folder: Path) -> None:
    """A missing column and a wrong width are told, in our words."""
    model = load(bundle(looked_at(models["graph"], folder)))
    with pytest.raises(BadRequest, match="'rows' is missing"):
        model.run({})
    with pytest.raises(BadRequest, match="does not take this input"):
        model.run({"rows": np.zeros((2, 5), np.float32)})
