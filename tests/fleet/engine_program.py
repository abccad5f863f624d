"""An inference engine as the fleet meets it: a small OpenAI-compatible server whose misdeeds are told over HTTP or on the command line.

`python engine_program.py [serve MODEL] --host H --port P [--slow-start S] [--die N] [--leak MB] [--mute] [--version V] …`; what it does
not know it ignores, so that it also takes vLLM's arguments. `GET /told` shows its arguments and variables.
"""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

State = dict[str, Any]


def option(name: str, default: str = "") -> str:
    argv = sys.argv
    return argv[argv.index(name) + 1] if name in argv else default


def _variables() -> dict[str, str]:
    """Those of this process (proc(5))."""
    with open("/proc/self/environ") as file:  # noqa: PTH123 — as small as it can be
        return dict(pair.split("=", 1) for pair in file.read().split("\0") if pair)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: State = {}  # noqa: RUF012 — one server per process

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/health":
            self._hang()
            self._answer(200, {})
        elif path == "/is_sleeping":
            self._answer(200, {"is_sleeping": self.state["asleep"]})
        elif path == "/told":
            self._answer(200, {"argv": sys.argv, "env": _variables(), "state": self.state})
        else:
            self._answer(404, {})

    def do_POST(self) -> None:
        path = self.path.partition("?")[0]
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}")
        if path == "/crash":
            os._exit(3)
        elif path == "/hang":
            self.state["hung"] = True
            self._answer(200, {})
        elif path in ("/sleep", "/wake_up"):
            self.state["asleep"] = path == "/sleep"
            self._answer(200, {})
        elif path == "/v1/load_lora_adapter":
            self.state["loras"][body["lora_name"]] = body["lora_path"]
            self._answer(200, {})
        elif path == "/v1/unload_lora_adapter":
            self.state["loras"].pop(body["lora_name"], None)
            self._answer(200, {})
        elif path == "/v1/chat/completions":
            self._chat(body)
        else:
            self._answer(404, {"error": {"message": path}})

    def _chat(self, body: State) -> None:
        self._hang()
        if "--mute" in sys.argv or self.state["asleep"]:
            self._answer(500, {"error": {"message": "it has no words"}})
            return
        text = body["messages"][-1]["content"]
        self.state["said"] = text
        if text.startswith("take "):
            time.sleep(float(text.split()[1]))
        said = f"{body['model']} {option('--version', '1')} {os.getpid()}"
        self._answer(
            200,
            {
                "id": "c",
                "object": "chat.completion",
                "created": 1,
                "model": body["model"],
                "choices": [{"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            },
        )

    def _hang(self) -> None:
        if self.state["hung"]:
            time.sleep(3600)

    def _answer(self, status: int, body: object) -> None:
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 — the base class's name
        pass


class Engine(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def main() -> None:
    print("engine: starting", option("--version", "1"), flush=True)
    time.sleep(float(option("--slow-start", "0")))
    if option("--die"):
        print("engine: no memory left on device", flush=True)
        sys.exit(int(option("--die")))
    loras = dict(part.split("=", 1) for part in sys.argv if "=" in part and "--lora-modules" in sys.argv)
    Handler.state.update({"asleep": False, "hung": False, "loras": loras})
    held = bytearray(int(option("--leak", "0")) << 20)
    held[::4096] = b"x" * len(held[::4096])  # a page is only there once it is written to
    Engine((option("--host", "127.0.0.1"), int(option("--port"))), Handler).serve_forever()


if __name__ == "__main__":
    main()
