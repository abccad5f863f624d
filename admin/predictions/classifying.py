"""Classic models as the classifiers that guards ask: a text in, the probability of each label out. Nobody is billed for it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from inference.distil.recipe import FACTS
from inference.errors import ModelNotFound
from inference.serving.frame import Frame
from inference.serving.outputs import kept
from inference.serving.reading import read_body

if TYPE_CHECKING:
    from admin.predictions.late import LatePredictions

Vectors = Callable[[Sequence[str]], Awaitable[Any]]
"""Texts to float32 `[texts, dimensions]`."""


async def classify(
    late: "LatePredictions", model: str, texts: Sequence[str], vectors: Vectors, redact: Callable[[str], str]
) -> Sequence[Mapping[str, float]]:
    """By text. The model takes one column of text, or was distilled: then it takes the vectors of what it would have learnt from.

    Raises LookupError for a model that is not there, InferenceError.
    """
    made = (await late.ready()).predictions
    try:
        bundle = made.library.bundle(model)
    except ModelNotFound as missing:
        raise LookupError(missing.message) from missing
    if FACTS in bundle.metadata:
        [column] = bundle.signature.inputs
        rows = await vectors([await asyncio.to_thread(redact, text) for text in texts])
        frame = Frame({column.name: rows}, len(texts))
    else:
        frame = read_body(bundle.signature, {"instances": [[text] for text in texts]}, max(1, len(texts)))
    outputs = kept(bundle, await made.fleet.run(bundle, frame), frame.rows)
    said = outputs["probabilities"] if "probabilities" in outputs else outputs["predictions"]
    classes = bundle.metadata.get("classes")
    if said.ndim == 1:  # which label it is, and no more
        return [{_label(one): 1.0} for one in said.tolist()]
    labels = [_label(one) for one in classes or range(said.shape[-1])]
    return [dict(zip(labels, row, strict=True)) for row in said.tolist()]


def _label(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
