"""A request in a provider's own spelling of OpenAI's API: fields that have another name there, and hints that it would refuse."""

from collections.abc import Mapping
from typing import final

from gateway import wire
from gateway.providers import PROVIDERS, Provider


@final
class Spelling:
    """Of one provider. What a client asks for under both names is what it asks for under the provider's own."""

    def __init__(self, provider: Provider) -> None:
        self._renames = provider.renames
        self._omits = provider.omits

    def body(self, body: bytes) -> bytes:
        """The same bytes where nothing of it is in there. Raises BadRequest."""
        names = [name for name, _ in self._renames]
        if not any(f'"{name}"'.encode() in body for name in (*names, *self._omits)):
            return body
        return wire.respelt(body, self._renames, self._omits)


def spelling_of(name: str, providers: Mapping[str, Provider] = PROVIDERS) -> Spelling | None:
    """None for nearly every provider."""
    provider = providers.get(name)
    return Spelling(provider) if provider is not None and (provider.renames or provider.omits) else None
