"""Graphs in ONNX, over the port that serving uses: one row in its own room, and many in arrays."""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from inference.runtimes.onnx import OnnxModel
from inference.signature import Column, Signature
from inference.stacked import Stacked

NAMES = ("a", "b", "c")
SIGNATURE = Signature(
    tuple(Column(name, "FP32") for name in NAMES), (Column("sums", "FP32"), Column("doubled", "FP32", (-1, 3)))
)


def graph(second: list[Any]) -> bytes:
    """Of each row its sum and its doubles; `second` is what it says of the size of the latter."""
    nodes = [
        helper.make_node("ReduceSum", ["x", "axes"], ["sums"], keepdims=1),
        helper.make_node("Add", ["x", "x"], ["doubled"]),
    ]
    outputs = [
        helper.make_tensor_value_info("sums", TensorProto.FLOAT, ["rows", 1]),
        helper.make_tensor_value_info("doubled", TensorProto.FLOAT, second),
    ]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", len(NAMES)])],
        outputs,
        [helper.make_tensor("axes", TensorProto.INT64, [1], [1])],
    )
    opsets = [helper.make_opsetid("", 17)]
    model: bytes = helper.make_model(made, opset_imports=opsets, ir_version=8).SerializeToString()
    onnx.checker.check_model(model)
    return model


def stacked(*rows: tuple[float, ...]) -> Stacked:
    return Stacked(NAMES, np.array(rows, np.float32))


def test_a_row_alone_is_answered_as_among_others_and_its_answer_stays() -> None:
    """What the next row gives is not written over it."""
    model = OnnxModel(graph(["rows", 3]), SIGNATURE)
    rows = [(1.0, 2.0, 3.0), (-1.0, 0.5, 8.0)]
    together = model.run(stacked(*rows))
    alone = [model.run(stacked(row)) for row in rows]
    for name, array in together.items():
        np.testing.assert_array_equal(np.concatenate([one[name] for one in alone]), array)
        assert alone[0][name].dtype == array.dtype
    assert alone[0]["sums"].tolist() == [6.0]
    model.close()


def test_a_graph_that_does_not_say_its_sizes_answers_a_row_all_the_same() -> None:
    model = OnnxModel(graph(["rows", "wide"]), SIGNATURE)
    for _ in range(2):
        assert model.run(stacked((1.0, 2.0, 3.0)))["doubled"].tolist() == [[2.0, 4.0, 6.0]]
    model.close()
