"""An open model: its tokenizer and its backend, and the little arithmetic around them.

Imported only when a model is opened: this is where NumPy and the tokenizer library come into the process.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embedding.ports import Backend, ModelSpec
from embedding.tokens import Encoded, Tokenizer, Truncation


class Model:
    """`tokenise` may run beside `run`; neither runs twice at the same time. The engine sees to that."""

    def __init__(self, spec: ModelSpec, tokenizer: Tokenizer, backend: Backend) -> None:
        self.spec = spec
        self._tokenizer = tokenizer
        self._backend = backend

    def tokenise(self, texts: Sequence[str], truncation: Truncation) -> list[Encoded]:
        return [self._tokenizer.encode(text, truncation) for text in texts]

    def run(self, sequences: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        return self._backend.run(sequences)

    def close(self) -> None:
        self._backend.close()
