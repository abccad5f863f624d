"""What the tests of every dialect ask the real process for, and how they look at what its provider was asked."""

import json
from typing import Any

from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from pydantic import BaseModel

from tests.fixtures.deployments import Place

HELLO: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "hello there"},
]
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


class City(BaseModel):
    name: str
    people: int


def asked(place: Place) -> Any:
    """The body of the last request that came."""
    return json.loads(place.handle.entries()[-1].body)
