"""What a client was answered is captured, whatever happens to the process next."""

import sqlite3
import time
from pathlib import Path

from tests.fixtures.predictions import PROGRAM
from tests.fixtures.server import Server
from tests.serving import library


def test_kill_9_loses_no_capture_of_an_answered_call(tmp_path: Path) -> None:
    """Killed right behind the answers, before anything was shipped; the next process brings them in, each once."""
    folder, home = tmp_path / "library", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    library.write(folder, [library.python("m", runtime="onnx")])
    server = Server({}, home)
    server.program = (PROGRAM, str(folder))
    server.start()
    try:
        ids = [server.post("/v1/predict/m", {"instances": [{"x": i}]}).json()["id"] for i in range(20)]
        server.kill()
        server.start(with_key=False)
        deadline = time.monotonic() + 30
        while any((server.data / "captures").iterdir()):  # a file goes when what it has is in the database
            assert time.monotonic() < deadline, server.output
            time.sleep(0.1)
        assert sorted(captured(server.data / "penstock.db")) == sorted(ids)
    finally:
        server.stop()


def captured(path: Path) -> list[str]:
    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT id FROM predictions").fetchall()
    database.close()
    return [row[0] for row in rows]
