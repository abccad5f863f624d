"""What is measured, and against what: how each system is started, and what a client asks it for."""

import json
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Literal

from benchmarks import dialogue
from benchmarks.dialogue import Load
from benchmarks.process import Server, call, free_port

GATEWAY_CORE = 0
LOAD_CORE = 1

_CONFIGURATIONS = Path(__file__).parent / "nginx"
_UPSTREAM_KEY = "sk-upstream"


class _Configuration(Template):
    delimiter = "@"  # nginx has the dollar for itself


@dataclass(frozen=True, slots=True)
class Upstreams:
    plain_port: int
    stream_port: int

    def port(self, load: Load) -> int:
        return self.plain_port if load == "plain" else self.stream_port


@dataclass(frozen=True, slots=True)
class Target:
    """A running system. `key` is one that it accepts."""

    name: Literal["nginx", "penstock"]
    server: Server
    port: int
    key: str

    def path(self, load: Load) -> str:
        """nginx finds the upstream by the path, Penstock by the model."""
        return f"/{load}/v1/chat/completions" if self.name == "nginx" else "/v1/chat/completions"

    def ask(self, load: Load, key: str) -> tuple[int, bytes]:
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        return call(self.port, "POST", self.path(load), dialogue.request_body(load, stream=load != "plain"), headers)


@contextmanager
def upstreams(folder: Path) -> Iterator[Upstreams]:
    ports = Upstreams(free_port(), free_port())
    command = _nginx(folder, "upstream.conf", port=ports.plain_port, answer=dialogue.answer().decode())
    stream = [sys.executable, "-m", "benchmarks.stream_upstream", str(ports.stream_port)]
    with (
        Server(command, core=LOAD_CORE, log=folder / "upstream.log") as plain,
        Server(stream, core=LOAD_CORE, log=folder / "stream_upstream.log") as streaming,
    ):
        plain.wait_ready(ports.plain_port, "/")
        streaming.wait_ready(ports.stream_port, "/")
        yield ports


@contextmanager
def nginx(folder: Path, ports: Upstreams) -> Iterator[Target]:
    port, key = free_port(), secrets.token_urlsafe(32)
    command = _nginx(
        folder,
        "proxy.conf",
        port=port,
        key=key,
        plain_port=ports.plain_port,
        stream_port=ports.stream_port,
        upstream_key=_UPSTREAM_KEY,
    )
    with Server(command, core=GATEWAY_CORE, log=folder / "proxy.log") as server:
        server.wait_ready(port, "/health/ready")
        yield Target("nginx", server, port, key)


@contextmanager
def penstock(folder: Path, ports: Upstreams, python: Path, *, records: bool = True) -> Iterator[Target]:
    """With a virtual key made over the admin API, so that the measured key check is the real one."""
    port, admin_key = free_port(), secrets.token_urlsafe(32)
    with penstock_server(folder, ports, python, port, admin_key, core=GATEWAY_CORE, records=records) as server:
        server.wait_ready(port, "/health/ready")
        headers = {"authorization": f"Bearer {admin_key}", "content-type": "application/json"}
        status, body = call(port, "POST", "/admin/v1/keys", b'{"name": "benchmark"}', headers)
        if status != 201:
            raise RuntimeError(f"no key: {status} {body!r}")
        yield Target("penstock", server, port, json.loads(body)["key"])


def penstock_server(
    folder: Path,
    ports: Upstreams,
    python: Path,
    port: int,
    admin_key: str,
    *,
    core: int | None = None,
    records: bool = True,
) -> Server:
    """Just started, not yet ready. JSON is YAML too."""
    loads: tuple[Load, ...] = ("plain", "paced", "flood")
    configuration = folder / "penstock.yaml"
    models = [_model(load, ports) for load in loads]
    configuration.write_text(json.dumps({"models": models, "records": {"enabled": records}}))
    data = folder / "data"
    return Server(
        [python, "-m", "admin", "serve", "--config", configuration, "--port", str(port), "--data-dir", data],
        core=core,
        environment={"PENSTOCK_ADMIN_KEY": admin_key},
        log=folder / "penstock.log",
    )


def _model(load: Load, ports: Upstreams) -> dict[str, object]:
    deployment = {
        "id": load,
        "provider": "openai",
        "base_url": f"http://127.0.0.1:{ports.port(load)}/{load}/v1",
        "model": dialogue.TARGET_MODEL,
        "api_key": _UPSTREAM_KEY,
        "price": {"input": 0.15, "output": 0.6},
    }
    return {"name": load, "deployments": [deployment]}


def _nginx(folder: Path, name: str, **values: object) -> list[str | Path]:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        raise RuntimeError("nginx is not installed: `make bench` installs it, or apt-get install nginx-light")
    configuration = folder / name
    configuration.write_text(_Configuration((_CONFIGURATIONS / name).read_text()).substitute(values))
    return [program, "-p", folder, "-e", "stderr", "-c", configuration]
