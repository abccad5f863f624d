"""A model in a process of its own, as a Runnable: what it raises is raised here, and it can be ended while it runs."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Final, final

from numpy.typing import NDArray

from inference.errors import BadRequest
from inference.ports import Bundle
from inference.serving.child import told
from inference.serving.errors import BadInput, LoadFailed, ModelError
from inference.serving.pipe import Gone, receive, send

ENDS_IN_S: Final = 5.0


@final
class Remote:
    """`loader` is `module:function`, which loads a bundle there. Made in the thread that uses it. Raises LoadFailed."""

    def __init__(self, bundle: Bundle, loader: str) -> None:
        self.died = False  # by itself: nothing runs here any more
        self._name = f"'{bundle.model}' (version {bundle.version})"
        self._socket, theirs = socket.socketpair()
        environment = {
            "PATH": os.defpath,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",  # processes are how it gets more cores
        }
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 — this very interpreter and our own module
                [sys.executable, "-m", "inference.serving.child", str(theirs.fileno()), loader],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # a model that prints is nobody's answer
                env=environment,
            )
        self.pid = self._process.pid
        said = told(bundle)
        try:
            self._socket.sendall(len(said).to_bytes(8, "little") + said)
            _, error = receive(self._socket)
        except (Gone, OSError):
            self.close()
            raise LoadFailed(f"The process of the model {self._name} ended while it was loaded") from None
        if error is not None:
            self.close()
            raise LoadFailed(f"The model {self._name} could not be loaded: {error[0]}: {error[1]}")

    def run(self, columns: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        try:
            send(self._socket, columns)
            outputs, error = receive(self._socket)
        except (Gone, OSError):
            self.died = True
            raise ModelError(f"The process of the model {self._name} died") from None
        if error is not None:
            if error[0] == BadRequest.__name__:
                raise BadInput(error[1])
            raise ModelError(f"The model {self._name} failed: {error[0]}: {error[1]}")
        return outputs

    def stop(self) -> None:
        """From any thread: a run that goes on ends at once, and raises."""
        self._process.kill()

    def close(self) -> None:
        self._socket.close()
        try:
            self._process.wait(ENDS_IN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
