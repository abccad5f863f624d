"""The data plane without a kernel: one request after another through real connections on transports that go nowhere.

    python benchmarks/hot_path.py [--requests 100000] [--scopes 1] [--limits] [--profile | --cold]

Prints microseconds of CPU per plain chat request, per streamed chunk and per exact hit of the cache: what the Python costs, free of the
noise of sockets. The whole cost, sockets included, is benchmarks/overhead.py's. `--cold` times the steps of a stream, each after
somebody else had the processor's caches, which is how a server of slow streams meets them.
"""

import argparse
import asyncio
import cProfile
import gc
import os
import pstats
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

import uvloop

from admin import migrate
from benchmarks import dialogue
from gateway.books import Books
from gateway.cache.policy import Exact, Policy
from gateway.catalog import Deployment, Model, compile_catalog
from gateway.connection import Connection
from gateway.database import connect
from gateway.http_limits import HttpLimits
from gateway.keys import Key, digest
from gateway.leases.memory import MemoryLeases
from gateway.listener import Listener
from gateway.metrics import Metrics
from gateway.outlet import Outlets
from gateway.plane import Plane
from gateway.pool import origin_key
from gateway.pool_limits import PoolLimits
from gateway.price_map import PriceMap
from gateway.pricing import compile_price, pico_per_token
from gateway.realtime.limits import Limits as TalkLimits
from gateway.recorder import Recorder
from gateway.scopes import Budget, Limits, Scope, compile_rules, static_binding
from gateway.secret_box import SecretBox
from gateway.snapshot import Current, Snapshot
from gateway.tariffs import Schedule, Tariff
from gateway.upstream import UpstreamConnection

MESSAGE = (
    b'"messages":[{"role":"system","content":"You are a careful assistant. Answer in plain English, in at most three sentences, and '
    b'say so when you do not know. Do not give legal or medical advice, and never invent a source."},{"role":"user","content":"We are '
    b"planning a family trip for next spring with two small children. Which city is the capital of France, where does it lie, and "
    b'roughly how many people live there?"}],"temperature":0.7,"max_tokens":256,"user":"u-829113"'
)
ANSWER = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1761955200,"model":"m","choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":"Paris is the capital of France. It lies on the Seine, has been the seat of government for most of the past thousand '
    b'years, and is home to about two million people within the city limits.","refusal":null},"logprobs":null,"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":92,"completion_tokens":41,"total_tokens":133,"prompt_tokens_details":{"cached_tokens":0}}}'
)
CHUNK = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1761955200,"model":"m","service_tier":"default",'
    b'"system_fingerprint":"fp","choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}]}\n\n'
)
LAST = (
    CHUNK.replace(b'"finish_reason":null', b'"finish_reason":"stop"')
    + b'data: {"id":"chatcmpl-1","choices":[],"usage":{"prompt_tokens":92,"completion_tokens":99,"total_tokens":191}}\n\n'
    + b"data: [DONE]\n\n"
)


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
ANSWERED = (
    b"HTTP/1.1 200 OK\r\nServer: x\r\nDate: now\r\nContent-Type: application/json\r\nConnection: keep-alive\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)
)
OPENING = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_CACHES = 1024 * 1024  # what others leave of what is nearest to a core, on a machine that they use as well
_STREAMS = 300
_ROUNDS = 25  # the least of them counts: what the neighbours on the machine add is not ours


class Nowhere(asyncio.Transport):
    """A transport whose socket takes everything."""

    def __init__(self, sink: BinaryIO) -> None:
        super().__init__({"socket": sink})

    def write(self, _data: bytes | bytearray | memoryview) -> None:
        raise AssertionError("a socket that takes everything is written to directly")

    def is_closing(self) -> bool:
        return False

    def close(self) -> None: ...

    def abort(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Turns:
    """What is due at the end of a turn of the event loop, which never turns here."""

    def __init__(self) -> None:
        self._due: list[Callable[[], None]] = []

    def call_soon(self, work: Callable[[], None]) -> None:
        self._due.append(work)

    def end(self) -> None:
        due, self._due = self._due, []
        for work in due:
            work()


def request(model: bytes, *, stream: bool) -> bytes:
    body = b'{"model":"' + model + b'",' + MESSAGE + (b',"stream":true}' if stream else b"}")
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:4000\r\nContent-Type: application/json\r\nAccept: */*\r\n"
        b"Authorization: Bearer sk-bench\r\nUser-Agent: bench\r\nContent-Length: %d\r\n\r\n" % len(body)
    ) + body


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def connected(
    plane: Plane, listener: Listener, deployment: Deployment, sink: BinaryIO
) -> tuple[UpstreamConnection, Connection]:
    """A connection to the deployment, free to be used, and one of a client."""
    origin = plane.pool.origin(origin_key(deployment.base_url))
    upstream = UpstreamConnection(origin)
    upstream.connection_made(Nowhere(sink))
    upstream.busy = True
    upstream.complete = True
    origin.give_back(upstream, reusable=True)
    client = Connection(listener)
    client.connection_made(Nowhere(sink))
    return upstream, client


async def main(requests: int, scopes: int, data_dir: Path, *, limits: bool, profile: bool, cold: bool) -> None:
    price = compile_price(Schedule(Tariff(input=pico_per_token(0.15), output=pico_per_token(0.60))))
    deployment = Deployment("a", "openai", "http://127.0.0.1:1/v1", "upstream-model", "sk-up", price=price)
    kept = Model("c", (deployment,), cache=Policy(Exact(), "user", b""))
    catalog = compile_catalog([Model("m", (deployment,))])
    rules = compile_rules(
        [Budget(f"b{n}", Scope("key", "k"), 10**18, "total") for n in range(scopes)],
        [Limits("l", Scope("key", "k"), rpm=10**9, tpm=10**12)] if limits else [],
    )
    current = Current(Snapshot(1, {digest(b"sk-bench"): Key("k", "bench")}, catalog, rules))
    engine = connect(f"sqlite:///{data_dir}/bench.db")
    migrate.prepare(engine)
    books = Books(data_dir, engine, MemoryLeases(), PriceMap(), lambda *_: None)
    for bound in static_binding(
        rules, Key("k", "bench"), "m", "openai"
    ).bound:  # as if borrowed: what is measured does not wait
        books.shares.of(bound, time.time()).free = 10**17
    plane = Plane(
        current=current,
        admin_digest=b"",
        meter=books.meter,
        recorder=Recorder(Metrics()),
        local={},
        dialects={},
        prices=PriceMap(),
        limits=PoolLimits(),
        user_agent="penstock",
        till=books.till,
        box=SecretBox(lambda: b""),
        talks=TalkLimits(),
        engine=engine,
    )
    listener = Listener(plane.routes, plane.prefixes, _no_app, HttpLimits())
    turns = Turns()
    listener.outlets = plane.pool.outlets = Outlets(turns)  # type: ignore[arg-type]  # no more of a loop is asked for
    sink = await asyncio.to_thread(open, os.devnull, "wb")
    upstream, client = connected(plane, listener, deployment, sink)

    plain, streaming = request(b"m", stream=False), request(b"m", stream=True)
    one = chunked(CHUNK)

    def plain_requests(count: int) -> None:
        for _ in range(count):
            client.data_received(plain)
            turns.end()
            upstream.data_received(ANSWERED)
            turns.end()

    def streams(count: int) -> None:
        for _ in range(count // 100):
            client.data_received(streaming)
            turns.end()
            for chunk in (OPENING + one, *[one] * 98, chunked(LAST) + b"0\r\n\r\n"):
                upstream.data_received(chunk)
                turns.end()

    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)  # as the server does
    if cold:
        report_cold(lambda: steps(client, upstream, streaming, turns))
        await books.close()
        return
    report("plain request", plain_requests, requests, profile=profile)
    report("streamed chunk", streams, requests, profile=profile)

    with_cache = compile_catalog(
        [Model("m", (deployment,)), kept]
    )  # only now, so that nothing above goes by way of a cache
    current.replace(Snapshot(2, current.snapshot.keys, with_cache, rules))
    hit = request(b"c", stream=False)
    client.data_received(hit)
    upstream.data_received(ANSWERED)

    def hits(count: int) -> None:
        for _ in range(count):
            client.data_received(hit)
            turns.end()

    report("exact hit", hits, requests, profile=profile)
    assert client.idle, "the last request was not answered"
    await books.close()
    engine.dispose()
    sink.close()


def steps(
    client: Connection, upstream: UpstreamConnection, request: bytes, turns: Turns
) -> Iterator[tuple[str, Callable[[], None]]]:
    """One stream, a segment at a time, as `benchmarks.stream_upstream` sends them."""
    frames = [chunked(event) for event in dialogue.events()]

    def arrives(data: bytes) -> None:
        upstream.data_received(data)
        turns.end()

    def asked() -> None:
        client.data_received(request)
        turns.end()

    yield "request", asked
    yield "head and empty chunk", partial(arrives, STREAM_HEAD + frames[0])
    yield "first content", partial(arrives, frames[1])
    for frame in frames[2:-2]:
        yield "chunk", partial(arrives, frame)
    yield "end", partial(arrives, frames[-2] + frames[-1] + b"0\r\n\r\n")


def report_cold(stream: Callable[[], Iterator[tuple[str, Callable[[], None]]]]) -> None:
    others = bytearray(_CACHES)
    spent: dict[str, list[int]] = {}
    for number in range(_STREAMS):
        for name, step in stream():
            others[:] = bytes(_CACHES)
            began = time.perf_counter_ns()
            step()
            if number >= _STREAMS // 10:
                spent.setdefault(name, []).append(time.perf_counter_ns() - began)
    for name, took in spent.items():
        print(f"{name:22} {statistics.median(took) / 1000:6.2f} µs")
    edges = sum(statistics.median(took) for name, took in spent.items() if name != "chunk")
    print(f"{'start and end':22} {edges / 1000:6.2f} µs")


def report(name: str, work: Callable[[int], None], count: int, *, profile: bool) -> None:
    work(count // 10)
    profiler = cProfile.Profile()
    if profile:
        profiler.runcall(work, count)
        pstats.Stats(profiler).sort_stats("tottime").print_stats(28)
        return
    rounds = []
    for _ in range(_ROUNDS):
        began, all_began = time.thread_time(), time.process_time()
        work(count // _ROUNDS)
        scale = 1e6 / (count // _ROUNDS)
        rounds.append(((time.thread_time() - began) * scale, (time.process_time() - all_began) * scale))
    own, every = (min(column) for column in zip(*rounds, strict=True))
    print(f"{name:16} {own:6.2f} µs on the event loop, {every:6.2f} µs with the threads that ship the ledger")


async def _no_app(*_: object) -> None:
    raise AssertionError("every path of this benchmark is hot")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--scopes", type=int, default=1, help="budgets that bind the key")
    parser.add_argument("--limits", action="store_true", help="requests and tokens per minute bind it, too")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--cold", action="store_true", help="the steps of a stream, with cold caches")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        uvloop.run(
            main(
                options.requests,
                options.scopes,
                Path(folder),
                limits=options.limits,
                profile=options.profile,
                cold=options.cold,
            )
        )
