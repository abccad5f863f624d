"""The quick way of most calls: `{"instances": [{…}]}`, every feature of a model of numbers in each, decoded straight into rows.

Whatever is different in any way goes by `inference.serving.reading`, which takes more and says what is wrong.
"""

import struct
from collections.abc import Callable
from typing import Any, Final, final

import msgspec
import numpy as np

from inference.serving.frame import Frame
from inference.stacked import Stacked

MOST_FEATURES: Final = 128  # one out of its place is looked for among all

_FORMATS: Final = {"float32": "f", "float64": "d"}


@final
class Quick:
    """Reads bodies for models with these features, each of them one number of a type. Raises ValueError for names that JSON escapes."""

    __slots__ = ("_decode", "_dtype", "_names", "_pack")

    def __init__(self, names: tuple[str, ...], dtype: "np.dtype[Any]") -> None:
        fields = [(f"f{number}", float) for number in range(len(names))]
        renamed = {field: name for (field, _), name in zip(fields, names, strict=True)}
        row = msgspec.defstruct("Row", fields, rename=renamed, forbid_unknown_fields=True, gc=False)
        body = msgspec.defstruct("Body", [("instances", list[row])], forbid_unknown_fields=True)  # type: ignore[valid-type]  # made here
        self._names = names
        self._dtype = dtype
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(body).decode
        self._pack = struct.Struct(f"={len(names)}{_FORMATS[dtype.name]}").pack

    def frame(self, body: bytes, most_rows: int) -> Frame | None:
        """None: take the other way."""
        pack = self._pack
        try:
            given = [msgspec.structs.astuple(row) for row in self._decode(body).instances]
            data = b"".join([pack(*row) for row in given])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError):
            return None
        if not 0 < len(given) <= most_rows:
            return None
        matrix = np.frombuffer(data, self._dtype).reshape(len(given), -1)
        return Frame(Stacked(self._names, matrix, given), len(given))
