"""From a file to an answer: a model registered over REST is served at once, by alias, on every path, with the library's numbers."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import skops.io
import tritonclient.http
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.fixtures.server import Server
from tests.fixtures.swaps import times

Json = dict[str, Any]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server without anything of a test in it."""
    server = Server({"predictions": {"timeout_s": 20}}, tmp_path_factory.mktemp("registered")).start()
    yield server
    alive = server.running()
    server.stop()
    assert alive, server.output


def register(server: Server, name: str, artefact: bytes, runtime: str, **metadata: Any) -> Json:
    answer = server.admin.post(
        f"/registry/{name}/versions",
        files={"artifact": (f"{name}.bin", artefact)},
        data={"metadata": json.dumps({"runtime": runtime, **metadata})},
    )
    assert answer.status_code == 201, answer.text
    made: Json = answer.json()
    return made


def fitted(name: str) -> tuple[Any, Any]:
    """A pipeline and its rows, with names."""
    load = {"cancer": load_breast_cancer, "wine": load_wine}[name]
    rows, target = load(return_X_y=True, as_frame=True)
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)).fit(rows, target), rows


def ask(server: Server, name: str, body: Json) -> httpx.Response:
    """The snapshot follows within a second."""
    deadline = time.monotonic() + 20
    while (answer := server.post(f"/v1/predict/{name}", body)).status_code == 404:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.05)
    return answer


@pytest.mark.parametrize(("name", "convert"), [("cancer", "auto"), ("wine", "never")])
def test_a_registered_model_answers_with_the_librarys_numbers(registry: Server, name: str, convert: str) -> None:
    """Converted to ONNX, or as it is in a process; records, lists, columns, and the protocol in binary."""
    model, rows = fitted(name)
    made = register(registry, name, skops.io.dumps(model), "sklearn", convert=convert)
    assert made["runtime"] == ("sklearn" if convert == "never" else "onnx")
    some = rows[::20]
    matrix = np.asarray(some, np.float64)
    forms: list[Json] = [
        {"instances": matrix.tolist()},
        {"instances": some.to_dict("records")},
        {"dataframe_split": some.to_dict("split")},
        {"inputs": some.to_dict("list")},
    ]
    for form in forms:
        told = ask(registry, name, form)
        assert told.status_code == 200, told.text
        np.testing.assert_allclose(told.json()["predictions"], model.predict(some), rtol=1e-5)
        np.testing.assert_allclose(told.json()["probabilities"], model.predict_proba(some), rtol=1e-4, atol=1e-6)
    client = tritonclient.http.InferenceServerClient(registry.url.partition("://")[2])
    headers = {"authorization": f"Bearer {registry.key}"}
    inputs = []
    for index, one in enumerate(client.get_model_metadata(name, headers=headers)["inputs"]):
        array = matrix if name == "digits" else matrix[:, index]
        array = np.ascontiguousarray(
            array, {"FP64": np.float64, "FP32": np.float32, "INT64": np.int64}[one["datatype"]]
        )
        tensor = tritonclient.http.InferInput(one["name"], list(array.shape), one["datatype"])
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    found = client.infer(name, inputs, headers=headers).as_numpy("predictions")
    np.testing.assert_allclose(found.reshape(-1), model.predict(some), rtol=1e-5)
    client.close()


def test_an_alias_that_moves_takes_the_next_call_with_it(registry: Server) -> None:
    """The version that answers is the champion's as soon as the registry says so, and a challenger answers whoever asks for it."""
    for version, sign in ((1, 1), (2, -1)):
        made = register(registry, "moving", times(sign), "onnx")
        assert made["version"] == version
        if version == 1:
            assert registry.admin.put("/registry/moving/aliases/champion", json={"version": 1}).status_code == 200
    one = {"instances": [[[3.0]]]}
    assert ask(registry, "moving", one).json()["version"] == 1
    deadline = time.monotonic() + 20
    while registry.post("/v1/predict/moving?version=2", one).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert registry.admin.put("/registry/moving/aliases/champion", json={"version": 2}).status_code == 200
    while (told := registry.post("/v1/predict/moving", one).json())["version"] != 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert told["predictions"] == [[-3.0]]
