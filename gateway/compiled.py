"""The hot path as machine code: what mypyc makes of these modules' own source, where `penstock compile` was run.

Everything runs without it, a plain request at some 1.7 times the processor time. What was compiled is taken only for the very source
that it was made of: after any change to it the interpreter has the word again, until somebody compiles.

Two things follow for the modules named here. A class must not have a base that is no extension class, so protocols of the event loop are
classes of their own, with the methods of asyncio's; and a msgspec struct, which is made by a metaclass with arguments, is defined
elsewhere. No attribute may be called by a C keyword behind an underscore (`_thread`).
"""

import hashlib
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Final

MODULES: Final = (
    "gateway.allowance",
    "gateway.answer_head",
    "gateway.answer_id",
    "gateway.attempts",
    "gateway.authentication",
    "gateway.bills",
    "gateway.cache.stage",
    "gateway.call",
    "gateway.chunked",
    "gateway.completion",
    "gateway.connection",
    "gateway.dispatch",
    "gateway.drive",
    "gateway.grounding.named",
    "gateway.http_exchange",
    "gateway.ids",
    "gateway.journal",
    "gateway.journal_batch",
    "gateway.known_request",
    "gateway.listener",
    "gateway.metering",
    "gateway.metrics",
    "gateway.outlet",
    "gateway.planner",
    "gateway.pool",
    "gateway.pricing",
    "gateway.prompt_bound",
    "gateway.record",
    "gateway.recorder",
    "gateway.relay",
    "gateway.repeated_head",
    "gateway.resilience.overrides",
    "gateway.shares",
    "gateway.spend_sums",
    "gateway.sse",
    "gateway.stages",
    "gateway.tabs",
    "gateway.targets",
    "gateway.unreported",
    "gateway.upstream",
    "gateway.usage",
    "gateway.watching",
    "gateway.wire",
)
GROUP: Final = "penstock"
LIBRARY: Final = f"{GROUP}__mypyc"  # what all of them are in
ROOT: Final = Path(__file__).resolve().parent.parent


def use() -> bool:
    """From here on the modules are imported as what was compiled of them, if it is there and up to date. Before any of them is imported."""
    folder = place()
    if not folder.is_dir():
        return False
    sys.meta_path.insert(0, _Finder(folder))
    return True


def place() -> Path:
    """Where what was compiled of this source, for this interpreter and environment, lies or would."""
    digest = hashlib.blake2b(repr((MODULES, EXTENSION_SUFFIXES[0])).encode(), digest_size=12)
    for path in sources():
        digest.update(path.read_bytes())
    return Path(sys.prefix, "penstock-compiled", digest.hexdigest())


def sources() -> Iterator[Path]:
    """All of the package: constants of others are in what is compiled, too."""
    return iter(sorted((ROOT / "gateway").rglob("*.py")))


class _Finder:
    """Of the compiled modules, and of the library that they share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names = frozenset((*MODULES, LIBRARY))

    def find_spec(
        self, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self._names:
            return None
        file = str(self._folder.joinpath(*name.split("."))) + EXTENSION_SUFFIXES[0]
        return spec_from_file_location(name, file, loader=ExtensionFileLoader(name, file))


if __name__ == "__main__":
    sys.exit(0 if place().is_dir() else 1)
