"""How long a recording is, read from its container; damage never raises, and never makes a recording shorter than its bytes allow."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.units.duration import exact_seconds, most_seconds
from tests.upstream.units_dialect import recording


def flac(seconds: float) -> bytes:
    samples = int(seconds * 44_100)
    packed = (44_100 << 44 | 1 << 41 | 15 << 36 | samples).to_bytes(8, "big")
    return b"fLaC\0\0\0\x22" + bytes(10) + packed + bytes(16)


def ogg(seconds: float) -> bytes:
    head = b"OggS\0\2" + bytes(8) + bytes(12) + b"\1\x13" + b"OpusHead\1\1" + struct.pack("<H", 312) + bytes(7)
    return head + b"OggS\0\4" + struct.pack("<q", int(seconds * 48_000) + 312) + bytes(12)


def mp4(seconds: float) -> bytes:
    inner = struct.pack(">I4sIIIII", 108, b"mvhd", 0, 0, 0, 600, int(seconds * 600)) + bytes(80)
    return struct.pack(">I4s", 16, b"ftyp") + b"M4A \0\0\0\0" + struct.pack(">I4s", len(inner) + 8, b"moov") + inner


def mp3(seconds: float) -> bytes:
    """64 kbit/s at 44,100 Hz, without a Xing header."""
    return b"\xff\xfb\x50\xc0" + bytes(int(seconds * 8000) - 4)


CONTAINERS = {"wav": recording, "flac": flac, "ogg": ogg, "mp4": mp4, "mp3": mp3}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_container_says_how_long_it_is(kind: str) -> None:
    data = memoryview(CONTAINERS[kind](2.5))
    assert exact_seconds(data) == pytest.approx(2.5, abs=0.001)
    assert most_seconds(data) >= 2.5


def test_a_xing_header_counts_frames() -> None:
    data = b"\xff\xfb\x50\xc0" + bytes(32) + b"Xing" + struct.pack(">II", 1, 100) + bytes(500)
    assert exact_seconds(memoryview(data)) == pytest.approx(100 * 1152 / 44_100)


@pytest.mark.parametrize(
    ("data", "most"), [(b"\x1aE\xdf\xa3" * 250, 2.0), (b"\xff\xfb\x50\xc0" * 250, 1.0), (b"", 0.0)]
)
def test_what_says_nothing_is_bounded_by_its_size(data: bytes, most: float) -> None:
    """4 kbit/s, and 8 for MP3."""
    assert most_seconds(memoryview(data)) == most


@given(st.sampled_from(sorted(CONTAINERS)), st.integers(0, 60), st.binary(max_size=8), st.integers(0, 200))
def test_damage_never_raises(kind: str, at: int, garbage: bytes, kept: int) -> None:
    data = CONTAINERS[kind](0.1)
    broken = memoryview((data[:at] + garbage + data[at + len(garbage) :])[: kept * 8])
    exact = exact_seconds(broken)
    assert exact is None or exact >= 0
    assert most_seconds(broken) >= (exact or 0)
