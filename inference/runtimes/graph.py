"""A graph in ONNX that somebody sent: is it whole, does it stand alone, and what does it take and give?"""

from typing import Any, Final

import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError

from inference.errors import ArtefactRefused
from inference.runtimes.model import Description, Hints
from inference.runtimes.onnx import open_session, tensor_type
from inference.signature import Column

DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml", "ai.onnx.preview.training", "com.microsoft"})
_EXTERNAL: Final = 1  # onnx.TensorProto.EXTERNAL


def open_artefact(data: bytes, *, pinned: bool) -> tuple[bytes, ort.InferenceSession]:
    """Raises ArtefactRefused."""
    del pinned
    try:
        graph = onnx.load_model_from_string(data)
    except (DecodeError, ValueError) as error:
        raise ArtefactRefused(
            f"This is no graph in ONNX, or it is cut off: {error}", code="artefact_invalid"
        ) from error
    if not graph.graph.node:
        raise ArtefactRefused("This is no graph in ONNX: it has no nodes", code="artefact_invalid")
    _refuse_strange_operators(graph)
    _refuse_other_files(graph.graph)
    for function in graph.functions:
        _refuse_in_nodes(function.node)
    return data, open_session(data)


def describe(opened: tuple[bytes, ort.InferenceSession], hints: Hints) -> Description:
    session = opened[1]
    inputs = hints.inputs or tuple(
        Column(each.name, tensor_type(each.type), _shape(each.shape)) for each in session.get_inputs()
    )
    return Description(inputs, {"estimator": session.get_modelmeta().producer_name or "graph", "task": "other"})


def _refuse_strange_operators(graph: Any) -> None:
    own = {function.domain for function in graph.functions}
    strange = sorted(
        {f"{node.domain}.{node.op_type}" for node in graph.graph.node if node.domain not in DOMAINS | own}
        | {each.domain for each in graph.opset_import if each.domain not in DOMAINS | own}
    )
    if strange:
        raise ArtefactRefused(
            f"The graph needs operators that ONNX Runtime does not bring: {', '.join(strange[:8])}. A library that has them would be "
            "code of its author, which is not loaded.",
            code="custom_operators",
        )


def _refuse_other_files(graph: Any) -> None:
    for each in (*graph.initializer, *(sparse.values for sparse in graph.sparse_initializer)):
        _refuse_external(each)
    _refuse_in_nodes(graph.node)


def _refuse_in_nodes(nodes: Any) -> None:
    for node in nodes:
        for attribute in node.attribute:
            for held in (attribute.t, *attribute.tensors):
                _refuse_external(held)
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    _refuse_other_files(inner)


def _refuse_external(held: Any) -> None:
    if held.data_location == _EXTERNAL:
        raise ArtefactRefused(
            f"The tensor {held.name!r} lies in another file: save the graph with its data inside "
            "(`onnx.save(model, path, save_as_external_data=False)`)",
            code="external_data",
        )


def _shape(shape: Any) -> tuple[int, ...]:
    """Names and unknowns are any length; a scalar is a batch of one."""
    return tuple(size if isinstance(size, int) and size > 0 else -1 for size in shape) or (1,)
