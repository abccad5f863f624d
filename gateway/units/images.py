"""`/v1/images/generations`, `/edits`, `/variations`: billed by the image, or by tokens of text and image.

A picture's tokens grow with its area and its quality; what no provider states as a maximum is a declared bound here. Vector drawings
are refused: another model than the one that was asked writes them, and is billed apart.
"""

import re
from math import ceil
from typing import Annotated, Final, final

import msgspec
from msgspec import Meta

from gateway import bodies, errors, wire
from gateway.catalog import Deployment
from gateway.units.ask import Ask, Headers
from gateway.units.door import Sent, Told, json_only, posted, renamed
from gateway.units.forms import read_form
from gateway.usage import from_images, usage
from gateway.usage_reports import ResponsesUsage
from gateway.used import Usage

MAX_IMAGES: Final = 10
MAX_PARTIAL: Final = 3
PARTIAL_TOKENS: Final = 100  # each partial image, OpenAI's guide
TOKENS_PER_MEGAPIXEL: Final = 4200  # gpt-image-1 at high quality: 4,160 for 1024 × 1024, 6,240 for 1024 × 1536
DEFAULT_MEGAPIXELS: Final = 1.58  # of a size that is left to the model
MOST_MEGAPIXELS: Final = 64.0
FACTORS: Final = {"low": 0.1, "medium": 0.4, "standard": 1.0, "high": 1.0, "hd": 1.0, "xhigh": 2.0, "max": 4.0}
INPUT_TOKENS: Final = 7_000  # a picture to be edited, at high fidelity
GIF_FRAMES: Final = 9  # where no number is named
MAX_FRAMES: Final = 16
BYTES_PER_TOKEN: Final = 4

_SIZE = re.compile(r"^(\d{1,5})x(\d{1,5})$")


class ImageRequest(msgspec.Struct, gc=False):
    model: bodies.ModelName
    prompt: Annotated[str, Meta(min_length=1)]
    n: Annotated[int, Meta(ge=1, le=MAX_IMAGES)] | None = None
    size: str | None = None
    quality: str | None = None
    stream: bool | None = None
    partial_images: Annotated[int, Meta(ge=0, le=MAX_PARTIAL)] | None = None
    output_format: str | None = None
    frame_count: Annotated[int, Meta(ge=2, le=MAX_FRAMES)] | None = None
    user: str | None = None


class _Answer(msgspec.Struct, gc=False):
    data: list[msgspec.Raw] | None = None
    usage: ResponsesUsage | None = None


_request = msgspec.json.Decoder(ImageRequest)
_answer = msgspec.json.Decoder(_Answer)
_usage = msgspec.json.Decoder(ResponsesUsage)


@final
class Images:
    """Text to pictures."""

    plays = False

    def read(self, body: bytes, headers: Headers) -> Ask:
        json_only(headers)
        return _ask(wire.parse(_request, body), 0)

    def sent(self, ask: Ask, body: bytes, deployment: Deployment, name: str) -> Sent:  # noqa: ARG002 — the port's names
        return renamed("/images/generations", body, name)

    def told(self, ask: Ask, deployment: Deployment, body: bytes, *, json: bool) -> Told:  # noqa: ARG002 — the port's names
        return _told(ask, body)

    def event_usage(self, report: msgspec.Raw) -> Usage | None:
        return _event_usage(report)


@final
class ImageForm:
    """Pictures to pictures. `prompted`: a text says what is to be done."""

    plays = False

    def __init__(self, path: str, *, prompted: bool) -> None:
        self._path = path
        self._prompted = prompted

    def read(self, body: bytes, headers: Headers) -> Ask:
        form = read_form(body, headers.get(b"content-type"))
        asked = ImageRequest(
            model=form.required("model"),
            prompt=form.required("prompt") if self._prompted else "",
            n=form.number("n", 1, MAX_IMAGES),
            size=form.text("size"),
            quality=form.text("quality"),
            stream=form.truth("stream"),
            partial_images=form.number("partial_images", 0, MAX_PARTIAL),
            output_format=form.text("output_format"),
            frame_count=form.number("frame_count", 2, MAX_FRAMES),
            user=form.text("user"),
        )
        if asked.stream and not self._prompted:
            raise errors.BadRequest("This endpoint does not stream", param="stream", code="unsupported_parameter")
        if not form.files("image", "image[]"):
            raise errors.BadRequest(
                "Missing required parameter: 'image'", param="image", code="missing_required_parameter"
            )
        ask = _ask(asked, len([part for part in form.parts if part.file]))
        return msgspec.structs.replace(ask, pieces=form.around("model"), content_type=form.content_type)

    def sent(self, ask: Ask, body: bytes, deployment: Deployment, name: str) -> Sent:  # noqa: ARG002 — the port's names
        return posted(self._path, ask, name)

    def told(self, ask: Ask, deployment: Deployment, body: bytes, *, json: bool) -> Told:  # noqa: ARG002 — the port's names
        return _told(ask, body)

    def event_usage(self, report: msgspec.Raw) -> Usage | None:
        return _event_usage(report)


def _ask(asked: ImageRequest, pictures: int) -> Ask:
    if asked.output_format == "svg":
        raise errors.BadRequest(
            "svg is written by another model, whose tokens cannot be priced here",
            param="output_format",
            code="unsupported_value",
        )
    count = asked.n or 1
    frames = (asked.frame_count or GIF_FRAMES) if asked.output_format == "gif" else 1
    each = ceil(_megapixels(asked.size) * TOKENS_PER_MEGAPIXEL * FACTORS.get(asked.quality or "high", 1.0)) * frames
    made = count * (each + PARTIAL_TOKENS * (asked.partial_images or 0))
    text, shown = len(asked.prompt.encode()), pictures * INPUT_TOKENS
    return Ask(
        model=asked.model,
        stream=asked.stream,
        user=asked.user,
        most=usage(text + shown, made, image_input=shown, image_output=made, images=count),
        exact=usage(images=count),
        likely=usage(text // BYTES_PER_TOKEN + shown, made, image_input=shown, image_output=made),
    )


def _megapixels(size: str | None) -> float:
    match = _SIZE.match(size or "")
    if match is None:
        return DEFAULT_MEGAPIXELS
    return min(MOST_MEGAPIXELS, int(match[1]) * int(match[2]) / 1_000_000)


def _told(ask: Ask, body: bytes) -> Told:
    _refuse_error(body)
    try:
        answer = _answer.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise errors.UpstreamError(f"The upstream's answer is no list of images: {error}") from None
    if not answer.data:
        raise errors.UpstreamError("The upstream's answer has no image")
    count = len(answer.data)
    used = None if answer.usage is None else _whole(answer.usage, count)
    return Told(body, used, msgspec.structs.replace(ask, exact=usage(images=count)))


def _refuse_error(body: bytes) -> None:
    """An error inside a 200. What is long is an image, and read once."""
    if b'"error"' in body[:4096]:
        wire.read_answer(body)


def _event_usage(report: msgspec.Raw) -> Usage | None:
    try:
        return _whole(_usage.decode(report), 1)
    except msgspec.DecodeError as error:
        raise errors.UpstreamError(f"The upstream's usage is damaged: {error}") from None


def _whole(report: ResponsesUsage, images: int) -> Usage:
    """Without details, all that came out is image: gpt-image-1 has no other rate for it."""
    made = from_images(images, report)
    if report.output_tokens_details is not None or not made.output:
        return made
    return msgspec.structs.replace(made, image_output=made.output)
