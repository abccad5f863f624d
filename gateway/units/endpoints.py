"""The endpoints themselves, by the path that a client calls."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from gateway.endpoint import Endpoint
from gateway.units.images import ImageForm, Images
from gateway.units.moderations import Moderations
from gateway.units.rerank import Rerank
from gateway.units.speech import Speech
from gateway.units.transcription import Transcription

_EVERY: Final = (
    ("/v1", Endpoint("rerank", "/rerank", kind="rerank", door=Rerank(1))),
    ("/v2", Endpoint("rerank", "/rerank", kind="rerank", door=Rerank(2))),
    ("/v1", Endpoint("moderations", "/moderations", kind="moderation", door=Moderations())),
    ("/v1", Endpoint("speech", "/audio/speech", kind="speech", door=Speech())),
    (
        "/v1",
        Endpoint(
            "transcriptions",
            "/audio/transcriptions",
            kind="transcription",
            door=Transcription("/audio/transcriptions", streams=True),
        ),
    ),
    (
        "/v1",
        Endpoint(
            "translations",
            "/audio/translations",
            kind="translation",
            door=Transcription("/audio/translations", streams=False),
        ),
    ),
    ("/v1", Endpoint("image_generations", "/images/generations", kind="image", door=Images())),
    (
        "/v1",
        Endpoint("image_edits", "/images/edits", kind="image_edit", door=ImageForm("/images/edits", prompted=True)),
    ),
    (
        "/v1",
        Endpoint(
            "image_variations",
            "/images/variations",
            kind="image_variation",
            door=ImageForm("/images/variations", prompted=False),
        ),
    ),
)

ENDPOINTS: Final[Mapping[bytes, Endpoint]] = MappingProxyType(
    {f"{prefix}{endpoint.path}".encode(): endpoint for prefix, endpoint in _EVERY}
)
FILES: Final = frozenset(
    (
        b"/v1/audio/speech",
        b"/v1/audio/transcriptions",
        b"/v1/audio/translations",
        b"/v1/images/edits",
        b"/v1/images/variations",
    )
)
"""Where a file goes in or out, which no line of JSON can hold."""
