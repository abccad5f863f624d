"""What an admin declares of paths that say nothing of their cost."""

from collections.abc import Sequence
from typing import Final

import msgspec


class Declared(msgspec.Struct, frozen=True):
    """`path` is the whole one, `…/*` for everything below it. `model`: whose deployments carry it, and who may use it."""

    path: str
    methods: frozenset[str]
    model: str
    nanousd: int

    def covers(self, path: str) -> bool:
        return path.startswith(self.path[:-1]) if self.path.endswith("/*") else path == self.path


NONE: Final[Sequence[Declared]] = ()
MOUNTS: Final = (b"/openai/", b"/anthropic/", b"/gemini/", b"/bedrock/")
