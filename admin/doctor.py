"""What `penstock doctor` looks at: each check gives what it saw, and the way out where something is wrong."""

import importlib.metadata
import importlib.util
import resource
import shutil
import socket
import ssl
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from admin import migrate
from admin.settings import Loaded, ServerSection, Settings
from gateway import compiled, model_store
from gateway.database import connect, reading
from gateway.providers import PROVIDERS
from inference.fleet.command import program as program_of
from inference.fleet.settings import EngineSpec

PACKAGES = ("gateway", "retrieval", "inference", "embedding", "admin")
MIN_OPEN_FILES = 4096
MIN_FREE_MB = 512
TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Check:
    """`remedy` is what to do if it is not ok."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


def installation() -> Iterator[Check]:
    """What needs no configuration."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Check("python", sys.version_info >= (3, 11), version, "Penstock needs Python 3.11 or newer")
    yield packages()
    made = compiled.place().is_dir()  # it runs without, too: nothing is wrong
    yield Check(
        "compiled",
        True,
        "the hot path is machine code" if made else "no: `penstock compile` saves two fifths of the time",
    )
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = soft == resource.RLIM_INFINITY or soft >= MIN_OPEN_FILES
    way_out = f"each connection takes one: `ulimit -n {MIN_OPEN_FILES}` before serve, or LimitNOFILE= in the unit"
    yield Check("open files", enough, f"{soft} allowed", way_out)


def examine(loaded: Loaded, *, probe: bool) -> Iterator[Check]:
    """What the configuration relies on. With `probe`, every deployment's address is connected to."""
    settings = loaded.settings
    yield data_dir(settings.data_dir)
    yield from _admin_key(settings.data_dir / "admin-key")
    engine = connect(settings.database)
    try:
        schema = database(engine)
        yield schema
        urls = _deployment_urls(settings, engine if schema.ok else None) if probe else {}
    finally:
        engine.dispose()
    if settings.redis_url is not None:
        yield redis(settings.redis_url)
    if settings.server.tls_cert is not None and settings.server.tls_key is not None:
        yield certificate(settings.server.tls_cert, settings.server.tls_key)
    yield port(settings.server)
    for engine_ in settings.engines:
        yield program(engine_, loaded.environ.get("PATH"))
    for url, ids in urls.items():
        yield address(url, ids)


def program(spec: EngineSpec, path: str | None) -> Check:
    """Whether what an engine is to be can be found at all."""
    name = program_of(spec)[0]
    found = shutil.which(name, path=path)
    way_out = f"install it, or name the file that it is as `program` of the engine {spec.name}"
    return Check(f"engine {spec.name}", found is not None, found or f"there is no program {name!r}", way_out)


def packages() -> Check:
    """The names are common words: another distribution, or a folder in the way, would be imported instead of ours."""
    home = Path(__file__).parent.parent
    owners = importlib.metadata.packages_distributions()
    strangers = sorted({owner for name in PACKAGES for owner in owners.get(name, ())} - {"penstock"})
    if strangers:
        found = f"{', '.join(strangers)} also installs one of {', '.join(PACKAGES)}"
        return Check("packages", False, found, "install Penstock into an environment of its own")
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        found_at = Path(spec.origin).parent if spec is not None and spec.origin else None
        if found_at != home / name:
            return Check(
                "packages", False, f"{name} is {found_at or 'missing'}, not {home / name}", "install Penstock again"
            )
    return Check("packages", True, f"all in {home}")


def data_dir(path: Path) -> Check:
    """Writable, with room."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"?")
    except OSError as error:
        return Check("data directory", False, f"{path}: {error.strerror}", "give the user write access, or --data-dir")
    free = shutil.disk_usage(path).free >> 20
    return Check("data directory", free >= MIN_FREE_MB, f"{path}, {free:,} MB free", "make room, or choose --data-dir")


def _admin_key(path: Path) -> Iterator[Check]:
    if path.exists():
        mode = stat.S_IMODE(path.stat().st_mode)
        yield Check("admin key", not mode & 0o077, f"{path}, mode {mode:o}", f"others can read it: chmod 600 {path}")


def database(engine: Engine) -> Check:
    """Reachable, with the schema of this version; asking must not create what is not there."""
    url = engine.url.render_as_string(hide_password=True)
    embedded = engine.dialect.name == "sqlite"
    if not _is_there(engine):
        return Check("database", True, f"{url}, made at the first start")
    try:
        state = migrate.state(engine)
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        return Check("database", False, f"{url}: {cause}", "start it, or mend PENSTOCK_DATABASE_URL")
    except migrate.SchemaError as error:
        return Check("database", False, f"{url}: {error}", "restore a backup, or use another database")
    usable = state == "head" or (embedded and state in {"empty", "behind"})
    remedy = "upgrade Penstock" if state == "newer" else "run `penstock migrate`"
    return Check("database", usable, f"{url}, schema is {'up to date' if state == 'head' else state}", remedy)


def redis(url: str) -> Check:
    """PING over a plain socket (https://redis.io/docs/latest/develop/reference/protocol-spec/)."""
    parts = urlsplit(url)
    place = f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"
    try:
        answer = _ping(parts)
    except (OSError, ValueError) as error:
        return Check("redis", False, f"{place}: {error}", "start it, or mend PENSTOCK_REDIS_URL")
    ok = answer.endswith("+PONG")
    return Check(
        "redis", ok, f"{place}: {answer.splitlines()[-1] if answer else 'no answer'}", "mend its URL or password"
    )


def _ping(parts: SplitResult) -> str:
    with _connected(parts) as plain:
        if parts.scheme != "rediss":
            return _exchange(plain, parts)
        with ssl.create_default_context().wrap_socket(plain, server_hostname=parts.hostname) as wrapped:
            return _exchange(wrapped, parts)


def _connected(parts: SplitResult) -> socket.socket:
    if parts.scheme != "unix":
        return socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379), TIMEOUT_S)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(TIMEOUT_S)
        connection.connect(parts.path)
    except OSError:
        connection.close()
        raise
    return connection


def _exchange(connection: socket.socket, parts: SplitResult) -> str:
    commands = [["PING"]]
    if parts.password:
        user = [unquote(parts.username)] if parts.username else []
        commands.insert(0, ["AUTH", *user, unquote(parts.password)])
    answer = b""
    for command in commands:
        words = [word.encode() for word in command]
        connection.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words))
        answer = connection.recv(1024)
        if not answer.startswith(b"+"):
            break
    return answer.decode(errors="replace").strip()


def certificate(cert: Path, key: Path) -> Check:
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        return Check(
            "certificate", False, f"{cert}: {error}", "tls_cert and tls_key must be PEM files that fit together"
        )
    return Check("certificate", True, str(cert))


def port(server: ServerSection) -> Check:
    place = f"{server.host}:{server.port}"
    try:
        family, kind, _, _, where = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            candidate.bind(where)
    except OSError as error:
        return Check(
            "port", False, f"{place}: {error.strerror}", "another program has it (Penstock itself?): use --port"
        )
    return Check("port", True, f"{place} is free")


def address(url: str, ids: list[str]) -> Check:
    """Whether somebody accepts a connection there; no request is sent."""
    parts = urlsplit(url)
    name = f"deployment {', '.join(ids[:3])}{' …' if len(ids) > 3 else ''}"
    try:
        with socket.create_connection(
            (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)), TIMEOUT_S
        ):
            return Check(name, True, f"{url} is reachable")
    except OSError as error:
        return Check(name, False, f"{url}: {error}", "start that server, or mend base_url")


def _deployment_urls(settings: Settings, engine: Engine | None) -> dict[str, list[str]]:
    """Addresses with the deployments that use them: of the file, and of the database if it can be read."""
    specs = [spec.model_dump(mode="json") for model in settings.models for spec in model.deployments]
    if engine is not None and _is_there(engine) and migrate.current_is_head(engine):
        with reading(engine) as tx:
            specs += [{"id": each.id, **each.spec} for _, below in model_store.every_model(tx) for each in below]
    found: dict[str, list[str]] = {}
    for spec in specs:
        provider = PROVIDERS.get(spec.get("provider") or "openai")
        url = spec.get("base_url") or (provider.base_url if provider else None)
        if url and spec["id"] not in found.setdefault(url, []):
            found[url].append(spec["id"])
    return found


def _is_there(engine: Engine) -> bool:
    """Connecting to an SQLite file would make it."""
    return engine.dialect.name != "sqlite" or Path(engine.url.database or "").exists()
