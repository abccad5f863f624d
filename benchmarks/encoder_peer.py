"""sentence-transformers in an environment of its own: `python encoder_peer.py MODEL ASKED.json OUT.npz`, on one thread.

ASKED has rounds and workloads: by name, texts and how many go into one call. OUT has for each its sentences per CPU-second (`rate NAME`),
the median over the rounds, and the vectors of `texts` (`vectors`). Imports nothing of Penstock's.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Normalize, Pooling, Transformer


def main(model_folder: str, asked_file: str, out_file: str) -> None:
    torch.set_num_threads(1)
    asked = json.loads(Path(asked_file).read_text(encoding="utf-8"))
    transformer = Transformer(model_folder, max_seq_length=asked["max_tokens"])
    model = SentenceTransformer(modules=[transformer, Pooling(asked["dimensions"], "mean"), Normalize()], device="cpu")
    out = {"vectors": model.encode(asked["texts"], batch_size=32, show_progress_bar=False)}
    for name, (texts, together) in asked["workloads"].items():
        rates = []
        for _ in range(asked["rounds"]):
            before = time.process_time()
            for start in range(0, len(texts), together):
                model.encode(texts[start : start + together], batch_size=together, show_progress_bar=False)
            rates.append(len(texts) / (time.process_time() - before))
        out[f"rate {name}"] = np.array(statistics.median(rates))
    np.savez(out_file, **out)


if __name__ == "__main__":
    main(*sys.argv[1:4])
