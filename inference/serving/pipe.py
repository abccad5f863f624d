"""Arrays between two processes: a length, a head in MessagePack, the bytes of the arrays one after the other."""

import socket
import struct
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

_LENGTHS: Final = struct.Struct("<IQ")  # of the head, of the arrays

Arrays = Mapping[str, NDArray[Any]]


class Head(msgspec.Struct, array_like=True):
    """`arrays`: name, type, shape. `texts`: those that are objects, whose values travel here. `error`: instead of arrays."""

    arrays: list[tuple[str, str, tuple[int, ...]]] = []
    texts: dict[str, tuple[tuple[int, ...], list[Any]]] = {}
    error: tuple[str, str] | None = None


_decoder = msgspec.msgpack.Decoder(Head)


class Gone(Exception):
    """The other side has ended."""


def send(sock: socket.socket, arrays: Arrays, error: tuple[str, str] | None = None) -> None:
    """Raises OSError."""
    head, parts = Head(error=error), []
    for name, array in arrays.items():
        if array.dtype.kind == "O":
            head.texts[name] = (array.shape, array.reshape(-1).tolist())
            continue
        whole = np.ascontiguousarray(array)
        head.arrays.append((name, whole.dtype.str, whole.shape))
        parts.append(whole.reshape(-1).view(np.uint8).data)
    said = msgspec.msgpack.encode(head)
    sock.sendall(_LENGTHS.pack(len(said), sum(part.nbytes for part in parts)) + said)
    for part in parts:
        sock.sendall(part)


def receive(sock: socket.socket) -> tuple[dict[str, NDArray[Any]], tuple[str, str] | None]:
    """Arrays that nobody writes to, and an error's name and words. Raises Gone, OSError."""
    said, size = _LENGTHS.unpack(_exactly(sock, _LENGTHS.size))
    head = _decoder.decode(_exactly(sock, said))
    body = memoryview(_exactly(sock, size))
    arrays, first = {}, 0
    for name, dtype, shape in head.arrays:
        kind = np.dtype(dtype)
        last = first + kind.itemsize * int(np.prod(shape, dtype=np.int64))
        arrays[name] = np.frombuffer(body[first:last], kind).reshape(shape)
        first = last
    for name, (shape, values) in head.texts.items():
        array = np.empty(len(values), dtype=object)
        array[:] = values
        arrays[name] = array.reshape(shape)
    return arrays, head.error


def _exactly(sock: socket.socket, size: int) -> bytearray:
    buffer = bytearray(size)
    view, have = memoryview(buffer), 0
    while have < size:
        read = sock.recv_into(view[have:])
        if not read:
            raise Gone
        have += read
    return buffer
