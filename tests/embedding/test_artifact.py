"""What is built once is complete, checked before use, and built again when something happened to it."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from embedding import artifact, bundled
from embedding.engine import Engine
from embedding.errors import Unavailable


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def clear(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "file"),
    [
        (flip, "model.weights"),
        (cut, "model.weights"),
        (Path.unlink, "model.weights"),
        (flip, "model.onnx"),
        (clear, "model.onnx"),
        (flip, "manifest.json"),
        (clear, "manifest.json"),
    ],
)
async def test_a_damaged_file_is_rebuilt(
    embedding_cache: Path, tmp_path: Path, damage: Callable[[Path], None], file: str
) -> None:
    """One wrong bit in 90 MB would make every answer silently worse."""
    intact = bundled.graph(embedding_cache, bundled._source())
    copy = tmp_path / intact.name
    copy.mkdir()
    for path in intact.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert artifact.intact(copy)
    damage(copy / file)
    if file != "manifest.json":
        assert not artifact.intact(copy)
    engine = Engine(bundled.MINILM, bundled.opener(tmp_path, threads=1))
    vectors = (await engine.embed(["The quick brown fox jumps over the lazy dog."])).vectors
    await engine.close()
    assert round(float(vectors[0, 0]), 3) == 0.044
    assert artifact.intact(copy)


def test_what_is_intact_is_not_built_again(tmp_path: Path) -> None:
    """The second start reads, and does not build."""
    builds: list[Path] = []

    def build(folder: Path) -> None:
        builds.append(folder)
        (folder / "data").write_bytes(b"x" * 1000)

    first = artifact.ensure(tmp_path, "thing", build)
    assert artifact.ensure(tmp_path, "thing", build) == first
    assert len(builds) == 1


def test_many_at_once_build_once(tmp_path: Path) -> None:
    """Workers that start together take turns; the later ones find it done."""
    builds: list[Path] = []

    def build(folder: Path) -> None:
        builds.append(folder)
        (folder / "data").write_bytes(b"x" * 1000)

    threads = [threading.Thread(target=artifact.ensure, args=(tmp_path, "thing", build)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(builds) == 1


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """Half a build must never be found by the next start."""

    def build(folder: Path) -> None:
        (folder / "data").write_bytes(b"half")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        artifact.ensure(tmp_path, "thing", build)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_build_that_was_killed_is_swept_away(tmp_path: Path) -> None:
    """`kill -9` in the middle leaves a folder that the next build removes, and no lock."""
    script = (
        "import os, signal, sys; from pathlib import Path; from embedding import artifact\n"
        "def build(folder):\n"
        "    (folder / 'data').write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "artifact.ensure(Path(sys.argv[1]), 'thing', build)\n"
    )
    root = Path(__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=root, check=False)
    assert killed.returncode == -9
    assert any(path.name.startswith(".unfinished") for path in tmp_path.iterdir())

    def build(folder: Path) -> None:
        (folder / "data").write_bytes(b"whole")

    built = artifact.ensure(tmp_path, "thing", build)
    assert (built / "data").read_bytes() == b"whole"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "thing"]


async def test_a_cache_that_cannot_be_written_is_a_503_that_names_it(tmp_path: Path) -> None:
    """The way out is in the message."""
    (tmp_path / "file").write_text("not a folder")
    engine = Engine(bundled.MINILM, bundled.opener(tmp_path / "file" / "cache"))
    with pytest.raises(Unavailable, match="cannot be kept in"):
        await engine.embed(["text"])
    await engine.close()


def test_weights_that_are_not_the_published_ones_are_refused(tmp_path: Path) -> None:
    """A model file is code in disguise for whoever trusts its answers."""
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(Unavailable, match="not the file that was published"):
        bundled.graph(tmp_path / "cache", tmp_path)


def test_a_builder_that_fails_is_quoted(tmp_path: Path) -> None:
    """The child's last word reaches the operator."""
    with pytest.raises(Unavailable, match=r"status 1: FileNotFoundError.*config\.json"):
        bundled._run_builder(tmp_path, tmp_path)


async def test_the_quantised_model_is_near_and_small(embedding_cache: Path, embedding_engine: Engine) -> None:
    """It is another artefact of the same weights, a quarter of their size, and its vectors are about the same."""
    engine = Engine(bundled.MINILM_INT8, bundled.opener(embedding_cache, threads=1, spec=bundled.MINILM_INT8))
    texts = ["A penstock feeds the turbine.", "Sourdough rises with wild yeast.", "The gate opens slowly."]
    try:
        small = (await engine.embed(texts)).vectors
    finally:
        await engine.close()
    full = (await embedding_engine.embed(texts)).vectors
    assert 0.95 < (small * full).sum(axis=1).min() < 0.9999
    sizes = [
        sum(file.stat().st_size for file in bundled.graph(embedding_cache, bundled._source(), spec).iterdir())
        for spec in (bundled.MINILM, bundled.MINILM_INT8)
    ]
    assert sizes[1] < sizes[0] / 3
