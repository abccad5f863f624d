"""Guards over REST on the server that all tests of routes share, and models that have them."""

import itertools
from typing import Any

import pytest

from tests.fixtures.deployments import Route, Routes
from tests.fixtures.server import Json
from tests.upstream.behaviour import Behaviour

_NUMBERS = itertools.count(1)


class Guarded:
    """Makes models with guards of their own, which nobody else has."""

    def __init__(self, routes: Routes) -> None:
        self.routes = routes
        self.server = routes.server

    def guard(self, kind: str, **fields: Any) -> str:
        """The name of a new guard."""
        body: Json = {"name": f"g{next(_NUMBERS)}", "kind": kind, **fields}
        answer = self.server.admin.post("/guards", json=body)
        assert answer.status_code == 201, answer.text
        name: str = body["name"]
        return name

    def model(self, *behaviours: Behaviour, guards: tuple[str, ...] | list[str], **spec: Any) -> Route:
        return self.routes(behaviours or Behaviour(), guards=list(guards), **spec)


@pytest.fixture(scope="module")
def guarded(routes: Routes) -> Guarded:
    return Guarded(routes)
