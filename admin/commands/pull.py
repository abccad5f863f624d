"""`penstock models pull`: a small open model from a hub, and how it is declared."""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

import msgspec

from admin.commands.configuration import loaded
from admin.commands.documents import Failed
from admin.hub import Hub, HubFile, Snapshot, settings_of

SPARE_BYTES: Final = 256 * 1024 * 1024
USUAL_GGUF: Final = "*q4_k_m*.gguf"
_WEIGHTS: Final = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.msgpack", "*.h5", "*.onnx", "*.gguf", "*.ot")


class Known(msgspec.Struct, frozen=True):
    """A model with a short name: where it is, and which of its files are wanted."""

    repository: str
    files: Sequence[str] = ()


KNOWN: Final[Mapping[str, Known]] = {
    "qwen2.5-0.5b-gguf": Known("Qwen/Qwen2.5-0.5B-Instruct-GGUF", ("*q4_k_m.gguf",)),
    "qwen2.5-1.5b-gguf": Known("Qwen/Qwen2.5-1.5B-Instruct-GGUF", ("*q4_k_m.gguf",)),
    "qwen2.5-0.5b": Known("Qwen/Qwen2.5-0.5B-Instruct"),
    "smollm2-135m": Known("HuggingFaceTB/SmolLM2-135M-Instruct"),
    "smollm2-360m": Known("HuggingFaceTB/SmolLM2-360M-Instruct"),
    "all-minilm-l6-v2": Known("sentence-transformers/all-MiniLM-L6-v2"),
}


def run(arguments: argparse.Namespace) -> int:
    """Raises Failed, ConfigError, OSError."""
    configuration = loaded(arguments)
    known = KNOWN.get(arguments.name, Known(arguments.name))
    if known.repository.count("/") != 1:
        raise Failed(f"'{arguments.name}' is neither OWNER/NAME nor one of {', '.join(KNOWN)}")
    folder = Path(arguments.output or configuration.settings.data_dir / "hub" / known.repository.replace("/", "--"))
    with Hub(**settings_of(configuration.environ, arguments.endpoint)) as hub:
        snapshot = hub.snapshot(known.repository, arguments.revision)
        wanted = chosen(snapshot, arguments.file or known.files)
        _require_room(folder, wanted)
        fetched = [each.path for each in wanted if hub.fetch(snapshot, each, folder, _Progress())]
    if arguments.json:
        report = {"repository": snapshot.repository, "commit": snapshot.commit, "folder": str(folder.resolve())}
        print(json.dumps({**report, "files": [each.path for each in wanted], "fetched": fetched}))
    else:
        print(_told(snapshot, folder, wanted, fetched))
    return 0


def chosen(snapshot: Snapshot, patterns: Sequence[str]) -> list[HubFile]:
    """The files that are meant: of several forms of the same weights one. Raises Failed."""
    files = [each for each in snapshot.files if not each.path.rpartition("/")[2].startswith(".")]
    if not patterns:
        patterns = _usual(files)
    found = [each for each in files if any(fnmatch(each.path.lower(), pattern.lower()) for pattern in patterns)]
    if not found:
        there = ", ".join(each.path for each in files[:20])
        raise Failed(f"{snapshot.repository} has no file like {' or '.join(patterns)}: there are {there}")
    return found


def _usual(files: Sequence[HubFile]) -> Sequence[str]:
    names = [each.path for each in files]
    gguf = [name for name in names if name.lower().endswith(".gguf")]
    if gguf and not any(fnmatch(name, "*.safetensors") for name in names):
        return (USUAL_GGUF,) if len(gguf) > 1 else (gguf[0],)
    weights = next((form for form in _WEIGHTS if any(fnmatch(name, form) and "/" not in name for name in names)), None)
    others = [name for name in names if "/" not in name and not any(fnmatch(name, form) for form in _WEIGHTS)]
    pooling = [name for name in names if name.startswith("1_Pooling/")]  # of sentence-transformers
    return (*others, *pooling, *(name for name in names if weights and "/" not in name and fnmatch(name, weights)))


def _require_room(folder: Path, wanted: Sequence[HubFile]) -> None:
    """Raises Failed, OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    needed = max(0, sum(each.size for each in wanted) - there) + SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise Failed(f"{folder} has {free / 1e9:.1f} GB free, and {needed / 1e9:.1f} GB are needed")


class _Progress:
    """A line on a terminal, where somebody looks at it."""

    def __init__(self) -> None:
        self._shown = -1

    def __call__(self, path: str, done: int, size: int) -> None:
        share = 100 * done // max(1, size)
        if sys.stderr.isatty() and share != self._shown:
            self._shown = share
            print(f"\r{path}  {share} % of {size / 1e6:.0f} MB", end="\n" if done >= size else "", file=sys.stderr)


def _told(snapshot: Snapshot, folder: Path, wanted: Sequence[HubFile], fetched: Sequence[str]) -> str:
    what = f"{len(fetched)} of {len(wanted)} files fetched" if fetched else "all of it was there already"
    lines = [f"{snapshot.repository} at {snapshot.commit[:12]} is in {folder}: {what}, checksums are right"]
    gguf = next((each.path for each in wanted if each.path.lower().endswith(".gguf")), None)
    kind, model = ("vllm", folder) if gguf is None else ("llama_cpp", folder / gguf)
    name = snapshot.repository.rpartition("/")[2].lower()
    return "\n".join(
        [*lines, "", "engines:", f"  - name: {name}", f"    kind: {kind}", f"    model: {model.resolve()}"]
    )
