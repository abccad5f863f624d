"""What the protocol leaves open, or other servers do not serve: every type, real models over each way in, the repository, accounts."""

import gzip
import json
import struct
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from numpy.typing import NDArray

from inference.oip.proto import Messages, messages
from tests.fixtures.predictions import Serving
from tests.fixtures.server import ADMIN_KEY
from tests.serving.models import Trained

DATA = ("cancer", "wine", "diabetes", "digits")


def auth(server: Serving, key: str | None = None) -> dict[str, str]:
    return {"authorization": f"Bearer {key or server.key}"}


def infer(server: Serving, model: str, body: Any, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body)
    return server.http.post(f"/v2/models/{model}/infer", content=content, headers={**auth(server), **headers})


def one(datatype: str, data: list[Any], **fields: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": datatype, "shape": [len(data)], "data": data, **fields}


def columns(model: Trained, count: int) -> dict[str, NDArray[np.float32]]:
    names = [column.name for column in model.bundle.signature.inputs]
    if len(names) == 1:
        return {names[0]: model.rows[:count]}
    return {name: np.ascontiguousarray(model.rows[:count, index]) for index, name in enumerate(names)}


def same(found: dict[str, NDArray[Any]], model: Trained, count: int) -> None:
    first, *rest = [column.name for column in model.bundle.signature.outputs]
    np.testing.assert_allclose(found[first].reshape(-1), model.predictions[:count], rtol=1e-5)
    if rest and model.probabilities is not None:
        np.testing.assert_allclose(found[rest[0]], model.probabilities[:count], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", DATA)
def test_real_models_answer_tritonclient_with_the_librarys_numbers(
    predicting: Serving, trained: dict[str, Trained], name: str
) -> None:
    """HTTP in binary and in JSON, gRPC: the same floats."""
    model, count = trained[name], 16
    outputs = [column.name for column in model.bundle.signature.outputs]
    client = tritonclient.http.InferenceServerClient(predicting.url.partition("://")[2])
    with tritonclient.grpc.InferenceServerClient(predicting.grpc) as other:
        for module, way, settings in (
            (tritonclient.http, client, {}),
            (tritonclient.http, client, {"binary_data": False}),
            (tritonclient.grpc, other, {}),
        ):
            inputs = []
            for each, array in columns(model, count).items():
                tensor = module.InferInput(each, list(array.shape), "FP32")
                tensor.set_data_from_numpy(array, **settings)
                inputs.append(tensor)
            result = way.infer(name, inputs, headers=auth(predicting))
            same({each: result.as_numpy(each) for each in outputs}, model, count)
    client.close()


@pytest.mark.parametrize("name", DATA)
def test_real_models_answer_typed_contents_over_grpc(
    predicting: Serving, trained: dict[str, Trained], channel: grpc.Channel, name: str
) -> None:
    """As clients without NumPy write them; what was asked in typed contents is answered in them."""
    model, count, made = trained[name], 8, messages()
    inputs = []
    for each, array in columns(model, count).items():
        tensor = made("InferInputTensor", name=each, datatype="FP32", shape=list(array.shape))
        tensor.contents.fp32_contents.extend(array.reshape(-1).tolist())
        inputs.append(tensor)
    response = call(channel, made, "ModelInfer", predicting.key, model_name=name, id="mine", inputs=inputs)
    assert not response.raw_output_contents
    assert (response.id, response.model_version) == ("mine", "1")
    found = {}
    for output in response.outputs:
        values = output.contents.int64_contents or output.contents.fp32_contents
        found[output.name] = np.array(list(values)).reshape(list(output.shape))
    same(found, model, count)


def call(channel: grpc.Channel, made: Messages, method: str, key: str | None, **fields: Any) -> Any:
    ask = channel.unary_unary(
        f"/inference.GRPCInferenceService/{method}",
        request_serializer=made.classes[f"{method}Request"].SerializeToString,
        response_deserializer=made.classes[f"{method}Response"].FromString,
    )
    metadata = () if key is None else (("authorization", f"Bearer {key}"),)
    return ask(made(f"{method}Request", **fields), metadata=metadata, timeout=30)


@pytest.mark.parametrize(
    ("datatype", "values"),
    [
        ("BYTES", ["", "a", "grün", "x" * 1000]),
        ("FP16", [0.0, 1.5, -2.0]),
        ("BOOL", [True, False]),
        ("INT64", [-(2**63), 2**63 - 1]),
        ("UINT8", [0, 255]),
    ],
)
def test_every_type_goes_both_ways(predicting: Serving, datatype: str, values: list[Any]) -> None:
    """In JSON, in binary with and without the header, and over gRPC in raw contents."""
    model = f"echo-{datatype.lower()}"
    plain = infer(predicting, model, {"inputs": [one(datatype, values)]})
    assert plain.status_code == 200, plain.text
    assert plain.json()["outputs"][0]["data"] == values
    dtype = {"FP16": "<f2", "BOOL": "?", "INT64": "<i8", "UINT8": "u1"}.get(datatype)
    if dtype is None:
        raw = b"".join(struct.pack("<I", len(value.encode())) + value.encode() for value in values)
    else:
        raw = np.array(values, dtype).tobytes()
    asked = {"name": "x", "datatype": datatype, "shape": [len(values)], "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [asked], "parameters": {"binary_data_output": True}}).encode()
    for headers in ({"inference-header-content-length": str(len(head))}, {}):
        answer = infer(predicting, model, head + raw, **headers)
        assert answer.status_code == 200, answer.text
        length = int(answer.headers["inference-header-content-length"])
        assert answer.content[length:] == raw
    with tritonclient.grpc.InferenceServerClient(predicting.grpc) as client:
        tensor = tritonclient.grpc.InferInput("x", [len(values)], datatype)
        array = np.array([value.encode() for value in values], object) if dtype is None else np.array(values, dtype)
        tensor.set_data_from_numpy(array)
        found = client.infer(model, [tensor], headers=auth(predicting)).as_numpy("y").tolist()
        assert found == (array.tolist() if dtype is None else values)


@pytest.mark.parametrize(
    ("model", "tensor", "place"),
    [
        ("echo", one("FP64", [1.0], shape=[1 << 62]), "inputs[0].shape"),
        ("echo", one("FP64", [1.0], shape=[0]), "inputs[0].data"),
        ("echo", one("FP64", [1.0, "x"]), "inputs[0].data[1]"),
        ("echo", one("FP64", [[1.0], [1.0, 2.0]], shape=[2]), "inputs[0].data"),
        ("echo-bool", one("BOOL", [1]), "inputs[0].data[0]"),
        ("echo-uint8", one("UINT8", [3, 256]), "inputs[0].data[1]"),
        ("echo-int64", one("INT64", [2**63]), "inputs[0].data[0]"),
        ("echo-fp16", one("FP16", [70000.0]), "inputs[0].data[0]"),
        ("echo-bytes", one("BYTES", [1]), "inputs[0].data[0]"),
        ("echo", one("FP32", [1.0]), "inputs[0].datatype"),
    ],
)
def test_a_refusal_names_the_place(predicting: Serving, model: str, tensor: dict[str, Any], place: str) -> None:
    """Down to the value, in a text, as the protocol's errors are texts; a header has the code."""
    answer = infer(predicting, model, {"inputs": [tensor]})
    assert answer.status_code == 400
    assert f"'{place}'" in answer.json()["error"]
    assert answer.headers["x-penstock-code"].startswith(("invalid", "out_of"))


def test_not_a_number_is_refused_in_binary_too(predicting: Serving) -> None:
    """The column's policy, whatever way the value came."""
    for bad in (np.nan, np.inf):
        raw = np.array([1.0, bad]).tobytes()
        asked = {"name": "x", "datatype": "FP64", "shape": [2], "parameters": {"binary_data_size": len(raw)}}
        answer = infer(predicting, "echo", json.dumps({"inputs": [asked]}).encode() + raw)
        assert answer.status_code == 400
        assert "inputs[0].data[1]" in answer.json()["error"]


def test_tritonclients_compression_is_read_and_bounded(predicting: Serving) -> None:
    """gzip and deflate; a body that unpacks to more than the limit is refused before it is all there."""
    body = json.dumps({"inputs": [one("FP64", [1.0])]}).encode()
    assert infer(predicting, "echo", gzip.compress(body), **{"content-encoding": "gzip"}).status_code == 200
    bomb = gzip.compress(b" " * (64 << 20))
    assert infer(predicting, "echo", bomb, **{"content-encoding": "gzip"}).status_code == 413
    assert infer(predicting, "echo", body, **{"content-encoding": "gzip"}).status_code == 400
    assert infer(predicting, "echo", body, **{"content-encoding": "br"}).status_code == 400


def test_the_repository_is_the_admins(predicting: Serving) -> None:
    """Index, load and unload as tritonclient asks for them; a model that was unloaded does not answer until it is loaded."""
    client = tritonclient.http.InferenceServerClient(predicting.url.partition("://")[2])
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    tensor = {"inputs": [one("FP64", [1.0])]}
    try:
        with pytest.raises(tritonclient.http.InferenceServerException, match="admin key"):
            client.get_model_repository_index(headers=auth(predicting))
        index = client.get_model_repository_index(headers=headers)
        assert {"name": "unloadable", "version": "1", "state": "READY", "reason": ""} in index
        assert infer(predicting, "unloadable", tensor).status_code == 200
        client.unload_model("unloadable", headers=headers)
        assert not client.is_model_ready("unloadable", headers=headers)
        assert infer(predicting, "unloadable", tensor).status_code == 503
        row = next(row for row in client.get_model_repository_index(headers=headers) if row["name"] == "unloadable")
        assert (row["state"], row["reason"]) == ("UNAVAILABLE", "unloaded")
        client.load_model("unloadable", headers=headers)
        assert client.is_model_ready("unloadable", headers=headers)
        assert infer(predicting, "unloadable", tensor).status_code == 200
        with pytest.raises(tritonclient.http.InferenceServerException, match="does not exist"):
            client.load_model("nothing", headers=headers)
    finally:
        client.close()


def test_keys_and_prices_hold_on_every_way_in(predicting: Serving, channel: grpc.Channel) -> None:
    """Over HTTP and gRPC: without a key nothing, with a small budget only so much, on the same account as /v1."""
    made = messages()
    tensor = made("InferInputTensor", name="x", datatype="FP64", shape=[1])
    tensor.contents.fp64_contents.append(1.0)

    def ask(key: str | None, model: str = "priced") -> Any:
        return call(channel, made, "ModelInfer", key, model_name=model, inputs=[tensor])

    with pytest.raises(grpc.RpcError) as unknown:
        ask(None)
    assert unknown.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert predicting.http.post("/v2/models/priced/infer", json={}).status_code == 401
    key = predicting.new_key(models=["priced"], budget={"limit_usd": 0.01, "period": "total"})
    with pytest.raises(grpc.RpcError) as forbidden:
        ask(key, "echo")
    assert forbidden.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert ask(key).outputs[0].contents.fp64_contents == [1.0]
    body = {"inputs": [one("FP64", [1.0])]}
    answer = predicting.http.post("/v2/models/priced/infer", json=body, headers=auth(predicting, key))
    assert answer.headers["x-penstock-cost-usd"] == "0.003000000"
    assert predicting.post("/v1/predict/priced", {"instances": [{"x": 1}]}, key=key).status_code == 200
    with pytest.raises(grpc.RpcError) as spent:
        ask(key)
    assert spent.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert predicting.http.post("/v2/models/priced/infer", json=body, headers=auth(predicting, key)).status_code == 429


def test_the_models_faults_are_told_over_the_protocol(predicting: Serving, channel: grpc.Channel) -> None:
    """A message with the model's name, and a status that says whose fault it is."""
    answer = infer(predicting, "raise", {"inputs": [one("FP64", [1.0])]})
    assert (answer.status_code, answer.headers["x-penstock-code"]) == (500, "model_failed")
    assert "'raise'" in answer.json()["error"]
    made = messages()
    tensor = made("InferInputTensor", name="x", datatype="FP64", shape=[1])
    tensor.contents.fp64_contents.append(1.0)
    with pytest.raises(grpc.RpcError) as failed:
        call(channel, made, "ModelInfer", predicting.key, model_name="raise", inputs=[tensor])
    assert failed.value.code() == grpc.StatusCode.INTERNAL


def test_errors_before_any_handler_have_the_protocols_shape_too(predicting: Serving) -> None:
    """A body that is too large, a path that is not there, a method that is not allowed; Cohere's path beside them is Cohere's."""
    large = predicting.http.post("/v2/models/echo/infer", content=b" " * (5 << 20), headers=auth(predicting))
    assert large.status_code == 413
    assert isinstance(large.json()["error"], str)
    nothing = predicting.http.get("/v2/nothing", headers=auth(predicting))
    assert (nothing.status_code, type(nothing.json()["error"])) == (404, str)
    wrong = predicting.http.get("/v2/models/echo/infer", headers=auth(predicting))
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    rerank = predicting.http.post("/v2/rerank", json={}, headers=auth(predicting))
    assert isinstance(rerank.json()["error"], dict)
