"""`/v1/moderations`: texts and pictures, billed by the token where anybody bills them at all."""

from typing import Annotated, Any, Final, final

import msgspec
from msgspec import Meta

from gateway import bodies, wire
from gateway.catalog import Deployment
from gateway.prompt_bound import IMAGE_TOKENS
from gateway.units.ask import Ask, Headers
from gateway.units.door import Sent, Told, json_only, renamed
from gateway.usage import from_openai, usage
from gateway.used import Usage

DEFAULT: Final = "omni-moderation-latest"  # what OpenAI takes where no model is named
BYTES_PER_TOKEN: Final = 4


class _Item(msgspec.Struct, gc=False):
    type: str
    text: str = ""
    image_url: msgspec.Raw = bodies.NULL


class ModerationRequest(msgspec.Struct, gc=False):
    input: str | Annotated[list[str | _Item], Meta(min_length=1)]
    model: bodies.ModelName = DEFAULT
    user: str | None = None


_request = msgspec.json.Decoder(ModerationRequest)


@final
class Moderations:
    plays = False

    def read(self, body: bytes, headers: Headers) -> Ask:
        json_only(headers)
        asked = wire.parse(_request, body)
        items: list[Any] = asked.input if isinstance(asked.input, list) else [asked.input]
        pictures = sum(isinstance(item, _Item) and item.type == "image_url" for item in items)
        texts = sum(len((item.text if isinstance(item, _Item) else item).encode()) for item in items)
        return Ask(
            model=asked.model,
            user=asked.user,
            in_parts=True,
            most=usage(texts + pictures * IMAGE_TOKENS, image_input=pictures * IMAGE_TOKENS),
            likely=usage(texts // BYTES_PER_TOKEN + pictures * IMAGE_TOKENS),
        )

    def sent(self, ask: Ask, body: bytes, deployment: Deployment, name: str) -> Sent:  # noqa: ARG002 — the port's names
        return renamed("/moderations", body, name)

    def told(self, ask: Ask, deployment: Deployment, body: bytes, *, json: bool) -> Told:  # noqa: ARG002 — the port's names
        reported = wire.read_answer(body).usage
        return Told(body, None if reported is None else from_openai(reported))

    def event_usage(self, report: msgspec.Raw) -> Usage | None:  # noqa: ARG002 — the port's name: this does not stream
        return None
