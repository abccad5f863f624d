"""Provider keys at rest, and who opens them while a server starts."""

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.secret_box import BoxError, SecretBox

KEY = b"a key that is long enough"
ROOT = Path(__file__).resolve().parents[2]


def test_what_another_process_sealed_can_be_opened_here_and_the_other_way_round() -> None:
    """Whatever the text has in it."""
    text = 'sk-"ünï\ncode"'
    here, there = SecretBox(lambda: KEY), SecretBox(lambda: KEY)
    with there.apart():
        sealed = there.seal(text)
        assert there.open(here.seal(text)) == text
    assert here.open(sealed) == text
    assert there.open(sealed) == text


def test_another_key_is_told_apart_by_the_other_process_too() -> None:
    """And it goes on with the next value."""
    sealed = SecretBox(lambda: b"quite another key, also long").seal("x")
    box = SecretBox(lambda: KEY)
    with box.apart():
        with pytest.raises(BoxError, match="another secret key"):
            box.open(sealed)
        assert box.open(box.seal("y")) == "y"


def test_a_process_that_cannot_be_had_is_no_reason_to_stop() -> None:
    """Then the library is loaded here."""
    for python in ("/nowhere/python", "/bin/false"):
        box = SecretBox(lambda: KEY, python)
        with box.apart():
            assert box.open(box.seal("x")) == "x"


def test_a_server_whose_secrets_stay_does_not_load_the_library() -> None:
    """What was opened at the start is known after it."""
    script = (
        "import sys\nfrom gateway.secret_box import SecretBox\n"
        f"box = SecretBox(lambda: {KEY!r})\n"
        "with box.apart():\n    sealed = box.seal('x')\n    assert box.open(sealed) == 'x'\n"
        "assert box.open(sealed) == 'x'\nprint('cryptography' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
