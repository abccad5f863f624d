"""How well real questions find real manuals: recall@5 and nDCG@10 of words, meaning, both, and both reranked.

    make bench-retrieval [ARGS="--write"]

Documents and questions are those of `benchmarks.manuals`; they are parsed, cut and embedded as ingestion does it, put into SQLite through
the stores, and asked through the whole search call. Vectors are kept in a file by the hash of their text: the first run embeds for tens of
minutes, later ones start at once. Half of the questions, by a hash of their ids, are there to choose by (`--tune` tries weights on them);
what is reported is the other half, and all of them.
"""

import argparse
import asyncio
import hashlib
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from admin.migrate import prepare
from benchmarks import manuals
from benchmarks.manual_sources import Question as Asked
from embedding import bundled
from embedding.engine import Engine
from gateway.database import appending, connect, reading
from retrieval import collection_store, document_store, passage_store
from retrieval.access import Caller
from retrieval.chunking import chunk, strategies
from retrieval.chunking.tokens import Estimate
from retrieval.chunking_strategy import auto
from retrieval.collection_store import NewCollection
from retrieval.database import Database
from retrieval.document_store import NewDocument
from retrieval.parsing.registry import read
from retrieval.parsing.source import Source
from retrieval.passage_store import New, Placed
from retrieval.ports import Chunk

CALLER = Caller("key_bench", labels=frozenset("*"))
VECTORS = manuals.OUT / "vectors.npz"
SAVED_EVERY = 4096

Vectors = NDArray[np.float32]
Pages = Mapping[str, Sequence[Chunk]]


def cut(folder: Path) -> Pages:
    """Every document's passages, as ingestion cuts them for the built-in model."""
    sizes = auto(bundled.MINILM.max_tokens)
    pages: dict[str, Sequence[Chunk]] = {}
    for file in sorted(folder.rglob("*.html")):
        parsed = read(Source(file.name, file))
        document = chunk.Document(parsed.text, parsed.blocks, verbatim=False)
        pages[str(file.relative_to(folder))] = [
            Chunk(each.text, each.start, each.end, each.page, each.line, each.heading, each.tokens)
            for each in strategies.by_tokens(document, Estimate(), chunk.Sizes(sizes.max_tokens, sizes.overlap_tokens))
        ]
    return pages


def seen(each: Chunk) -> str:
    """What the embedding model sees of a passage."""
    return "\n".join((*each.heading, each.text))


class Kept:
    """Vectors by the hash of their text, in a file that is written now and then."""

    def __init__(self, file: Path, engine: Engine) -> None:
        self._file = file
        self._engine = engine
        self._known: dict[bytes, Vectors] = {}
        if file.exists():
            with np.load(file) as saved:
                rows, keys = saved["vectors"], saved["keys"].tobytes()
            self._known = {keys[at * 32 : at * 32 + 32]: rows[at] for at in range(len(rows))}

    async def of(self, texts: Sequence[str]) -> Vectors:
        missing = list({_key(text): text for text in texts if _key(text) not in self._known}.values())
        missing.sort(key=len)  # little padding
        began = time.monotonic()
        for start in range(0, len(missing), SAVED_EVERY):
            some = missing[start : start + SAVED_EVERY]
            for at in range(0, len(some), 256):
                part = some[at : at + 256]
                for text, vector in zip(part, (await self._engine.embed(part)).vectors, strict=True):
                    self._known[_key(text)] = vector
            self._save()
            done, spent = start + len(some), time.monotonic() - began
            print(f"embedded {done:,} of {len(missing):,} in {spent:.0f} s", file=sys.stderr, flush=True)
        return np.stack([self._known[_key(text)] for text in texts]) if texts else np.zeros((0, 1), np.float32)

    def _save(self) -> None:
        beside = self._file.with_suffix(".tmp.npz")
        keys = np.frombuffer(b"".join(self._known), np.uint8)
        np.savez(beside, keys=keys, vectors=np.stack(list(self._known.values())))
        beside.replace(self._file)


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()
