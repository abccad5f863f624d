"""The embedding engine beside plain ONNX Runtime and sentence-transformers, on one thread, in one run; many clients beside one; INT8.

    make bench-embedding [ARGS="--rounds 5 --write --parts clients int8"]

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
from benchmarks.finding import VECTORS, Kept, cut, seen
from benchmarks.report import machine, table, write_section
from embedding import bundled, graph
from embedding.backends.onnx import pad
from embedding.engine import Engine
from retrieval.evaluation.intervals import difference, mean
from retrieval.evaluation.measures import measure, ordered

PEER = Path(".tools/encoders/bin/python")
PARTS = ("encoders", "clients", "int8")
MARKS = {
    part: (f"<!-- {part}: written by make bench-embedding ARGS=--write -->", f"<!-- {part}: end -->") for part in PARTS
}
WORDS = (20, 150)
BATCHES = (1, 32)
CLIENTS = 64
CROWD_WORDS = (1, 2, 3, 5, 20)
BOUND = (
    "*Products alone*: what 64 clients would get if a batch were nothing but the model's own products (21.2 MFLOP a token), at the rate "
    "of one product of its largest shape: no batching in fp32 gives more."
)
FLOP_PER_TOKEN = 6 * 2 * (4 * 384**2 + 2 * 384 * 1536)  # six layers' weights, each multiplied and added once
QUESTIONS = 200
OTHERS = 0.4  # passages of documents that do not answer, for each of those that do

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


async def speeds(engine: Engine, plain: Plain, rounds: int) -> str:
    """Beside the others."""

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
    return "\n".join(lines)


async def crowds(engine: Engine, quantised: Engine, rounds: int) -> str:
    """Many clients beside one, per CPU-second, and what the machine could do at most if a batch were nothing but products."""
    words_of = Tokenizer.from_file(str(bundled.tokenizer_file()))
    words_of.no_padding()
    rows = []
    for words in CROWD_WORDS:
        some = [sentence(words, seed) for seed in range(512)]
        alone, many = await clients(engine, some, rounds, time.process_time)
        tokens = statistics.mean(len(each.ids) for each in words_of.encode_batch(some))
        bound = products(rounds) * 1e9 / (tokens * FLOP_PER_TOKEN)
        rows.append(
            (
                f"{words} words, {tokens:.1f} tokens",
                f"{alone:.0f}",
                f"{many:.0f}",
                f"**{many / alone:.1f}**",
                f"{bound:.0f}",
                f"{bound / alone:.1f}",
            )
        )
    for words in CROWD_WORDS:
        some = [sentence(words, seed) for seed in range(512)]
        alone, many = await clients(quantised, some, rounds, time.process_time)
        rows.append((f"{words} words, INT8", f"{alone:.0f}", f"{many:.0f}", f"**{many / alone:.1f}**", "", ""))
    titles = ("one text in each call, per CPU-second", "one client", f"{CLIENTS} clients", "ratio")
    return f"{table((*titles, 'products alone', 'ratio'), rows)}\n\n{BOUND}"


def products(rounds: int) -> float:
    """GFLOP per CPU-second of NumPy's own product, in the shape that takes most of a batch: what is left is not to be had in fp32."""
    left, right = np.ones((448, 384), np.float32), np.ones((384, 1536), np.float32)
    out = np.empty((448, 1536), np.float32)
    rates = []
    for _ in range(20 * rounds):
        before = time.process_time_ns()
        np.matmul(left, right, out=out)
        rates.append(2 * left.size * right.shape[1] / (time.process_time_ns() - before))
    return max(rates)


async def int8(engine: Engine, quantised: Engine, mb: tuple[float, float], most: int) -> str:
    """What it finds less, among all passages of documents that answer, and some of those that answer other questions."""
    questions = manuals.choose(manuals.load(), most)
    answering = {page for each in questions for page in each.pages}
    pages = cut(manuals.OUT / "documents", {page for each in manuals.load() for page in each.pages})
    some = [(page, each) for page in sorted(answering) for each in pages[page]]
    others = [(page, each) for page, chunks in pages.items() if page not in answering for each in chunks]
    some += random.Random(1).sample(others, min(int(OTHERS * len(some)), len(others)))
    kept = Kept(VECTORS, engine)
    texts, asked = [seen(each) for _, each in some], [each.text for each in questions]
    full, full_asked = await kept.of(texts), await kept.of(asked)
    before = time.process_time()
    small = np.concatenate([(await quantised.embed(texts[at : at + 256])).vectors for at in range(0, len(texts), 256)])
    small_asked = (await quantised.embed(asked)).vectors
    spent = time.process_time() - before
    values: dict[str, list[list[float]]] = {"recall@5": [[], []], "recall@10": [[], []], "ndcg@10": [[], []]}
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


async def run(part: str, rounds: int, questions: int) -> str:
    """One part of the section."""
    cache = manuals.OUT / "model"
    folder = bundled.graph(cache, bundled.tokenizer_file().parent)
    engine = Engine(bundled.MINILM, bundled.opener(cache, threads=1))
    quantised = Engine(bundled.MINILM_INT8, bundled.opener(cache, threads=1, spec=bundled.MINILM_INT8))
    await engine.warm()
    here = machine()
    head = f"`make bench-embedding`, {here.date}, {here.cpu}, one thread each."
    match part:
        case "encoders":
            plain = Plain(folder / graph.GRAPH_FILE)
            await plain.encode(["warm"])
            text = f"## Embedding\n\n{head}\n\n{await speeds(engine, plain, rounds)}"
        case "clients":
            await quantised.warm()
            text = f"### Many clients\n\n{head}\n\n{await crowds(engine, quantised, rounds)}"
        case _:
            small = bundled.graph(cache, bundled.tokenizer_file().parent, bundled.MINILM_INT8)
            text = f"### INT8\n\n{head}\n\n{await int8(engine, quantised, (_mb(folder), _mb(small)), questions)}"
    await quantised.close()
    await engine.close()
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--questions", type=int, default=QUESTIONS, help="of INT8: each brings some twenty passages")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="`int8` embeds thousands of passages")
    parser.add_argument("--write", action="store_true", help="renew the section of RESULTS.md")
    arguments = parser.parse_args()
    for part in arguments.parts:
        text = asyncio.run(run(part, arguments.rounds, arguments.questions))
        print(text)
        if arguments.write:
            write_section(Path(__file__).parent / "RESULTS.md", text, MARKS[part])


if __name__ == "__main__":
    main()
