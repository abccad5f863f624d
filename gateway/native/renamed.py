"""An endpoint whose clients may name a model as its provider does."""

from collections.abc import Callable
from typing import final

import msgspec

from gateway import bodies
from gateway.catalog import Deployment
from gateway.endpoint import Endpoint
from gateway.units.ask import Ask, Headers
from gateway.units.door import Door, Sent, Told
from gateway.used import Usage

Name = Callable[[str], str]


def renamed(endpoint: Endpoint, name: Name) -> Endpoint:
    """`name` is the model's here, for a client's."""
    if endpoint.door is not None:
        return msgspec.structs.replace(endpoint, door=_Renamed(endpoint.door, name))

    def parse(body: bytes) -> bodies.Request:
        request = endpoint.parse(body)
        request.model = name(request.model)
        return request

    return msgspec.structs.replace(endpoint, parse=parse)


@final
class _Renamed:
    """See `gateway.units.door.Door`."""

    def __init__(self, door: Door, name: Name) -> None:
        self._door = door
        self._name = name
        self.plays = door.plays

    def read(self, body: bytes, headers: Headers) -> Ask:
        ask = self._door.read(body, headers)
        return msgspec.structs.replace(ask, model=self._name(ask.model))

    def sent(self, ask: Ask, body: bytes, deployment: Deployment, name: str) -> Sent:
        return self._door.sent(ask, body, deployment, name)

    def told(self, ask: Ask, deployment: Deployment, body: bytes, *, json: bool) -> Told:
        return self._door.told(ask, deployment, body, json=json)

    def event_usage(self, report: msgspec.Raw) -> Usage | None:
        return self._door.event_usage(report)
