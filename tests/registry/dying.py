"""Registers a file and dies by SIGKILL at one step: `python -m tests.registry.dying STEP DATABASE FOLDER`."""

import os
import signal
import sys
from pathlib import Path

from gateway.database import changing, connect, record_revision
from inference.registry import version_store
from inference.registry.artefacts import Artefacts
from inference.registry.records import NewVersion, Source
from inference.signature import Column, Signature


def main(step: str, database: str, folder: Path) -> None:
    def at(name: str) -> None:
        if name == step:
            os.kill(os.getpid(), signal.SIGKILL)

    artefacts = Artefacts(folder)
    with artefacts.aside() as aside:
        path = aside / "artifact"
        with path.open("wb") as file:
            file.write(b"half of it, ")
            file.flush()
            at("half written")
            file.write(b"and the rest")
        at("written")
        digest, size = artefacts.keep(path)
        at("kept")
        source = Source("onnx", digest, size, "m.onnx")
        signature = Signature((Column("x", "FP32"),), (Column("y", "FP32"),))
        new = NewVersion("onnx", digest, size, source, signature, {}, {}, None, "b" * 64)
        with changing(connect(database)) as tx:
            version_store.add_version(tx, "fraud", new, "ada", record_revision(tx, "registered"))
            at("before the commit")
        at("after the commit")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
