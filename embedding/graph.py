"""Builds the ONNX graph of a BERT sentence encoder straight from its weights, without torch or transformers.

Run as a program, `python -m embedding.graph MODEL OUT fp32|int8`: the `onnx` package and the arrays live in a process that ends, so
that the server never pays for them. Only standard operators are used. ONNX Runtime fuses what is worth fusing when it
loads the graph; hand-written fused operators were measured and were not faster.

Large tensors go to a file of their own, aligned to pages: the runtime maps it, and of the word table (47 of 90 MB) only
the rows in use become resident.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from embedding.weights import Weights

GRAPH_FILE = "model.onnx"
WEIGHTS_FILE = "model.weights"
_OPSET = 20  # the first with Gelu as an operator
_PAGE = 4096
_INLINE_BELOW = 4096  # bytes: biases stay in the graph


class BertConfig(msgspec.Struct, frozen=True):
    """The fields of a Hugging Face `config.json` that decide the graph."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    layer_norm_eps: float
    hidden_act: str
    position_embedding_type: str = "absolute"


@dataclass(frozen=True, slots=True)
class _Graph:
    """Nodes and tensors while they are collected. Every method returns the name of the value that it adds."""

    config: BertConfig
    weights: Weights
    big: BinaryIO
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    tensors: list[onnx.TensorProto] = field(default_factory=list)

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        output = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def tensor(self, name: str, array: NDArray[np.generic]) -> str:
        array = np.ascontiguousarray(array)
        if array.nbytes < _INLINE_BELOW:
            self.tensors.append(numpy_helper.from_array(array, name))
            return name
        offset = self.big.seek(-self.big.tell() % _PAGE, 1)
        self.big.write(array.data)
        proto = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(array.dtype), dims=array.shape)
        proto.data_location = TensorProto.EXTERNAL
        for key, value in (("location", WEIGHTS_FILE), ("offset", str(offset)), ("length", str(array.nbytes))):
            proto.external_data.add(key=key, value=value)
        self.tensors.append(proto)
        return name


def build(model: Path, out: Path) -> None:
    """Writes `model.onnx` and `model.weights` into `out` for the model folder `model`."""
    config = msgspec.json.decode((model / "config.json").read_bytes(), type=BertConfig)
    if config.hidden_act != "gelu" or config.position_embedding_type != "absolute":
        raise ValueError(f"{model}: only BERT with GELU and absolute positions is understood, not {config}")
    weights = Weights(model / "model.safetensors")
    with (out / WEIGHTS_FILE).open("wb") as big:
        graph = _Graph(config, weights, big)
        hidden = _embeddings(graph)
        mask = graph.op("Cast", "attention_mask", to=TensorProto.FLOAT)
        bias = _attention_bias(graph, mask)
        for layer in range(config.num_hidden_layers):
            hidden = _layer(graph, f"encoder.layer.{layer}.", hidden, bias)
        _pool(graph, hidden, mask)
    (out / GRAPH_FILE).write_bytes(_model(graph).SerializeToString())


def quantise(model: Path, out: Path) -> None:
    """The weights of matrix products as integers, per channel; activations as they come. Of 7 bits, as AVX2 adds pairs of products into 16
    (ONNX Runtime, "Quantize ONNX models")."""
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415 — for those who ask for it

    quantize_dynamic(model, out, per_channel=True, reduce_range=True, weight_type=QuantType.QInt8)


def _embeddings(graph: _Graph) -> str:
    """Word + position + type, normalised. One text means one type, so its vector is added to the positions here."""
    words = graph.tensor("words", graph.weights["embeddings.word_embeddings.weight"])
    types = graph.weights["embeddings.token_type_embeddings.weight"]
    places = graph.weights["embeddings.position_embeddings.weight"]
    positions = graph.tensor("positions", places.astype(np.float32) + types.astype(np.float32)[0])
    length = graph.op("Shape", "input_ids", start=1, end=2)
    zero = graph.tensor("zero", np.array([0], np.int64))
    summed = graph.op("Add", graph.op("Gather", words, "input_ids"), graph.op("Slice", positions, zero, length, zero))
    return _normalise(graph, "embeddings.LayerNorm", summed)


def _attention_bias(graph: _Graph, mask: str) -> str:
    """0 where there is a token and -10,000 where there is padding, shaped [batch, 1, 1, sequence]."""
    inverse = graph.op("Sub", graph.tensor("one", np.ones(1, np.float32)), mask)
    scaled = graph.op("Mul", inverse, graph.tensor("padding", np.full(1, -10_000, np.float32)))
    return graph.op("Unsqueeze", scaled, graph.tensor("heads_and_queries", np.array([1, 2], np.int64)))


def _layer(graph: _Graph, prefix: str, hidden: str, bias: str) -> str:
    """Self attention, then the feed-forward network, each with its residual and norm (Devlin et al. 2019)."""
    attended = _attention(graph, f"{prefix}attention.self.", hidden, bias)
    attended = _dense(graph, f"{prefix}attention.output.dense", attended)
    residual = graph.op("Add", attended, hidden)
    hidden = _normalise(graph, f"{prefix}attention.output.LayerNorm", residual)
    inner = graph.op("Gelu", _dense(graph, f"{prefix}intermediate.dense", hidden))
    residual = graph.op("Add", _dense(graph, f"{prefix}output.dense", inner), hidden)
    return _normalise(graph, f"{prefix}output.LayerNorm", residual)


def _attention(graph: _Graph, prefix: str, hidden: str, bias: str) -> str:
    head = graph.config.hidden_size // graph.config.num_attention_heads
    split = graph.tensor(f"{prefix}split", np.array([0, 0, graph.config.num_attention_heads, head], np.int64))

    def project(part: str, order: tuple[int, ...]) -> str:
        dense = _dense(graph, prefix + part, hidden)
        return graph.op("Transpose", graph.op("Reshape", dense, split), perm=order)

    query = project("query", (0, 2, 1, 3))
    key = project("key", (0, 2, 3, 1))
    value = project("value", (0, 2, 1, 3))
    scale = graph.tensor(f"{prefix}scale", np.array([head**-0.5], np.float32))
    scores = graph.op("Add", graph.op("Mul", graph.op("MatMul", query, key), scale), bias)
    mixed = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), value)
    join = graph.tensor(f"{prefix}join", np.array([0, 0, graph.config.hidden_size], np.int64))
    return graph.op("Reshape", graph.op("Transpose", mixed, perm=(0, 2, 1, 3)), join)


def _dense(graph: _Graph, name: str, hidden: str) -> str:
    kernel = graph.tensor(f"{name}.weight", graph.weights[f"{name}.weight"].T)
    return graph.op(
        "Add", graph.op("MatMul", hidden, kernel), graph.tensor(f"{name}.bias", graph.weights[f"{name}.bias"])
    )


def _normalise(graph: _Graph, name: str, hidden: str) -> str:
    scale = graph.tensor(f"{name}.weight", graph.weights[f"{name}.weight"])
    shift = graph.tensor(f"{name}.bias", graph.weights[f"{name}.bias"])
    return graph.op("LayerNormalization", hidden, scale, shift, axis=-1, epsilon=graph.config.layer_norm_eps)


def _pool(graph: _Graph, hidden: str, mask: str) -> None:
    """The mean over real tokens, scaled to length 1. The sum points the same way as the mean, so no division is needed."""
    row = graph.tensor("row", np.array([1], np.int64))
    total = graph.op("MatMul", graph.op("Unsqueeze", mask, row), hidden)
    unit = graph.op("LpNormalization", graph.op("Squeeze", total, row), axis=-1, p=2)
    graph.nodes.append(helper.make_node("Identity", [unit], ["embedding"], name="embedding"))


def _model(graph: _Graph) -> onnx.ModelProto:
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT32, ["batch", "sequence"])
        for name in ("input_ids", "attention_mask")
    ]
    output = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", graph.config.hidden_size])
    body = helper.make_graph(graph.nodes, "sentence-encoder", inputs, [output], graph.tensors)
    opset = helper.make_opsetid("", _OPSET)
    return helper.make_model(
        body, opset_imports=[opset], ir_version=helper.find_min_ir_version_for([opset]), producer_name="penstock"
    )


def build_int8(model: Path, out: Path) -> None:
    """The same as one quantised file."""
    with TemporaryDirectory(dir=out) as folder:
        build(model, Path(folder))
        quantise(Path(folder) / GRAPH_FILE, out / GRAPH_FILE)


if __name__ == "__main__":
    {"fp32": build, "int8": build_int8}[sys.argv[3]](Path(sys.argv[1]), Path(sys.argv[2]))
