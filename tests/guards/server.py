"""An HTTP guard of somebody's own, in a thread of the test: it keeps what it was asked and answers as it is told."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class GuardServer:
    """`answer` is a JSON object, a status, or an event that has to be set before it says `allow`."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.answer: dict[str, Any] | int | threading.Event = {"action": "allow"}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.bodies.append(body)
                outer.asked.append(json.loads(body))
                outer.headers.append({name.lower(): value for name, value in self.headers.items()})
                answer = outer.answer
                if isinstance(answer, threading.Event):
                    answer.wait(30)
                    answer = {"action": "allow"}
                made = b"broken" if isinstance(answer, int) else json.dumps(answer).encode()
                try:
                    self.send_response(answer if isinstance(answer, int) else 200)
                    self.send_header("content-length", str(len(made)))
                    self.end_headers()
                    self.wfile.write(made)
                except OSError:  # whoever asked has left
                    self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 — the library's name
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/check"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
