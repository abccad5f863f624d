"""Whose own API stands below which path, and which deployments speak it."""

import re
from collections.abc import Callable
from typing import Final

import msgspec

from gateway.catalog import Deployment
from gateway.front import Face
from gateway.native.faces import Amazon, Google
from gateway.providers import EMBEDDED, PROVIDERS

Authorization = Callable[[str], tuple[tuple[str, str], ...]]

_OTHERS: Final = frozenset(("anthropic", "gemini", EMBEDDED))
_VERSION: Final = re.compile(r"/v\d+(?:alpha|beta)?\d*$")


class Family(msgspec.Struct, frozen=True):
    """`carried`: headers of a client's that its provider has to see. `authorization`: of a secret; None: as the provider wants it."""

    name: str
    providers: frozenset[str]
    face: Face | None = None
    carried: tuple[str, ...] = ()
    authorization: Authorization | None = None

    @property
    def mount(self) -> str:
        return f"/{self.name}"

    def root(self, deployment: Deployment) -> str:
        """A deployment's address without the version, which clients name."""
        return _VERSION.sub("", deployment.base_url)


OPENAI: Final = Family(
    "openai",
    frozenset(one.name for one in PROVIDERS.values() if one.litellm is None and one.name not in _OTHERS),
    carried=("openai-beta",),
)
ANTHROPIC: Final = Family(
    "anthropic",
    frozenset(("anthropic",)),
    carried=("anthropic-version", "anthropic-beta"),
    authorization=lambda secret: (("x-api-key", secret),) if secret else (),
)
GEMINI: Final = Family(
    "gemini",
    frozenset(("gemini",)),
    Google(),
    authorization=lambda secret: (("x-goog-api-key", secret),) if secret else (),
)
BEDROCK: Final = Family("bedrock", frozenset(("bedrock",)), Amazon())
FAMILIES: Final = (OPENAI, ANTHROPIC, GEMINI, BEDROCK)
