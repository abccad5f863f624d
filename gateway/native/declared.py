"""Paths of providers that say nothing of what they cost, and that an admin has put a price on: each request costs just that."""

import re
from collections.abc import Sequence
from typing import Final, final

from gateway import errors, wire
from gateway.bodies import UpstreamFault
from gateway.catalog import Deployment
from gateway.dialects.gemini_faults import fault
from gateway.native.families import Family
from gateway.native.terms import Declared
from gateway.targets import authorization
from gateway.units.ask import Ask, Headers
from gateway.units.door import Follower, NativeDoor, Piece, Sent, Told
from gateway.used import NOTHING, Usage

_VERSIONED: Final = re.compile(r"/v\d")


@final
class Fixed(NativeDoor):
    """One call of such a path. `rest` is what stands behind the family's name, with its query; whatever comes back goes on as it comes."""

    plays = True

    def __init__(self, family: Family, declared: Declared, method: str, rest: str) -> None:
        self._family = family
        self._declared = declared
        self._method = method
        self._rest = rest
        self._headers: Headers = {}

    def read(self, body: bytes, headers: Headers) -> Ask:  # noqa: ARG002 — the port's name: nothing of it matters
        self._headers = headers
        return Ask(model=self._declared.model, most=NOTHING, flat_nanousd=self._declared.nanousd)

    def sent(self, ask: Ask, body: bytes, deployment: Deployment, name: str) -> Sent:  # noqa: ARG002 — the port's names
        kind = self._headers.get(b"content-type")
        lines = () if kind is None else (("content-type", kind.decode("latin-1")),)
        secret = deployment.api_key or ""
        own = self._family.authorization
        credentials = authorization(deployment, None) if own is None else own(secret)
        carried = tuple(
            (name, value.decode("latin-1"))
            for name in self._family.carried
            if (value := self._headers.get(name.encode())) is not None
        )
        pieces: Sequence[Piece] = (body,) if body else ()
        return Sent(
            self._rest,
            pieces,
            address=self._family.root(deployment) if _VERSIONED.match(self._rest) else deployment.base_url,
            method=self._method,
            headers=(*lines, *carried, *credentials, *deployment.headers),
        )

    def told(self, ask: Ask, deployment: Deployment, body: bytes, *, json: bool) -> Told:  # noqa: ARG002 — it goes on unread
        return Told(body, NOTHING)

    def follower(self, content_type: bytes) -> Follower | None:
        return Whatever(content_type) if content_type.startswith((b"text/event-stream", b"application/vnd.")) else None

    def read_fault(self, status: int, body: bytes) -> UpstreamFault:  # noqa: ARG002 — the body says it all
        return fault(body) if self._family.name == "gemini" else wire.read_fault(body)


@final
class Whatever:
    """A stream of which only its end is known. See `gateway.units.door.Follower`."""

    def __init__(self, content_type: bytes) -> None:
        self.content_type = content_type
        self.content = False
        self.whole = False
        self.received = 0
        self.usage: Usage | None = None
        self.error: errors.GatewayError | None = None

    def feed(self, data: bytes) -> bytes:
        self.content = True
        return data

    def close(self) -> bytes:
        self.whole = True
        return b""
