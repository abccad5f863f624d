"""The gateways that Penstock is compared with: where each is installed, how it is configured and started.

Each runs as its documentation starts it, as one process on one core, with nothing switched on that it can do without: no
database, no log of requests. Each is told of two upstreams, one that answers in one piece and one that streams at a token's pace.
"""

import json
import secrets
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from benchmarks import dialogue, targets
from benchmarks.process import Server, free_port
from benchmarks.targets import GATEWAY_CORE, UPSTREAM_KEY, Keys, Target, Upstreams

PeerLoad = Literal["plain", "paced"]
LOADS: tuple[PeerLoad, ...] = ("plain", "paced")
Targets = Mapping[PeerLoad, Target]
Start = Callable[[Path, Upstreams], AbstractContextManager[Targets]]

START_LIMIT_S = 120

_INSTALLED = Path(__file__).parent.parent / ".tools" / "peers"


class NotInstalled(RuntimeError):
    """The message says what would install it."""


@dataclass(frozen=True, slots=True)
class System:
    """`start` takes a folder of its own and the upstreams. What it yields may still be warming up."""

    name: str
    version: Callable[[], str]
    start: Start


def systems(penstock_python: Path) -> tuple[System, ...]:
    return (
        System("nginx", _nginx_version, _nginx),
        System("Penstock", partial(_distribution, penstock_python, "penstock"), partial(_penstock, penstock_python)),
        _from_pypi("vllm-router", "vllm-router", partial(_router, "vllm-router", "vllm_router.launch_router")),
        _from_pypi("sglang-router", "sglang-router", partial(_router, "sglang-router", "sglang_router.launch_router")),
        _from_pypi("TensorZero", "tensorzero", _tensorzero),
        System("Portkey", _portkey_version, _portkey),
        _from_pypi("LiteLLM", "litellm", _litellm),
    )


@contextmanager
def _nginx(folder: Path, ports: Upstreams) -> Iterator[Targets]:
    with targets.nginx(folder, ports) as target:
        yield _both(target)


@contextmanager
def _penstock(python: Path, folder: Path, ports: Upstreams) -> Iterator[Targets]:
    """With a virtual key that has a budget, requests and tokens per minute, as in the comparison with nginx alone."""
    port, admin_key = free_port(), secrets.token_urlsafe(32)
    with targets.penstock_server(folder, ports, python, port, admin_key, core=GATEWAY_CORE) as server:
        server.wait_ready(port, "/health/ready", limit_s=START_LIMIT_S)
        yield _both(Target("Penstock", server, port, Keys(port, admin_key).usual()))


@contextmanager
def _router(name: str, module: str, folder: Path, ports: Upstreams) -> Iterator[Targets]:
    """A router of vLLM's or SGLang's makes no difference by model or path: one process per upstream. No --api-key: vLLM's does not
    check its clients' keys, and SGLang's would send the header twice, which nginx as the upstream refuses."""
    with _router_of("paced", name, module, folder, ports) as paced:
        paced.server.wait_until(partial(paced.answers, "paced"), limit_s=START_LIMIT_S)
        with _router_of("plain", name, module, folder, ports) as plain:  # alone, for its start is timed
            yield {"plain": plain, "paced": paced}


@contextmanager
def _router_of(load: PeerLoad, name: str, module: str, folder: Path, ports: Upstreams) -> Iterator[Target]:
    port = free_port()
    options = ["--worker-urls", _upstream(load, ports), "--host", "127.0.0.1", "--port", str(port)]
    options += ["--policy", "round_robin", "--log-level", "error", "--prometheus-port", str(free_port())]
    with Server([_python(name), "-m", module, *options], core=GATEWAY_CORE, log=folder / f"{load}.log") as server:
        yield Target(name, server, port, UPSTREAM_KEY)


@contextmanager
def _tensorzero(folder: Path, ports: Upstreams) -> Iterator[Targets]:
    configuration, port_file = folder / "tensorzero.toml", folder / "port"
    configuration.write_text(
        "[gateway]\nobservability.enabled = false\n" + "".join(_tensorzero_model(load, ports) for load in LOADS)
    )
    script = Path(__file__).parent / "tensorzero_gateway.py"
    with Server(
        [_python("tensorzero"), script, configuration, port_file],
        core=GATEWAY_CORE,
        log=folder / "tensorzero.log",
        environment={"UPSTREAM_KEY": UPSTREAM_KEY},
    ) as server:
        server.wait_until(lambda: port_file.read_text().endswith("\n"), limit_s=START_LIMIT_S)
        port = int(port_file.read_text())
        name = "tensorzero::model_name::{route}"
        yield _both(Target("TensorZero", server, port, UPSTREAM_KEY, prefix="/openai", model_name=name))


def _tensorzero_model(load: PeerLoad, ports: Upstreams) -> str:
    return (
        f'[models.{load}]\nrouting = ["upstream"]\n[models.{load}.providers.upstream]\ntype = "openai"\n'
        f'model_name = "{dialogue.TARGET_MODEL}"\napi_base = "{_upstream(load, ports)}/v1/"\n'
        'api_key_location = "env::UPSTREAM_KEY"\n'
    )


@contextmanager
def _portkey(folder: Path, ports: Upstreams) -> Iterator[Targets]:
    """It has no configuration: each request names its upstream."""
    port = free_port()
    with Server(
        ["node", _portkey_folder() / "build" / "start-server.js", "--headless", f"--port={port}"],
        core=GATEWAY_CORE,
        log=folder / "portkey.log",
        environment={"NODE_ENV": "production"},
    ) as server:
        headers = {
            load: {"x-portkey-provider": "openai", "x-portkey-custom-host": f"{_upstream(load, ports)}/v1"}
            for load in LOADS
        }
        yield {load: Target("Portkey", server, port, UPSTREAM_KEY, headers=headers[load]) for load in LOADS}


@contextmanager
def _litellm(folder: Path, ports: Upstreams) -> Iterator[Targets]:
    """One worker, a master key, no database. JSON is YAML too."""
    port, key = free_port(), f"sk-{secrets.token_urlsafe(32)}"
    configuration = folder / "litellm.yaml"
    models = [
        {
            "model_name": load,
            "litellm_params": {
                "model": f"openai/{dialogue.TARGET_MODEL}",
                "api_base": f"{_upstream(load, ports)}/v1",
                "api_key": UPSTREAM_KEY,
            },
        }
        for load in LOADS
    ]
    general = {"master_key": key, "disable_spend_logs": True}
    configuration.write_text(json.dumps({"model_list": models, "general_settings": general}))
    options = ["--config", str(configuration), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    quiet = {"LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    with Server(
        [_python("litellm").with_name("litellm"), *options],
        core=GATEWAY_CORE,
        log=folder / "litellm.log",
        environment=quiet,
    ) as server:
        yield _both(Target("LiteLLM", server, port, key))


def _both(target: Target) -> Targets:
    return dict.fromkeys(LOADS, target)


def _upstream(load: PeerLoad, ports: Upstreams) -> str:
    return f"http://127.0.0.1:{ports.port(load)}/{load}"


def _from_pypi(name: str, distribution: str, start: Start) -> System:
    return System(name, lambda: _distribution(_python(distribution), distribution), start)


def _python(name: str) -> Path:
    return _installed(_INSTALLED / name, "bin/python")


def _portkey_folder() -> Path:
    return _installed(_INSTALLED / "portkey", "node_modules/@portkey-ai/gateway/package.json").parent


def _installed(folder: Path, what: str) -> Path:
    if not (folder / ".ready").exists():
        raise NotInstalled(f"{folder.name} is not installed: `deploy/setup.sh peers` tries to")
    return folder / what


def _distribution(python: Path, name: str) -> str:
    return _output([python, "-c", f"import importlib.metadata as m; print(m.version({name!r}))"])


def _portkey_version() -> str:
    return str(json.loads((_portkey_folder() / "package.json").read_text())["version"])


def _nginx_version() -> str:
    return _output([targets.nginx_program(), "-v"]).rpartition("/")[2]


def _output(command: list[str | Path]) -> str:
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    ).stdout.strip()
