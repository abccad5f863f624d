"""A process that runs one model for the server: `python -m inference.serving.child FD MODULE:FUNCTION`.

For models that hold the interpreter's lock, or once did not return: this one can be ended. Its first message has the bundle.
"""

import ctypes
import importlib
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from inference.ports import Bundle, Runnable
from inference.serving.pipe import Gone, receive, send
from inference.signature import Column, Signature

SET_PARENT_DEATH_SIGNAL = 1  # linux/prctl.h
MOST_SAID = 300


class Told(msgspec.Struct):
    """A bundle on its way."""

    model: str
    version: int
    runtime: str
    digest: str
    artifact: str
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    metadata: dict[str, Any]


def told(bundle: Bundle) -> bytes:
    return msgspec.json.encode(
        Told(
            bundle.model,
            bundle.version,
            bundle.runtime,
            bundle.digest,
            str(bundle.artifact),
            [msgspec.to_builtins(column) for column in bundle.signature.inputs],
            [msgspec.to_builtins(column) for column in bundle.signature.outputs],
            dict(bundle.metadata),
        )
    )


def understood(said: bytes) -> Bundle:
    it = msgspec.json.decode(said, type=Told)
    inputs, outputs = (msgspec.convert(columns, tuple[Column, ...]) for columns in (it.inputs, it.outputs))
    signature = Signature(inputs, outputs)
    return Bundle(it.model, it.version, it.runtime, it.digest, Path(it.artifact), signature, it.metadata)


def main() -> int:
    ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server decides when this ends
    sock = socket.socket(fileno=int(sys.argv[1]))
    module, _, name = sys.argv[2].partition(":")
    size = int.from_bytes(sock.recv(8, socket.MSG_WAITALL), "little")
    bundle = understood(sock.recv(size, socket.MSG_WAITALL))
    try:
        load: Callable[[Bundle], Runnable] = getattr(importlib.import_module(module), name)
        runnable = load(bundle)
    except Exception as error:  # noqa: BLE001 a process's border: the server tells it
        send(sock, {}, (type(error).__name__, str(error)[:MOST_SAID]))
        return 1
    send(sock, {})
    while True:
        try:
            columns, _ = receive(sock)
        except Gone:
            runnable.close()
            return 0
        try:
            outputs = runnable.run(columns)
        except Exception as error:  # noqa: BLE001 a model may raise anything
            send(sock, {}, (type(error).__name__, str(error)[:MOST_SAID]))
        else:
            send(sock, outputs)


if __name__ == "__main__":
    raise SystemExit(main())
