"""The safetensors reader believes nothing that the file says about itself."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedding.weights import DamagedWeights, Weights


def file_of(header: object, body: bytes = b"", *, claim: int | None = None) -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(encoded) if claim is None else claim).to_bytes(8, "little") + encoded + body


def tensor(shape: object, start: object, end: object, dtype: object = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_tensors_are_read_by_name(tmp_path: Path) -> None:
    """Shape, type and values, also of a scalar and of nothing."""
    array = np.arange(6, dtype="<f4").reshape(2, 3)
    header = {
        "__metadata__": {"format": "pt"},
        "a": tensor([2, 3], 0, 24),
        "s": tensor([], 24, 32, "I64"),
        "n": tensor([0, 4], 32, 32),
    }
    path = tmp_path / "w"
    path.write_bytes(file_of(header, array.tobytes() + np.int64(7).tobytes()))
    weights = Weights(path)
    assert list(weights) == ["a", "s", "n"]
    assert (weights["a"] == array).all()
    assert weights["s"] == 7
    assert weights["n"].shape == (0, 4)
    with pytest.raises(KeyError):
        weights["b"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234567",
        file_of({}, claim=2**63),
        file_of({}, claim=3),
        file_of(b"not json"),
        file_of([1, 2]),
        file_of({"a": 1}),
        file_of({"a": tensor([2], 0, 16)}, b"x" * 16),
        file_of({"a": tensor([4], 0, 16)}, b"x" * 15),
        file_of({"a": tensor([4], 16, 0)}, b"x" * 16),
        file_of({"a": tensor([-4], 0, 16)}, b"x" * 16),
        file_of({"a": tensor([4], -16, 0)}, b"x" * 16),
        file_of({"a": tensor([2**62, 2**62], 0, 0)}),
        file_of({"a": tensor([4], 0, 16, "F8_E4M3")}, b"x" * 16),
        file_of({"a": tensor([4.5], 0, 18)}, b"x" * 18),
        file_of({"a": {"dtype": "F32", "shape": [4]}}, b"x" * 16),
    ],
)
def test_a_lie_in_the_file_is_found(tmp_path: Path, content: bytes) -> None:
    """Never a read beyond the end, never an array of another size."""
    path = tmp_path / "w"
    path.write_bytes(content)
    with pytest.raises(DamagedWeights):
        Weights(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.binary(max_size=200), st.integers(0, 300))
def test_noise_is_refused_or_harmless(tmp_path: Path, noise: bytes, claim: int) -> None:
    """Any bytes give either tensors within the file or DamagedWeights."""
    path = tmp_path / "w"
    path.write_bytes(claim.to_bytes(8, "little") + noise)
    try:
        weights = Weights(path)
    except DamagedWeights:
        return
    for name in weights:
        assert weights[name].nbytes <= len(noise)
