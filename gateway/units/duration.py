"""How long a recording is, from its container alone: exactly where the container says so, and at most from its size.

Nothing is decoded. A file that lies about itself is billed by what the provider reports; what its container says is the hold.
"""

import struct
from typing import Final

LEAST_BYTES_PER_S: Final = 500  # 4 kbit/s: below what codecs for speech use (AMR 4.75, Opus 6)
LEAST_MP3_BYTES_PER_S: Final = 1000  # 8 kbit/s is the least bit rate of its frames
MAX_SECONDS: Final = 1_000_000.0

_MP3_RATES = {  # kbit/s by index, layer III: MPEG 1, then 2 and 2.5
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
}
_MP3_HERTZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


def exact_seconds(data: memoryview) -> float | None:
    """None where the container does not say, or is not known here (WebM, AAC)."""
    head = bytes(data[:64])
    try:
        found = _by_container(data, head)
    except (struct.error, IndexError, ZeroDivisionError):
        return None
    return found if found is not None and 0 <= found <= MAX_SECONDS else None


def most_seconds(data: memoryview) -> float:
    """What no honest recording of this size is longer than."""
    exact = exact_seconds(data)
    if exact is not None and bytes(data[:4]) == b"RIFF":
        return exact
    slowest = LEAST_MP3_BYTES_PER_S if _is_mp3(bytes(data[:4])) else LEAST_BYTES_PER_S
    return max(exact or 0.0, len(data) / slowest)


def _by_container(data: memoryview, head: bytes) -> float | None:
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return _wav(data)
    if head[:4] == b"fLaC":
        hertz = int.from_bytes(head[18:21], "big") >> 4
        samples = int.from_bytes(head[21:26], "big") & 0xF_FFFF_FFFF
        return samples / hertz if samples else None
    if head[:4] == b"OggS":
        return _ogg(data, head)
    if head[4:8] == b"ftyp":
        return _mp4(data)
    if _is_mp3(head):
        return _mp3(data)
    return None


def _wav(data: memoryview) -> float | None:
    """Uncompressed samples only; a chunk's length that reaches beyond the file is cut, as streamed files have."""
    at, per_second = 12, 0
    while at + 8 <= len(data):
        name, size = bytes(data[at : at + 4]), struct.unpack_from("<I", data, at + 4)[0]
        at += 8
        if name == b"fmt ":
            tag, channels, hertz, _, _, bits = struct.unpack_from("<HHIIHH", data, at)
            per_second = channels * hertz * bits // 8 if tag in {1, 3, 0xFFFE} else 0
        elif name == b"data":
            return float(min(size, len(data) - at) / per_second) if per_second else None
        at += size + size % 2
    return None


def _ogg(data: memoryview, head: bytes) -> float | None:
    """The last page's position (RFC 7845 4: Opus always counts 48,000 a second)."""
    whole = bytes(data[-65_536:])
    last = whole.rfind(b"OggS")
    position = struct.unpack_from("<q", whole, last + 6)[0]
    if head[28:36] == b"OpusHead":
        return float(max(0, position - struct.unpack_from("<H", head, 38)[0]) / 48_000)
    if head[29:35] == b"vorbis":
        return float(position / struct.unpack_from("<I", head, 40)[0])
    return None


def _mp4(data: memoryview) -> float | None:
    """The movie header's duration (ISO/IEC 14496-12 8.2.2), wherever the file keeps it."""
    at = 0
    while at + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        if name == b"moov":
            inner = bytes(data[at : at + min(size, 65_536)])
            found = inner.find(b"mvhd")
            if found < 0:
                return None
            if inner[found + 4]:
                scale, length = struct.unpack_from(">IQ", inner, found + 24)
            else:
                scale, length = struct.unpack_from(">II", inner, found + 16)
            return float(length / scale)
        if size == 1:
            size = struct.unpack_from(">Q", data, at + 8)[0]
        if size < 8:
            return None
        at += size
    return None


def _is_mp3(head: bytes) -> bool:
    return head[:3] == b"ID3" or (head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xE6 == 0xE2)


def _mp3(data: memoryview) -> float | None:
    """The number of frames that a Xing or Info header counts; without one, all frames are taken for as long as the first."""
    at = 0
    if bytes(data[:3]) == b"ID3":
        at = 10 + sum(data[6 + place] << (7 * (3 - place)) for place in range(4))
    first = bytes(data[at : at + 256])
    if not _is_mp3(first) or first[:3] == b"ID3":
        return None
    version = first[1] >> 3 & 3
    hertz = _MP3_HERTZ[version][first[2] >> 2 & 3]
    samples = 1152 if version == 3 else 576
    for tag in (b"Xing", b"Info"):
        found = first.find(tag)
        if found > 0 and first[found + 7] & 1:
            return float(struct.unpack_from(">I", first, found + 8)[0] * samples / hertz)
    rate = _MP3_RATES[3 if version == 3 else 2][first[2] >> 4]
    return (len(data) - at) * 8 / (rate * 1000) if rate else None
