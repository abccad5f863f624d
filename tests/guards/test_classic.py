"""A classic model from the registry as a guard: what it calls bad does not reach the model behind."""

import json

import numpy as np
import onnx

from tests.guards.conftest import Guarded
from tests.upstream.behaviour import Behaviour


def about(pattern: str) -> bytes:
    """text (n) to the probabilities of its not matching and of its matching."""
    tensor, node = onnx.helper.make_tensor_value_info, onnx.helper.make_node
    flat = onnx.numpy_helper.from_array(np.array([-1, 1], np.int64), "flat")
    one = onnx.numpy_helper.from_array(np.array([[1.0]], np.float32), "one")
    graph = onnx.helper.make_graph(
        [
            node("RegexFullMatch", ["text"], ["matches"], pattern=pattern),
            node("Cast", ["matches"], ["flag"], to=onnx.TensorProto.FLOAT),
            node("Reshape", ["flag", "flat"], ["yes"]),
            node("Sub", ["one", "yes"], ["no"]),
            node("Concat", ["no", "yes"], ["probabilities"], axis=1),
        ],
        "about",
        [tensor("text", onnx.TensorProto.STRING, ["n"])],
        [tensor("probabilities", onnx.TensorProto.FLOAT, ["n", 2])],
        [flat, one],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    made: bytes = model.SerializeToString()
    return made


def test_a_model_of_the_registry_guards(guarded: Guarded) -> None:
    """Labels are its classes; another text passes."""
    server = guarded.server
    registered = server.admin.post(
        "/registry/takeover/versions",
        files={"artifact": ("takeover.onnx", about(".*takeover.*"))},
        data={"metadata": json.dumps({"runtime": "onnx", "classes": ["fine", "merger"]})},
    )
    assert registered.status_code == 201, registered.text
    guard = guarded.guard("classifier", stage="before", action="block", model="takeover", labels=["merger"])
    route = guarded.model(Behaviour(), guards=[guard])

    refused = server.post("/v1/chat/completions", server.ask(route.name, "The takeover is on Monday"))
    passed = server.post("/v1/chat/completions", server.ask(route.name, "The party is on Monday"))

    assert refused.status_code == 400, refused.text
    assert refused.json()["error"]["code"] == "content_policy_violation"
    assert passed.status_code == 200, passed.text
