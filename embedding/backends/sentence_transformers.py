"""sentence-transformers: any model that it loads, on a GPU where there is one. Imports torch, which takes seconds and half a gigabyte."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from huggingface_hub import try_to_load_from_cache
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from embedding.errors import InferenceFailed, Unavailable
from embedding.model import Model
from embedding.ports import ModelSpec
from embedding.tokens import Tokenizer

MOST_TOKENS: Final = 131_072  # tokenizers without a limit name one of thirty digits
USUAL_TOKENS: Final = 512
BATCH_TOKENS: Final = 1024  # as for the model that is built in
GPU_BATCH_TOKENS: Final = 16_384  # fewer do not fill one
CONFIG: Final = "config_sentence_transformers.json"


@dataclass(frozen=True, slots=True)
class Opened:
    """`prompts` stand before texts, by what the model calls them: `query`, `document` and the like."""

    model: Model
    prompts: Mapping[str, str]
    batch_tokens: int


def load(name: str) -> Opened:
    """A folder, or a name at the hub or in its cache. Blocks. Raises Unavailable."""
    if name.startswith((".", "/", "~")) and not Path(name).expanduser().is_dir():
        raise Unavailable(f"There is no folder {name} with a model.")
    try:
        loaded = SentenceTransformer(str(Path(name).expanduser()) if name.startswith("~") else name)
    except Exception as error:  # whatever the hub's client and the loaders of a model's parts raise
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise Unavailable(
            f"The model {name} cannot be loaded: {first} It has to be a folder here, or at a hub that can be reached."
        ) from error
    spec = _spec(name, loaded)
    tokenizer = Tokenizer(_vocabulary(name, loaded), spec.max_tokens)
    gpu = loaded.device.type != "cpu"
    return Opened(
        Model(spec, tokenizer, SentenceTransformersBackend(loaded, spec.dimensions)),
        {key: prompt for key, prompt in loaded.prompts.items() if prompt},
        GPU_BATCH_TOKENS if gpu else BATCH_TOKENS,
    )


class SentenceTransformersBackend:
    """The modules of one model; vectors are cut to `dimensions`, if it has more, and scaled to length 1."""

    def __init__(self, model: SentenceTransformer, dimensions: int) -> None:
        self._model: SentenceTransformer | None = model.eval()
        self._dimensions = dimensions

    def run(self, sequences: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        model = self._model
        if model is None:
            raise InferenceFailed("The embedding model is closed.")
        padded = model.tokenizer.pad({"input_ids": [list(ids) for ids in sequences]}, return_tensors="pt")
        features = {name: tensor.to(model.device) for name, tensor in padded.items()}
        with torch.inference_mode():
            made = model(features)["sentence_embedding"][:, : self._dimensions].float()
            unit = torch.nn.functional.normalize(made, dim=1)
        vectors: NDArray[np.float32] = unit.cpu().numpy()
        return vectors

    def close(self) -> None:
        self._model = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _spec(name: str, loaded: Any) -> ModelSpec:
    """Dimensions, the limit of tokens, and whether it may be cut, of the model's own files. Raises Unavailable."""
    settings = _settings(name)
    hidden = getattr(getattr(loaded[0], "auto_model", None), "config", None)
    most = loaded.max_seq_length
    if most is None or most > MOST_TOKENS:
        most = getattr(hidden, "max_position_embeddings", None) or USUAL_TOKENS
    native = loaded.get_embedding_dimension() if hasattr(loaded, "get_embedding_dimension") else None
    native = native or loaded.get_sentence_embedding_dimension()
    if native is None:
        raise Unavailable(f"The model {name} does not say how many dimensions it has.")
    cut = settings.get("truncate_dim")
    trained = settings.get("matryoshka_dims") or getattr(hidden, "matryoshka_dimensions", None)
    return ModelSpec(name, min(native, cut or native), min(most, MOST_TOKENS), matryoshka=bool(cut or trained))


def _vocabulary(name: str, loaded: Any) -> str:
    """Its tokenizer's file. Raises Unavailable for a model whose texts are not read by one, or not like others."""
    fast = getattr(loaded.tokenizer, "backend_tokenizer", None)
    if fast is None or not hasattr(loaded[0], "auto_model"):
        raise Unavailable(
            f"The model {name} is no transformer with a fast tokenizer, and others cannot be served here."
        )
    if any(getattr(module, "include_prompt", True) is False for module in loaded):
        raise Unavailable(f"The model {name} leaves prompts out of its vectors, which cannot be done here.")
    text: str = fast.to_str()
    return text


def _settings(name: str) -> dict[str, Any]:
    folder = Path(name).expanduser()
    path = folder / CONFIG if folder.is_dir() else try_to_load_from_cache(name, CONFIG)
    try:
        read = json.loads(Path(path).read_text(encoding="utf-8")) if isinstance(path, (str, Path)) else {}
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}
