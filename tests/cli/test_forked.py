"""A process that begins by a fork cannot tell: what it finds is what an interpreter of its own finds, and it ends the same way."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import forked
from tests.fixtures.forked import ROOT, Child, Parent

ENVIRON = {"PENSTOCK_DATA_DIR": "somewhere", "HOME": "/nowhere"}
FOUND = """
import atexit, json, os, resource, signal, sys, threading

def what(fd):
    return os.readlink(f"/proc/self/fd/{fd}").partition(":")[0]

def libc():
    with os.popen("/usr/bin/env") as told:  # closed, and so waited for: else its pipe is still there where it has not quite ended
        return told.read().split()

def handlers():
    return {number: str(signal.getsignal(number)).partition(" at ")[0] for number in signal.valid_signals()}

if __name__ == "__main__":
    main = sys.modules["__main__"]
    found = {
        "argv": sys.argv,
        "orig_argv": sys.orig_argv[1:],
        "executable": sys.executable,
        "path": sys.path,
        "main": [main.__file__, main.__spec__ and main.__spec__.name, main.__dict__ is globals()],
        "environ": dict(os.environ),
        "libc": libc() if os.path.exists("/usr/bin/env") else [],
        "folder": os.getcwd(),
        "files": {fd: what(fd) for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")},
        "group": [os.getpgrp(), os.getsid(0)],
        "handlers": handlers(),
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "limits": [resource.getrlimit(one) for one in (resource.RLIMIT_NOFILE, resource.RLIMIT_AS, resource.RLIMIT_CORE)],
        "priority": os.nice(0),
        "threads": threading.active_count(),
        "main_thread": threading.current_thread() is threading.main_thread(),
        "stdout": [sys.stdout.encoding, sys.stdout.errors, sys.stdout.line_buffering, sys.stdout.isatty()],
        "stderr": [sys.stderr.encoding, sys.stderr.errors, sys.stderr.line_buffering],
    }
    atexit.register(print, "the end")
    print(json.dumps(found))
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    (tmp_path / "found.py").write_text(FOUND)
    return tmp_path / "found.py"


@pytest.fixture
def parent() -> Iterator[Parent]:
    """One that a test may end."""
    parent = Parent()
    yield parent
    parent.close()


def executed(words: list[str], folder: Path = ROOT) -> tuple[str, int]:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=ENVIRON,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout, done.returncode


def begun(words: list[str], folder: Path = ROOT) -> tuple[str, int]:
    return ended(forked.parent().begin(words, ENVIRON, folder))


def ended(child: Child) -> tuple[str, int]:
    assert child.stdout is not None
    with child.stdout:
        return child.stdout.read(), child.wait(20)


def told(outcome: tuple[str, int]) -> dict[str, Any]:
    text, status = outcome
    assert status == 0, text
    found, end = text.splitlines()
    assert end == "the end"
    answer: dict[str, Any] = json.loads(found)
    return answer


def test_a_program_finds_what_an_interpreter_gives_it(program: Path) -> None:
    words = [str(program), "serve", "--port", "0"]
    assert told(begun(words)) == told(executed(words))


def test_a_module_finds_what_an_interpreter_gives_it(program: Path) -> None:
    words = ["-m", "found", "serve", "--port", "0"]
    assert told(begun(words, program.parent)) == told(executed(words, program.parent))


@pytest.mark.parametrize(
    "last",
    [
        "sys.exit(3)",
        "sys.exit('why')",
        "sys.exit()",
        "os.kill(os.getpid(), signal.SIGKILL)",
        "os.kill(os.getpid(), signal.SIGTERM)",
        "os._exit(7)",
        "threading.Thread(target=lambda: (time.sleep(0.2), print('waited for'))).start()",
    ],
)
def test_it_ends_as_any_program(last: str, tmp_path: Path) -> None:
    (tmp_path / "ends.py").write_text(f"import os, signal, sys, threading, time\nprint('here', flush=True)\n{last}\n")
    words = [str(tmp_path / "ends.py")]
    assert begun(words) == executed(words)


def test_an_error_is_shown_and_the_status_is_one(tmp_path: Path) -> None:
    (tmp_path / "fails.py").write_text("raise ValueError('why')\n")
    text, status = begun([str(tmp_path / "fails.py")])
    assert (text.splitlines()[-1], status) == ("ValueError: why", 1)


def test_no_two_draw_the_same_numbers(tmp_path: Path) -> None:
    (tmp_path / "draws.py").write_text(
        "import random, secrets, ssl, gateway.ids\n"
        "print(random.random(), secrets.token_hex(), ssl.RAND_bytes(8).hex(), gateway.ids.uuid7_hex()[-12:])\n"
    )
    first, second = (begun([str(tmp_path / "draws.py")])[0].split() for _ in range(2))
    assert len(first) == len(second) == 4
    assert not set(first) & set(second)


def test_signals_reach_it_and_waiting_has_an_end(tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text("import time\nprint('here', flush=True)\ntime.sleep(60)\n")
    child = forked.begin([str(tmp_path / "waits.py")], ENVIRON)
    assert child.stdout is not None
    assert child.stdout.readline() == "here\n"
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.05)
    assert child.poll() is None
    child.send_signal(signal.SIGTERM)
    assert ended(child) == ("", -signal.SIGTERM)
    assert child.poll() == -signal.SIGTERM
    child.kill()  # of nobody: nothing happens


def test_nobody_outlives_the_tests(parent: Parent, tmp_path: Path) -> None:
    """Even if they are killed: the end of their socket is what counts."""
    (tmp_path / "waits.py").write_text("import time\nprint('here', flush=True)\ntime.sleep(60)\n")
    child = parent.begin([str(tmp_path / "waits.py")], ENVIRON)
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == "here\n"
        parent.close()
        assert child.stdout.read() == ""


def test_what_an_interpreter_reads_at_its_start_is_refused(parent: Parent) -> None:
    with pytest.raises(AssertionError, match="PYTHONPATH"):
        parent.begin(["-m", "admin"], {"PYTHONPATH": "elsewhere"})
