"""A first run before the first request: what a runtime puts off until then is done while nobody waits."""

from typing import Final

import numpy as np
import structlog

from inference.ports import Bundle, Runnable
from inference.serving.values import DTYPES
from inference.signature import Column

log = structlog.stdlib.get_logger(__name__)

OPEN: Final = 1  # of a length that the signature leaves open


def warm(runnable: Runnable, bundle: Bundle) -> None:
    """Runs made-up rows. A model that does not like them may like real ones."""
    columns = {}
    rows = next((column.shape[0] for column in bundle.signature.inputs if column.shape[0] > 0), 1)
    for column in bundle.signature.inputs:
        shape = (rows, *(OPEN if size < 0 else size for size in column.shape[1:]))
        columns[column.name] = np.full(shape, _likely(column), dtype=DTYPES[column.datatype])
    try:
        runnable.run(columns)
    except Exception as error:  # noqa: BLE001 a model may raise anything, and only real input counts
        log.info("model.not_warmed", model=bundle.model, version=bundle.version, error=type(error).__name__)


def batches(bundle: Bundle) -> bool:
    """Whether rows of several calls may be one batch: the signature leaves their number open, everywhere."""
    return bundle.metadata.get("batch", True) is not False and all(
        column.shape[0] < 0 for column in (*bundle.signature.inputs, *bundle.signature.outputs)
    )


def _likely(column: Column) -> object:
    if column.datatype == "BYTES":
        return column.categories[0] if column.categories else ""
    if column.minimum is None or column.maximum is None:
        return 0
    middle = (column.minimum + column.maximum) / 2
    return middle if column.datatype.startswith("FP") else int(middle)
