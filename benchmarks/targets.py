"""What is measured, and against what: how each system is started, and what a client asks it for."""

import json
import secrets
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from benchmarks import dialogue
from benchmarks.dialogue import Load, Route
from benchmarks.process import Server, call, free_port

GATEWAY_CORE = 0
LOAD_CORE = 1

_CONFIGURATIONS = Path(__file__).parent / "nginx"
_BUDGET: Mapping[str, object] = {"limit_usd": 10**6, "period": "month"}
UPSTREAM_KEY = "sk-upstream"


class _Configuration(Template):
    delimiter = "@"  # nginx has the dollar for itself


@dataclass(frozen=True, slots=True)
class Upstreams:
    plain_port: int
    stream_port: int

    def port(self, load: Load) -> int:
        return self.plain_port if dialogue.route(load) == "plain" else self.stream_port


@dataclass(frozen=True, slots=True)
class Target:
    """A running system. `key` is one that it accepts; `keys` are others, for the loads that are about them.

    `{route}` stands for the load's route: nginx finds the upstream by the path, gateways do by the model. `headers` come on top
    of the usual ones, and `events` is how many with JSON in them a whole stream has.
    """

    name: str
    server: Server
    port: int
    key: str
    keys: Mapping[Load, str] = field(default_factory=dict)
    prefix: str = ""
    model_name: str = "{route}"
    headers: Mapping[str, str] = field(default_factory=dict)
    events: int = dialogue.EVENTS
    rested_mib: float = 0.0  # before the admin API was first used, which loads FastAPI

    def key_for(self, load: Load) -> str:
        return self.keys.get(load, self.key)

    def path(self, load: Load) -> str:
        return self.prefix.format(route=dialogue.route(load)) + "/v1/chat/completions"

    def model(self, load: Load) -> str:
        return self.model_name.format(route=dialogue.route(load))

    def ask(self, load: Load, key: str) -> tuple[int, bytes]:
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json", **self.headers}
        body = dialogue.request_body(self.model(load), stream=load in ("paced", "flood"))
        return call(self.port, "POST", self.path(load), body, headers)

    def answers(self, load: Load) -> bool:
        return self.ask(load, self.key)[0] == 200


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
        upstream_key=UPSTREAM_KEY,
    )
    with Server(command, core=GATEWAY_CORE, log=folder / "proxy.log") as server:
        server.wait_ready(port, "/health/ready")
        yield Target("nginx", server, port, key, prefix="/{route}")


@contextmanager
def penstock(
    folder: Path, ports: Upstreams, python: Path, *, records: bool = True, cached: bool = False
) -> Iterator[Target]:
    port, admin_key = free_port(), secrets.token_urlsafe(32)
    folder.mkdir(exist_ok=True)
    with penstock_server(
        folder, ports, python, port, admin_key, core=GATEWAY_CORE, records=records, cached=cached
    ) as server:
        server.wait_ready(port, "/health/ready")
        time.sleep(1)
        rested_mib = server.rss_mib()
        keys = Keys(port, admin_key)
        accounts: dict[Load, str] = {"free": keys.free(), "one": keys.one(), "eight": keys.eight()}
        yield Target("penstock", server, port, keys.usual(), accounts, rested_mib=rested_mib)


class Keys:
    """Virtual keys made over the admin API, so that what is measured binds as it does for users. No amount runs out here."""

    def __init__(self, port: int, admin_key: str) -> None:
        self._port = port
        self._headers = {"authorization": f"Bearer {admin_key}", "content-type": "application/json"}

    def usual(self) -> str:
        """A budget, requests and tokens per minute."""
        return self._key(budget=_BUDGET, limits={"rpm": 10**9, "tpm": 10**12})

    def free(self) -> str:
        return self._key()

    def one(self) -> str:
        return self._key(budget=_BUDGET)

    def eight(self) -> str:
        """A budget on each of eight scopes that a request has."""
        org = self._made("orgs", name="org")["id"]
        team = self._made("teams", name="team", org_id=org)["id"]
        user = self._made("users", email="someone@example.com", org_id=org, team_id=team)["id"]
        scopes = [("org", org, ""), ("team", team, ""), ("user", user, ""), ("customer", "*", org)]
        scopes += [("model", "plain", org), ("provider", "openai", org)]
        for kind, scoped, within in scopes:
            self._made("budgets", scope={"kind": kind, "id": scoped, "within": within}, **_BUDGET)
        self._made("budgets", scope={"kind": "team", "id": team}, limit_usd=10**6, period="day")
        return self._key(team_id=team, user_id=user, budget=_BUDGET)

    def _key(self, **fields: object) -> str:
        return str(self._made("keys", name="benchmark", **fields)["key"])

    def _made(self, what: str, **fields: object) -> dict[str, str]:
        status, body = call(self._port, "POST", f"/admin/v1/{what}", json.dumps(fields).encode(), self._headers)
        if status != 201:
            raise RuntimeError(f"no {what}: {status} {body!r}")
        made: dict[str, str] = json.loads(body)
        return made


def penstock_server(
    folder: Path,
    ports: Upstreams,
    python: Path,
    port: int,
    admin_key: str,
    *,
    core: int | None = None,
    records: bool = True,
    cached: bool = False,
) -> Server:
    """Just started, not yet ready. JSON is YAML too."""
    routes: tuple[Route, ...] = ("plain", "paced", "flood")
    configuration = folder / "penstock.yaml"
    models = [_model(route, ports) for route in routes]
    settings: dict[str, object] = {"models": models, "records": {"enabled": records}}
    if cached:
        settings["cache"] = {"exact": {"ttl_s": 86_400}}
    configuration.write_text(json.dumps(settings))
    data = folder / "data"
    return Server(
        [python, "-m", "admin", "serve", "--config", configuration, "--port", str(port), "--data-dir", data],
        core=core,
        environment={"PENSTOCK_ADMIN_KEY": admin_key},
        log=folder / "penstock.log",
    )


def _model(route: Route, ports: Upstreams) -> dict[str, object]:
    deployment = {
        "id": route,
        "provider": "openai",
        "base_url": f"http://127.0.0.1:{ports.port(route)}/{route}/v1",
        "model": dialogue.TARGET_MODEL,
        "api_key": UPSTREAM_KEY,
        "price": {"input": 0.15, "output": 0.6},
    }
    return {"name": route, "deployments": [deployment]}


def nginx_program() -> str:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        raise RuntimeError("nginx is not installed: `make bench` installs it, or apt-get install nginx-light")
    return program


def _nginx(folder: Path, name: str, **values: object) -> list[str | Path]:
    configuration = folder / name
    configuration.write_text(_Configuration((_CONFIGURATIONS / name).read_text()).substitute(values))
    return [nginx_program(), "-p", folder, "-e", "stderr", "-c", configuration]
