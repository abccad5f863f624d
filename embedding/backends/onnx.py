"""ONNX Runtime on CPU: the default backend, with memory and threads on a leash."""

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from embedding.errors import InferenceFailed

_ERRORS_ONLY = 3


class OnnxBackend:
    """One session over a model with inputs `input_ids` and `attention_mask` (int32, [batch, sequence])."""

    def __init__(self, model: Path, *, threads: int) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Spinning workers would burn a core that the gateway needs, to win microseconds between two operators.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # A memory pattern is planned per input shape and kept; ours differ from batch to batch.
        options.enable_mem_pattern = False
        self._session: ort.InferenceSession | None = ort.InferenceSession(
            str(model), options, providers=["CPUExecutionProvider"]
        )
        self._run_options = ort.RunOptions()
        # Hand the arena back after each run: one long batch must not set the resident size for good.
        self._run_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._busy = threading.Lock()

    def run(self, sequences: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        with self._busy:
            if self._session is None:
                raise InferenceFailed("The embedding model is closed.")
            ids, mask = pad(sequences)
            (vectors,) = self._session.run(["embedding"], {"input_ids": ids, "attention_mask": mask}, self._run_options)
        return np.asarray(vectors, dtype=np.float32)

    def close(self) -> None:
        with self._busy:
            self._session = None


def pad(sequences: Sequence[Sequence[int]]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Ids and mask, padded on the right with 0 to the longest sequence."""
    shape = (len(sequences), max(map(len, sequences)))
    ids = np.zeros(shape, np.int32)
    mask = np.zeros(shape, np.int32)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    return ids, mask
