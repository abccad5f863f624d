"""Hostile files, each in a real parsing process: a clear error of the right kind, and the next file is read as ever."""

import asyncio
import errno
import io
import random
import resource
import signal
import zipfile
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from retrieval.chunking.semantic import Progress
from retrieval.chunking_strategy import Chunking
from retrieval.parsing import errors
from retrieval.parsing.parsed import Limits
from retrieval.parsing.sandbox import Sandbox, _Worker
from retrieval.ports import Meaning
from retrieval.reading import Documents
from tests.fixtures import documents

LIMITS = Limits(
    file_bytes=64 * 1024 * 1024,
    unpacked_bytes=64 * 1024 * 1024,
    characters=2_000_000,
    memory_bytes=512 * 1024 * 1024,
    cpu_s=20,
    wall_s=50.0,
)
LAUGHS = (
    b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "%s"><!ENTITY c "%s"><!ENTITY d "%s">]><l>&d;</l>'
    % (b"&a;" * 100, b"&b;" * 100, b"&c;" * 100)
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox() -> AsyncIterator[Sandbox]:
    sandbox = Sandbox(LIMITS)
    yield sandbox
    await sandbox.close()


def bomb() -> bytes:
    """A Word document of 130 KB whose text unpacks to 100 MB."""
    return documents.repacked(documents.word(), {"word/document.xml": b" " * 100_000_000})


def lying_bomb() -> bytes:
    """The same, with sizes in the directory that say otherwise."""
    packed = bytearray(bomb())
    for place in range(len(packed) - 4):
        if bytes(packed[place : place + 4]) in {b"PK\x01\x02", b"PK\x03\x04"}:
            at = place + (24 if packed[place + 2] == 1 else 22)
            if int.from_bytes(packed[at : at + 4], "little") == 100_000_000:
                packed[at : at + 4] = (1000).to_bytes(4, "little")
    return bytes(packed)


def pdf_bomb() -> bytes:
    """A page whose content unpacks to 240 MB of text operators."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(b"(ha) Tj " * 1_000_000) for _ in range(30)) + packer.flush()
    plain = documents.pdf([["x"]])
    start = plain.index(b"<< /Length")
    end = plain.index(b"endstream", start)
    return (
        plain[:start] + b"<< /Filter /FlateDecode /Length %d >>\nstream\n" % len(packed) + packed + b"\n" + plain[end:]
    )


def nested_mail() -> bytes:
    content = b"x"
    for depth in range(8):
        content = documents.mail({f"{depth}.eml": content})
    return content


def noise(length: int) -> bytes:
    return random.Random(length).randbytes(length)


def archive() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("a.txt", "x")
    return out.getvalue()


def encrypted() -> bytes:
    packed = bytearray(documents.word())
    place = packed.index(b"PK\x01\x02")
    packed[place + 8] |= 1
    return bytes(packed)


@pytest.mark.parametrize(
    ("name", "make", "expected"),
    [
        ("bomb.docx", bomb, errors.TooLarge),
        ("lying.docx", lying_bomb, errors.InvalidFile),
        ("bomb.pdf", pdf_bomb, errors.InvalidFile),
        ("laughs.docx", lambda: documents.repacked(documents.word(), {"word/document.xml": LAUGHS}), errors.InvalidFile),
        ("laughs.xlsx", lambda: documents.repacked(documents.workbook(), {"xl/sharedStrings.xml": LAUGHS}), errors.InvalidFile),
        ("deep.json", lambda: b"[" * 500_000, errors.TooDeep),
        ("deeper.json", lambda: b"[" * 300 + b"1" + b"]" * 300, errors.TooDeep),
        ("deep.html", lambda: b"<div>" * 500_000 + b"x", errors.TooDeep),
        ("deep.eml", nested_mail, errors.TooDeep),
        ("broken.pdf", lambda: documents.pdf([["x"]])[:150], errors.InvalidFile),
        ("header.pdf", lambda: b"%PDF-1.7\n" + noise(20_000), errors.InvalidFile),
        ("no.pdf", lambda: b"this is no PDF", errors.InvalidFile),
        ("no.docx", lambda: b"this is no document", errors.InvalidFile),
        ("cut.docx", lambda: documents.word()[:-300], errors.InvalidFile),
        ("hollow.docx", lambda: documents.repacked(documents.word(), {"word/document.xml": b"<a/>"}), errors.InvalidFile),
        ("cut.xlsx", lambda: documents.repacked(documents.workbook(), {"xl/workbook.xml": b"<workbook"}), errors.InvalidFile),
        ("locked.docx", encrypted, errors.EncryptedFile),
        ("old.docx", lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), errors.EncryptedFile),
        ("a.doc", lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), errors.UnsupportedFile),
        ("a.zip", archive, errors.UnsupportedFile),
        ("a.png", lambda: b"\x89PNG\r\n\x1a\n" + bytes(64), errors.UnsupportedFile),
        ("a.bin", lambda: noise(100_000), errors.UnsupportedFile),
        ("a.txt", lambda: b"words \x00\x01\x02 and bytes" * 50, errors.UnsupportedFile),
        ("pairs.bin", lambda: b"\x00\xff" * 100, errors.UnsupportedFile),
        ("large.txt", lambda: b"a line of text that goes on\n" * 200_000, errors.TooLarge),
        ("huge.txt", lambda: b"a line of text that goes on\n" * 1_000_000, errors.TooLarge),
        ("rows.csv", lambda: b"a,b\n" * 600_000, errors.TooLarge),
        ("bad.json", lambda: b'{"a": }', errors.InvalidFile),
        ("bad.jsonl", lambda: b'{"a": 1}\n{"a"\n', errors.InvalidFile),
        ("wrong.html", lambda: b'<meta charset="gb18030"><p>\xff\xff\xff</p>', errors.InvalidFile),
        ("empty.txt", lambda: b"", errors.EmptyFile),
        ("blank.txt", lambda: b" \n\t\n ", errors.EmptyFile),
        ("blank.pdf", lambda: documents.pdf([[], []]), errors.EmptyFile),
        ("blank.html", lambda: b"<html><body><script>x</script></body></html>", errors.EmptyFile),
        ("no.eml", lambda: b"\n\n", errors.InvalidFile),
    ],
)  # fmt: skip
@pytest.mark.asyncio(loop_scope="module")
async def test_a_hostile_file_gets_a_clear_error_and_the_next_one_is_read(
    sandbox: Sandbox,
    tmp_path: Path,
    name: str,
    make: Callable[[], bytes],
    expected: type[errors.ParseError],
) -> None:
    """Never a hang, never another file's trouble; the message is a sentence for the owner."""
    file = tmp_path / "file"
    file.write_bytes(make())
    with pytest.raises(expected) as caught:
        await sandbox.parse(file, name=name)
    assert caught.value.message.endswith((".", "!"))
    assert str(tmp_path) not in caught.value.message
    file.write_text("Water flows.")
    assert (await sandbox.parse(file, name="next.txt")).text == "Water flows."


@pytest.mark.asyncio(loop_scope="module")
async def test_a_file_over_the_limit_is_refused_without_being_read(sandbox: Sandbox, tmp_path: Path) -> None:
    """A gigabyte costs a look at its size."""
    file = tmp_path / "huge.txt"
    with file.open("wb") as out:
        out.truncate(1024**3)
    with pytest.raises(errors.TooLarge, match="1,073,741,824 bytes"):
        await sandbox.parse(file, name="huge.txt")


async def test_one_process_reads_many_files(tmp_path: Path) -> None:
    """It stays warm, however large the server is that started it: the second file starts no process."""
    ballast = bytearray(300 * 1024 * 1024)
    ballast[:: resource.getpagesize()] = bytes(len(range(0, len(ballast), resource.getpagesize())))
    sandbox = Sandbox(LIMITS)
    file = tmp_path / "a.txt"
    file.write_text("x")
    await sandbox.parse(file, name="a.txt")
    (worker,) = sandbox._idle
    for _ in range(5):
        await sandbox.parse(file, name="a.txt")
    assert sandbox._idle == [worker]
    await sandbox.close()


async def test_a_process_that_computes_too_long_is_ended_by_the_kernel(tmp_path: Path) -> None:
    """The limit on CPU time is the file's own: it begins anew with each file."""
    sandbox = Sandbox(Limits(cpu_s=1, characters=40_000_000))
    file = tmp_path / "file"
    try:
        file.write_text("- item\n" * 1_000_000)
        with pytest.raises(errors.TooSlow, match="1 s of computing"):
            await sandbox.parse(file, name="list.md")
        file.write_text("fine")
        assert (await sandbox.parse(file, name="fine.md")).text == "fine"
    finally:
        await sandbox.close()


async def test_a_process_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    """The wall clock holds where the CPU does nothing: a process that is stopped never answers."""
    sandbox = Sandbox()
    try:
        worker = await stopped(sandbox, tmp_path)
        sandbox._limits = Limits(wall_s=1.0)  # only now: the process took its time to begin
        with pytest.raises(errors.TooSlow, match="1 s to read"):
            await sandbox.parse(tmp_path / "a.txt", name="a.txt")
        assert not worker.alive
        assert sandbox._idle == []
    finally:
        await sandbox.close()


async def test_a_caller_that_leaves_ends_the_work(tmp_path: Path) -> None:
    """Cancellation kills the process and gives the turn to the next file."""
    sandbox = Sandbox()
    try:
        worker = await stopped(sandbox, tmp_path)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(sandbox.parse(tmp_path / "a.txt", name="a.txt"))
            while not sandbox._busy:  # noqa: ASYNC110 — the sandbox has no event for it, and needs none
                await asyncio.sleep(0.01)
            task.cancel()
        assert not worker.alive
        assert (await sandbox.parse(tmp_path / "a.txt", name="a.txt")).text == "text"
    finally:
        await sandbox.close()


async def stopped(sandbox: Sandbox, folder: Path) -> _Worker:
    """A parsing process that has read `a.txt` and then been stopped: it will not answer again."""
    file = folder / "a.txt"
    file.write_text("text")
    await sandbox.parse(file, name="a.txt")
    (worker,) = sandbox._idle
    worker._process.send_signal(signal.SIGSTOP)
    return worker


async def test_a_process_that_dies_between_files_is_replaced(tmp_path: Path) -> None:
    """Whatever killed it, the next file gets a fresh one."""
    sandbox = Sandbox()
    file = tmp_path / "a.txt"
    file.write_text("text")
    try:
        await sandbox.parse(file, name="a.txt")
        (worker,) = sandbox._idle
        worker._process.kill()
        await worker._process.wait()
        assert (await sandbox.parse(file, name="a.txt")).text == "text"
    finally:
        await sandbox.close()


async def test_a_signal_to_the_whole_group_of_processes_is_no_fault_of_a_file(tmp_path: Path) -> None:
    """A service manager tells all of them to end: the server ends its parsers itself, and what they read is not damaged."""
    sandbox = Sandbox()
    file = tmp_path / "a.txt"
    file.write_text("text")
    try:
        await sandbox.parse(file, name="a.txt")
        (worker,) = sandbox._idle
        for kind in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            worker._process.send_signal(kind)
        assert (await sandbox.parse(file, name="a.txt")).text == "text"
        assert sandbox._idle == [worker]
    finally:
        await sandbox.close()


async def test_a_process_that_cannot_start_now_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An OSError is what ingestion waits after; the document has not failed."""

    async def refused(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refused)
    (tmp_path / "a.txt").write_text("text")
    reader = Documents()

    async def unasked(texts: Sequence[str]) -> Sequence[Sequence[float]]:
        raise AssertionError(texts)

    meaning = Meaning(unasked, Progress())
    with pytest.raises(OSError, match="could not be started"):
        await reader.read(tmp_path / "a.txt", "a.txt", Chunking(), meaning)
    monkeypatch.undo()
    assert (await reader.read(tmp_path / "a.txt", "a.txt", Chunking(), meaning)).text == "text"
    await reader.close()


async def test_the_process_has_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys in the server's environment do not reach it."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    sandbox = Sandbox()
    file = tmp_path / "a.txt"
    file.write_text("text")
    try:
        await sandbox.parse(file, name="a.txt")
        (worker,) = sandbox._idle
        environment = await asyncio.to_thread(Path(f"/proc/{worker._process.pid}/environ").read_bytes)
        assert b"sk-secret" not in environment
    finally:
        await sandbox.close()
