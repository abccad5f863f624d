"""Reads safetensors files: eight bytes of length, a JSON header, raw tensors.

The file comes out of a package that others publish, so every number in it is checked before memory is touched.
Format: https://github.com/huggingface/safetensors#format
"""

import math
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

_HEADER_LIMIT = 100_000_000  # the same bound as the reference implementation
_DTYPES: Mapping[str, str] = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "|u1"}

Size = Annotated[int, msgspec.Meta(ge=0)]


class DamagedWeights(ValueError):
    """The file is not what its header says."""


class _Entry(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[Size, ...]
    data_offsets: tuple[Size, Size]


class Weights(Mapping[str, NDArray[np.generic]]):
    """Tensors by name, as read-only views of the mapped file: only what is looked at becomes resident."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size < 8:
                raise DamagedWeights(f"{path.name}: {size} bytes are too few for a safetensors file")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        header = int.from_bytes(self._map[:8], "little")
        if header > min(_HEADER_LIMIT, size - 8):
            raise DamagedWeights(f"{path.name}: a header of {header} bytes does not fit into {size} bytes")
        self._base = 8 + header
        self._entries = _entries(self._map[8 : self._base], size - self._base, path.name)

    def __getitem__(self, name: str) -> NDArray[np.generic]:
        entry = self._entries[name]
        dtype = np.dtype(_DTYPES[entry.dtype])
        count = math.prod(entry.shape)
        return np.frombuffer(self._map, dtype, count, self._base + entry.data_offsets[0]).reshape(entry.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _entries(header: bytes, room: int, file: str) -> dict[str, _Entry]:
    """`room` is the number of bytes behind the header."""
    try:
        raw = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
        raw.pop("__metadata__", None)
        entries = {name: msgspec.json.decode(entry, type=_Entry) for name, entry in raw.items()}
    except msgspec.MsgspecError as error:
        raise DamagedWeights(f"{file}: the header is not a safetensors header: {error}") from None
    for name, entry in entries.items():
        start, end = entry.data_offsets
        if entry.dtype not in _DTYPES:
            raise DamagedWeights(f"{file}: {name} has the type {entry.dtype}; known are {', '.join(_DTYPES)}")
        if not start <= end <= room or end - start != math.prod(entry.shape) * np.dtype(_DTYPES[entry.dtype]).itemsize:
            raise DamagedWeights(f"{file}: {name} claims bytes {start} to {end} of {room} for shape {entry.shape}")
    return entries
