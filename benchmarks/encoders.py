"""The embedding engine beside plain ONNX Runtime and sentence-transformers, on one thread, in one run; many clients beside one; INT8.

    make bench-embedding [ARGS="--rounds 5 --write"]

Sentences per CPU-second: process CPU time, user and system, the median over the rounds. Plain ONNX Runtime runs the same graph in the loop
that its documentation shows: tokenise a batch, pad it, run it. sentence-transformers runs in a process and an environment of its own
(`deploy/setup.sh encoders`), and its vectors are what ours are compared with. INT8 is `all-minilm-l6-v2-int8`.
"""

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from tokenizers import Tokenizer

from benchmarks import manuals
from benchmarks.embeddings import sentence
from benchmarks.finding import VECTORS, Kept, chosen, cut, seen
from benchmarks.report import machine, table, write_section
from embedding import bundled, graph
from embedding.backends.onnx import pad
from embedding.engine import Engine
from retrieval.evaluation.intervals import difference, mean
from retrieval.evaluation.measures import measure, ordered

PEER = Path(".tools/encoders/bin/python")
MARKS = ("<!-- encoders: written by make bench-embedding ARGS=--write -->", "<!-- encoders: end -->")
WORDS = (20, 150)
BATCHES = (1, 32)
CLIENTS = 64
QUESTIONS = 200
DOCUMENTS = 3000
OTHERS = 1500  # passages of documents that do not answer, beside all of those that do

Vectors = NDArray[np.float32]
Encode = Callable[[Sequence[str]], Awaitable[Vectors]]


class Plain:
    """ONNX Runtime as its documentation has it."""

    def __init__(self, model: Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._tokenizer = Tokenizer.from_file(str(bundled.tokenizer_file()))
        self._tokenizer.enable_truncation(bundled.MINILM.max_tokens)
        self._tokenizer.no_padding()

    async def encode(self, texts: Sequence[str]) -> Vectors:
        ids, mask = pad([each.ids for each in self._tokenizer.encode_batch(list(texts))])
        (vectors,) = self._session.run(["embedding"], {"input_ids": ids, "attention_mask": mask})
        return np.asarray(vectors, np.float32)


async def rate(encode: Encode, texts: Sequence[str], together: int, rounds: int) -> float:
    """Sentences per CPU-second."""
    rates = []
    for _ in range(rounds):
        before = time.process_time()
        for start in range(0, len(texts), together):
            await encode(texts[start : start + together])
        rates.append(len(texts) / (time.process_time() - before))
    return statistics.median(rates)


async def clients(engine: Engine, texts: Sequence[str], rounds: int, clock: Callable[[], float]) -> tuple[float, float]:
    """Per second of the clock: by one client, text after text, and by 64 of them, each with one text at a time."""

    async def one(queue: list[str]) -> None:
        while queue:
            await engine.embed([queue.pop()])

    alone: list[float] = []
    many: list[float] = []
    for _ in range(rounds):
        for count, into in ((1, alone), (CLIENTS, many)):
            queue, before = list(texts), clock()
            await asyncio.gather(*(one(queue) for _ in range(count)))
            into.append(len(texts) / (clock() - before))
    return statistics.median(alone), statistics.median(many)


def peer(
    texts: Sequence[str], workloads: Mapping[str, tuple[Sequence[str], int]], rounds: int
) -> Mapping[str, NDArray[np.float64]]:
    """sentence-transformers' rates and vectors; nothing where it is not installed."""
    if not PEER.exists():
        return {}
    asked = {
        "texts": texts,
        "workloads": workloads,
        "rounds": rounds,
        "max_tokens": bundled.MINILM.max_tokens,
        "dimensions": bundled.MINILM.dimensions,
    }
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "asked.json", Path(folder) / "out.npz"
        source.write_text(json.dumps(asked))
        script = Path(__file__).parent / "encoder_peer.py"
        model = bundled.tokenizer_file().parent
        subprocess.run([PEER, script, model, source, out], check=True, env={"OMP_NUM_THREADS": "1"})
        with np.load(out) as found:
            return dict(found)


async def speeds(engine: Engine, plain: Plain, rounds: int) -> tuple[str, str]:
    """Two paragraphs: beside the others, and many clients beside one."""

    async def ours(texts: Sequence[str]) -> Vectors:
        return (await engine.embed(texts)).vectors

    workloads = {
        f"{words} words, {together} in a call": ([sentence(words, seed) for seed in range(64)], together)
        for words in WORDS
        for together in BATCHES
    }
    texts = [sentence(1 + seed * 7 % 300, seed) for seed in range(200)]
    theirs = peer(texts, workloads, rounds)
    rows = []
    for name, (some, together) in workloads.items():
        our_rate, plain_rate = (
            await rate(ours, some, together, rounds),
            await rate(plain.encode, some, together, rounds),
        )
        their = float(theirs[f"rate {name}"]) if theirs else float("nan")
        rows.append((name, f"**{our_rate:.0f}**", f"{plain_rate:.0f}", f"{their:.0f}" if theirs else "not installed"))
    lines = [table(("sentences per CPU-second", "Penstock", "plain ONNX Runtime", "sentence-transformers"), rows)]
    if theirs:
        cosines = np.sum((await ours(texts)) * theirs["vectors"], axis=1)
        lines += [
            "",
            f"Cosine to sentence-transformers over 200 texts of 1 to 300 words: {cosines.min():.7f} at worst.",
        ]
    crowds = []
    for words in (5, 20):
        some = [sentence(words, seed) for seed in range(512)]
        for label, clock in (("CPU-second", time.process_time), ("second", time.perf_counter)):
            alone, many = await clients(engine, some, rounds, clock)
            crowds.append((f"{words} words, per {label}", f"{alone:.0f}", f"{many:.0f}", f"**{many / alone:.1f}**"))
    return "\n".join(lines), table(("one text in each call", "one client", f"{CLIENTS} clients", "ratio"), crowds)


async def int8(engine: Engine, quantised: Engine, mb: tuple[float, float]) -> str:
    """What it finds less, among all passages that answer and some thousands that do not."""
    questions = manuals.choose(manuals.load(), QUESTIONS)
    answering = {page for each in questions for page in each.pages}
    pages = chosen(cut(manuals.OUT / "documents"), manuals.load(), DOCUMENTS)
    some = [(page, each) for page in sorted(answering) for each in pages[page]]
    others = [(page, each) for page, chunks in pages.items() if page not in answering for each in chunks]
    some += random.Random(1).sample(others, min(OTHERS, len(others)))
    kept = Kept(VECTORS, engine)
    texts, asked = [seen(each) for _, each in some], [each.text for each in questions]
    full, full_asked = await kept.of(texts), await kept.of(asked)
    before = time.process_time()
    small = np.concatenate([(await quantised.embed(texts[at : at + 256])).vectors for at in range(0, len(texts), 256)])
    small_asked = (await quantised.embed(asked)).vectors
    spent = time.process_time() - before
    values: dict[str, list[list[float]]] = {"recall@5": [[], []], "ndcg@10": [[], []]}
    agree = []
    for number, question in enumerate(questions):
        judged = dict.fromkeys(question.pages, 1)
        orders = [np.argsort(-(rows @ one[number])) for rows, one in ((full, full_asked), (small, small_asked))]
        agree.append(len(set(orders[0][:10]) & set(orders[1][:10])) / 10)
        for which, order in enumerate(orders):
            found = ordered([some[at][0] for at in order[:200]])
            for name, both in values.items():
                both[which].append(measure(name, found, judged))
    rows = []
    for name, (before_, after) in values.items():
        gap = difference(before_, after)
        rows.append(
            (
                name,
                f"{mean(before_).value:.3f}",
                f"{mean(after).value:.3f}",
                f"{gap.value:+.3f} ({gap.low:+.3f} to {gap.high:+.3f})",
            )
        )
    cosines = np.sum(full * small, axis=1)
    head = table((f"dense alone, {len(some):,} passages, {len(agree)} questions", "fp32", "INT8", "difference"), rows)
    speed, same = (len(texts) + len(asked)) / spent, np.mean(agree)
    return (
        f"{head}\n\nINT8 has {mb[1]:.0f} MB instead of {mb[0]:.0f}, and embeds {speed:.0f} of these passages per CPU-second. Cosine to "
        f"fp32: {cosines.mean():.4f} on average, {cosines.min():.4f} at worst; of the ten nearest passages {same:.0%} are the same."
    )


def _mb(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.iterdir()) / 1e6


async def run(rounds: int, *, with_int8: bool) -> str:
    cache = manuals.OUT / "model"
    folder = bundled.graph(cache, bundled.tokenizer_file().parent)
    engine = Engine(bundled.MINILM, bundled.opener(cache, threads=1))
    plain = Plain(folder / graph.GRAPH_FILE)
    await engine.warm()
    await plain.encode(["warm"])
    side, crowd = await speeds(engine, plain, rounds)
    here = machine()
    lines = [
        "## Embedding",
        "",
        f"`make bench-embedding`, {here.date}, {here.cpu}, one thread each.",
        "",
        side,
        "",
        crowd,
    ]
    if with_int8:
        small = bundled.graph(cache, bundled.tokenizer_file().parent, bundled.MINILM_INT8)
        quantised = Engine(bundled.MINILM_INT8, bundled.opener(cache, threads=1, spec=bundled.MINILM_INT8))
        lines += ["", await int8(engine, quantised, (_mb(folder), _mb(small)))]
        await quantised.close()
    await engine.close()
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without-int8", action="store_true", help="which embeds thousands of passages")
    parser.add_argument("--write", action="store_true", help="renew the section of RESULTS.md")
    arguments = parser.parse_args()
    text = asyncio.run(run(arguments.rounds, with_int8=not arguments.without_int8))
    print(text)
    if arguments.write:
        write_section(Path(__file__).parent / "RESULTS.md", text, MARKS)


if __name__ == "__main__":
    main()
