"""Conformance to the Open Inference Protocol (V2), for any server: it learns the model from its metadata and asks with zeros.

github.com/kserve/open-inference-protocol: specification/protocol/inference_rest.md and inference_grpc.md; the binary extension is
Triton's `extension_binary_data.md`. `tests/oip/conftest.py` says how to point it at another server.
"""

import json
from collections.abc import Iterator
from math import prod
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from numpy.typing import NDArray
from tritonclient.utils import triton_to_np_dtype

from tests.oip.conftest import Target

ROWS = 3
LENGTH = "Inference-Header-Content-Length"
Json = dict[str, Any]


@pytest.fixture(scope="module")
def http(target: Target) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=target.url, headers=target.headers, timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def metadata(http: httpx.Client, target: Target) -> Json:
    answer = http.get(f"/v2/models/{target.model}")
    assert answer.status_code == 200, answer.text
    told: Json = answer.json()
    return told


def arrays(metadata: Json, rows: int = ROWS) -> dict[str, NDArray[Any]]:
    made = {}
    for one in metadata["inputs"]:
        shape = [rows if not index and size < 0 else abs(size) for index, size in enumerate(one["shape"])]
        dtype = triton_to_np_dtype(one["datatype"])
        made[one["name"]] = np.full(shape, b"" if dtype == np.object_ else 0, dtype=dtype)
    return made


def asked(metadata: Json, rows: int = ROWS, **fields: Any) -> Json:
    """In JSON."""
    kinds = {one["name"]: one["datatype"] for one in metadata["inputs"]}
    inputs = [
        {
            "name": name,
            "datatype": kinds[name],
            "shape": list(array.shape),
            "data": [value.decode() if isinstance(value, bytes) else value for value in array.reshape(-1).tolist()],
        }
        for name, array in arrays(metadata, rows).items()
    ]
    return {"inputs": inputs, **fields}


def in_binary(metadata: Json, **fields: Any) -> tuple[bytes, int]:
    """As tritonclient writes it: the body, and the length of its JSON."""
    body = asked(metadata, **fields)
    parts = []
    for one in body["inputs"]:
        array = arrays(metadata)[one["name"]]
        raw = b"\0\0\0\0" * array.size if array.dtype == np.object_ else array.tobytes()
        del one["data"]
        one["parameters"] = {"binary_data_size": len(raw)}
        parts.append(raw)
    head = json.dumps(body).encode()
    return head + b"".join(parts), len(head)


def infer(http: httpx.Client, target: Target, body: Any, **headers: str) -> httpx.Response:
    """What is given as bytes is sent without saying what it is, as tritonclient does."""
    content, kind = (
        (body, {}) if isinstance(body, bytes) else (json.dumps(body).encode(), {"content-type": "application/json"})
    )
    return http.post(f"/v2/models/{target.model}/infer", content=content, headers={**kind, **headers})


def outputs(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    told = answer.json()["outputs"]
    for one in told:
        assert len(one["data"]) == prod(one["shape"]) or np.asarray(one["data"]).shape == tuple(one["shape"])
    return {one["name"]: np.asarray(one["data"]).reshape(-1).tolist() for one in told}


def refused(answer: httpx.Response) -> None:
    """A 4xx, and a message where clients look for it."""
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text)
    assert isinstance(answer.json()["error"], str), answer.text


def test_a_server_tells_that_it_lives_and_is_ready(http: httpx.Client) -> None:
    assert http.get("/v2/health/live").status_code == 200
    assert http.get("/v2/health/ready").status_code == 200


def test_a_server_tells_its_name_version_and_extensions(http: httpx.Client) -> None:
    told = http.get("/v2").json()
    assert isinstance(told["name"], str)
    assert isinstance(told["version"], str)
    assert all(isinstance(one, str) for one in told["extensions"])


def test_a_model_tells_its_inputs_and_outputs(metadata: Json, target: Target) -> None:
    """Names, types and shapes of all of them: without these no client can ask."""
    assert metadata["name"] == target.model
    assert isinstance(metadata["platform"], str)
    assert metadata["inputs"]
    assert metadata["outputs"]
    for one in (*metadata["inputs"], *metadata["outputs"]):
        assert isinstance(one["name"], str)
        assert one["datatype"] == "BYTES" or triton_to_np_dtype(one["datatype"]) is not None
        assert all(isinstance(size, int) for size in one["shape"])


def test_a_model_tells_that_it_is_ready_and_one_that_is_not_there_does_not(http: httpx.Client, target: Target) -> None:
    assert http.get(f"/v2/models/{target.model}/ready").status_code == 200
    assert http.get("/v2/models/no-such-model/ready").status_code >= 400
    refused(http.get("/v2/models/no-such-model"))


def test_json_tensors_are_answered(http: httpx.Client, target: Target, metadata: Json) -> None:
    """The request's id comes back, with the model's name and one row for each that was asked."""
    answer = infer(http, target, asked(metadata, id="mine"))
    told = answer.json()
    assert told["model_name"] == target.model
    assert told["id"] == "mine"
    assert {one["name"] for one in told["outputs"]} == {one["name"] for one in metadata["outputs"]}
    assert all(one["shape"][0] == ROWS for one in told["outputs"])
    assert all(one["datatype"] for one in told["outputs"])
    outputs(answer)


def test_nested_data_is_the_same_as_flat_data(http: httpx.Client, target: Target, metadata: Json) -> None:
    """The specification has both, in row-major order."""
    flat, nested = asked(metadata), asked(metadata)
    for one in nested["inputs"]:
        one["data"] = np.asarray(one["data"]).reshape(one["shape"]).tolist()
    assert outputs(infer(http, target, nested)) == outputs(infer(http, target, flat))


def test_a_version_may_stand_in_the_path(http: httpx.Client, target: Target, metadata: Json) -> None:
    versions = metadata.get("versions") or []
    for version in versions:
        base = f"/v2/models/{target.model}/versions/{version}"
        assert http.get(base).json()["name"] == target.model
        assert http.get(f"{base}/ready").status_code == 200
        answer = http.post(f"{base}/infer", json=asked(metadata))
        assert answer.json()["model_version"] == version
    refused(http.post(f"/v2/models/{target.model}/versions/987654/infer", json=asked(metadata)))


@pytest.mark.parametrize("announced", [True, False])
def test_binary_tensors_are_answered_like_json(
    http: httpx.Client, target: Target, metadata: Json, announced: bool
) -> None:
    """With the length of the JSON in a header, and without it."""
    body, length = in_binary(metadata)
    headers = {LENGTH: str(length)} if announced else {}
    answer = infer(http, target, body, **headers, **{"content-type": "application/octet-stream"})
    assert outputs(answer) == outputs(infer(http, target, asked(metadata)))


def test_outputs_come_in_binary_where_that_is_asked_for(http: httpx.Client, target: Target, metadata: Json) -> None:
    """Behind the JSON, whose length the header tells; each with its own size."""
    answer = infer(http, target, asked(metadata, parameters={"binary_data_output": True}))
    assert answer.status_code == 200, answer.text
    length = int(answer.headers[LENGTH])
    told, binary = json.loads(answer.content[:length]), answer.content[length:]
    sizes = [one["parameters"]["binary_data_size"] for one in told["outputs"]]
    assert sum(sizes) == len(binary)
    plain = outputs(infer(http, target, asked(metadata)))
    first = 0
    for one, size in zip(told["outputs"], sizes, strict=True):
        assert "data" not in one
        part, first = binary[first : first + size], first + size
        if one["datatype"] != "BYTES":
            found = np.frombuffer(part, triton_to_np_dtype(one["datatype"]))
            np.testing.assert_allclose(found.astype(float), np.asarray(plain[one["name"]], float), rtol=1e-6)


def test_only_the_outputs_that_are_asked_for_come(http: httpx.Client, target: Target, metadata: Json) -> None:
    name = metadata["outputs"][-1]["name"]
    assert list(outputs(infer(http, target, asked(metadata, outputs=[{"name": name}])))) == [name]
    refused(infer(http, target, asked(metadata, outputs=[{"name": "no-such-output"}])))


def broken(metadata: Json) -> dict[str, Any]:
    def changed(**fields: Any) -> Json:
        body = asked(metadata)
        body["inputs"][0].update(fields)
        return body

    first = asked(metadata)["inputs"][0]
    kind = "INT8" if first["datatype"] != "INT8" else "FP32"
    binary, _ = in_binary(metadata)
    return {
        "another datatype": changed(datatype=kind),
        "no datatype of the protocol": changed(datatype="COMPLEX"),
        "a dimension too many": changed(shape=[*first["shape"], 7]),
        "more values than the shape has": changed(data=[*first["data"], first["data"][0]]),
        "fewer values than the shape has": changed(data=first["data"][1:]),
        "a negative length": changed(shape=[-1, *first["shape"][1:]]),
        "a text for a number": changed(data=["x"] * len(first["data"]))
        if first["datatype"] != "BYTES"
        else changed(data=[1]),
        "null": changed(data=[None] * len(first["data"])),
        "no data": changed(data=None),
        "another name": changed(name="no-such-input"),
        "one input more": {"inputs": [*asked(metadata)["inputs"], {**first, "name": "no-such-input"}]},
        "the same input twice": {"inputs": [*asked(metadata)["inputs"], first]},
        "no input": {"inputs": []},
        "no inputs": {},
        "a list": [],
        "no JSON": b'{"inputs": [',
        "nothing": b"",
        "deep JSON": b'{"inputs": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        "binary data cut off": binary[:-1],
        "binary data too long": binary + b"\0",
        "not UTF-8": b'{"inputs": [{"name": "\xff\xfe"}]}',
    }


BROKEN = (
    "another datatype",
    "no datatype of the protocol",
    "a dimension too many",
    "more values than the shape has",
    "fewer values than the shape has",
    "a negative length",
    "a text for a number",
    "null",
    "no data",
    "another name",
    "one input more",
    "the same input twice",
    "no input",
    "no inputs",
    "a list",
    "no JSON",
    "nothing",
    "deep JSON",
    "binary data cut off",
    "binary data too long",
    "not UTF-8",
)


@pytest.mark.parametrize("what", BROKEN)
def test_what_does_not_fit_is_refused_with_a_reason(
    http: httpx.Client, target: Target, metadata: Json, what: str
) -> None:
    """The client's fault is a 4xx, never a 500, and the next request is answered."""
    refused(infer(http, target, broken(metadata)[what]))
    assert infer(http, target, asked(metadata)).status_code == 200


def test_rows_keep_their_order(http: httpx.Client, target: Target, metadata: Json) -> None:
    """One row at a time, or all at once."""
    together = outputs(infer(http, target, asked(metadata, ROWS)))
    alone = outputs(infer(http, target, asked(metadata, 1)))
    for name, values in alone.items():
        np.testing.assert_allclose(together[name][: len(values)], values, rtol=1e-5)


# NVIDIA's clients, as they are


def triton_inputs(module: Any, metadata: Json, **settings: Any) -> list[Any]:
    made = []
    for one in metadata["inputs"]:
        array = arrays(metadata)[one["name"]]
        tensor = module.InferInput(one["name"], list(array.shape), one["datatype"])
        tensor.set_data_from_numpy(array, **settings)
        made.append(tensor)
    return made


@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient_over_http(http: httpx.Client, target: Target, metadata: Json, binary: bool) -> None:
    """With default settings (binary both ways), and with JSON."""
    client = tritonclient.http.InferenceServerClient(target.host)
    headers = target.headers
    try:
        assert client.is_server_live(headers=headers)
        assert client.is_server_ready(headers=headers)
        assert client.is_model_ready(target.model, headers=headers)
        assert client.get_server_metadata(headers=headers)["name"]
        assert client.get_model_metadata(target.model, headers=headers) == metadata
        settings = {} if binary else {"binary_data": False}
        wanted = None
        if not binary:
            wanted = [
                tritonclient.http.InferRequestedOutput(one["name"], binary_data=False) for one in metadata["outputs"]
            ]
        result = client.infer(
            target.model, triton_inputs(tritonclient.http, metadata, **settings), outputs=wanted, headers=headers
        )
        plain = outputs(infer(http, target, asked(metadata)))
        for one in metadata["outputs"]:
            found = result.as_numpy(one["name"])
            np.testing.assert_allclose(
                found.reshape(-1).astype(float), np.asarray(plain[one["name"]], float), rtol=1e-5
            )
        with pytest.raises(tritonclient.http.InferenceServerException, match=r".+"):
            client.infer("no-such-model", triton_inputs(tritonclient.http, metadata), headers=headers)
    finally:
        client.close()


def test_tritonclient_over_grpc(http: httpx.Client, target: Target, metadata: Json) -> None:
    """With default settings: raw contents both ways."""
    if target.grpc is None:
        pytest.skip("OIP_GRPC is not set")
    with tritonclient.grpc.InferenceServerClient(target.grpc) as client:
        headers = target.headers
        assert client.is_server_live(headers=headers)
        assert client.is_server_ready(headers=headers)
        assert client.is_model_ready(target.model, headers=headers)
        assert client.get_server_metadata(headers=headers).name
        told = client.get_model_metadata(target.model, headers=headers, as_json=True)
        assert [one["name"] for one in told["inputs"]] == [one["name"] for one in metadata["inputs"]]
        result = client.infer(
            target.model, triton_inputs(tritonclient.grpc, metadata), request_id="mine", headers=headers
        )
        assert result.get_response().id == "mine"
        plain = outputs(infer(http, target, asked(metadata)))
        for one in metadata["outputs"]:
            found = result.as_numpy(one["name"])
            np.testing.assert_allclose(
                found.reshape(-1).astype(float), np.asarray(plain[one["name"]], float), rtol=1e-5
            )
        with pytest.raises(tritonclient.grpc.InferenceServerException, match=r".+"):
            client.infer("no-such-model", triton_inputs(tritonclient.grpc, metadata), headers=headers)
