"""The quick way of bodies says what the other way says, or nothing."""

import json
from typing import Any

import numpy as np
import pytest

from inference.serving.errors import BadInput
from inference.serving.exchange import parsed
from inference.serving.reading import quick_of, read_body
from inference.signature import Column, DataType, Signature
from inference.stacked import Stacked

MOST = 3


def numbers(*names: str, datatype: DataType = "FP32") -> Signature:
    return Signature(tuple(Column(name, datatype) for name in names), ())


PLAIN = numbers("a", "b c", "ü")
ONE = {"a": 0.1, "b c": -2, "ü": 3e38}


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
@pytest.mark.parametrize(
    "rows",
    [[ONE], [ONE, ONE | {"a": 7}], [dict(reversed(ONE.items()))], [ONE | {"a": 2**60 + 1}], [ONE | {"a": 16777217}]],
)
def test_both_ways_read_the_same(rows: list[dict[str, Any]], datatype: DataType) -> None:
    """To the bit, whatever the order of the features; and what is kept of them is what was sent."""
    signature = numbers("a", "b c", "ü", datatype=datatype)
    quick, body = quick_of(signature), {"instances": rows}
    assert quick is not None
    frame, other = quick.frame(json.dumps(body).encode(), MOST), read_body(signature, body, MOST)
    assert frame is not None
    assert frame.rows == other.rows == len(rows)
    assert isinstance(frame.columns, Stacked)
    assert isinstance(other.columns, Stacked)
    np.testing.assert_array_equal(frame.columns.matrix, other.columns.matrix)
    assert frame.columns.matrix.dtype == other.columns.matrix.dtype
    sent = [[float(row[name]) for name in ONE] for row in rows]
    assert [list(row) for row in frame.columns.given or ()] == sent == other.columns.given


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ([ONE | {"a": True}], "invalid_type"),
        ([ONE | {"a": "1"}], "invalid_type"),
        ([ONE | {"a": None}], "null_not_allowed"),
        ([ONE | {"a": 1e39}], "out_of_range"),
        ([ONE | {"more": 1}], "unknown_feature"),
        ([{"a": 1, "b c": 2}], "missing_feature"),
        ([], "no_rows"),
    ],
)
def test_what_is_wrong_is_left_to_the_way_that_says_so(rows: list[dict[str, Any]], code: str) -> None:
    quick = quick_of(PLAIN)
    assert quick is not None
    body = json.dumps({"instances": rows}).encode()
    assert quick.frame(body, MOST) is None
    with pytest.raises(BadInput) as refused:
        read_body(PLAIN, parsed(body), MOST)
    assert refused.value.code == code


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b'{"instances":[[1,2,3]]}',
        b'{"instances":1}',
        json.dumps({"instances": [ONE], "version": 1}).encode(),
        json.dumps({"instances": [ONE] * (MOST + 1)}).encode(),
    ],
)
def test_other_bodies_are_left_to_the_other_way(body: bytes) -> None:
    quick = quick_of(PLAIN)
    assert quick is not None
    assert quick.frame(body, MOST) is None


@pytest.mark.parametrize(
    "signature",
    [
        Signature((Column("a", "FP32"), Column("b", "INT64")), ()),
        Signature((Column("a", "FP32", (-1, 4)),), ()),
        numbers(*(f"x{number}" for number in range(1000))),
        numbers('of "words"'),
    ],
)
def test_models_of_other_things_have_no_quick_way(signature: Signature) -> None:
    assert quick_of(signature) is None
