"""The server that the conformance suite talks to: ours, or any other one that `OIP_URL` names.

OIP_URL=http://127.0.0.1:8080 OIP_MODEL=iris [OIP_GRPC=127.0.0.1:8081] [OIP_KEY=…] pytest tests/oip/test_conformance.py
"""

import os
from typing import NamedTuple

import pytest

from tests.fixtures.predictions import Serving


class Target(NamedTuple):
    """`model` is one that answers for zeros of the types and shapes that its metadata tells."""

    url: str
    model: str
    grpc: str | None
    key: str | None

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.key is None else {"authorization": f"Bearer {self.key}"}

    @property
    def host(self) -> str:
        return self.url.partition("://")[2]


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest) -> Target:
    named = os.environ  # noqa: TID251 — a suite for other servers is told so where it is started
    if "OIP_URL" in named:
        return Target(named["OIP_URL"].rstrip("/"), named["OIP_MODEL"], named.get("OIP_GRPC"), named.get("OIP_KEY"))
    server: Serving = request.getfixturevalue("predicting")
    return Target(server.url, "wine", server.grpc, server.key)
