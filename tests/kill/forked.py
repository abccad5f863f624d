"""Servers that begin in the time of a fork: everything is imported once, here, and each start is a process of its own.

`python -m tests.kill.forked`, with a socket as its standard input. A message is the arguments of a command line with the file for its
output, answered by the process's id (`serve …` is Penstock, `swap …` is `swapping`); or an id, answered by how that process ended.
"""

import json
import os
import socket
import sys
from importlib import import_module

MODULES = (
    "admin.serve",
    "admin.app",
    "admin.commands.serve",
    "admin.documents",
    "retrieval.service",
    "retrieval.index.residents",
    "tests.kill.swapping",
)


def main() -> None:
    with socket.socket(fileno=0) as asked:
        for name in MODULES:
            import_module(name)
        while True:
            message, files, _, _ = socket.recv_fds(asked, 1 << 16, 1)
            if not message:
                return
            told = json.loads(message)
            answer = (
                os.waitstatus_to_exitcode(os.waitpid(told, 0)[1]) if isinstance(told, int) else _begun(told, files[0])
            )
            asked.send(json.dumps(answer).encode())


def _begun(arguments: list[str], output: int) -> int:
    child = os.fork()
    if child:
        os.close(output)
        return child
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.close(null)
    sys.argv = ["penstock", *arguments]
    status = 1
    try:
        if arguments[0] == "swap":
            status = import_module("tests.kill.swapping").main(arguments[1:])
        else:
            status = import_module("admin.cli").main(arguments)
    finally:
        sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
