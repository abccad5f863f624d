"""What is said of an engine: what is wanted, what it offers, how it is."""

from typing import Literal

import msgspec

from inference.fleet.settings import EngineSpec

Wish = Literal["run", "stop", "sleep"]
Phase = Literal["starting", "ready", "dozing", "asleep", "waking", "draining", "stopping"]
State = Literal["starting", "ready", "draining", "asleep", "stopped", "crashed"]


class Declared(msgspec.Struct, frozen=True):
    """What is wanted. `used_at`, `called_at`: Unix seconds of the last call that reached it, and of the last that found it away."""

    spec: EngineSpec
    wish: Wish = "run"
    turn: int = 0
    called_at: float = 0.0
    used_at: float = 0.0


class Place(msgspec.Struct, frozen=True):
    """Where a process answers for the engine's model, and for the adapters it has."""

    slot: int
    url: str
    loras: tuple[str, ...] = ()


class Offer(msgspec.Struct, frozen=True):
    """What the gateway is told. `comes`: where there is no place, a call may wait for one."""

    spec: EngineSpec
    places: tuple[Place, ...]
    comes: bool


class Replica(msgspec.Struct, frozen=True):
    """`replica` is which one it is; two have the same number while one replaces the other."""

    slot: int
    replica: int
    phase: Phase
    pid: int
    port: int
    rss_mb: float
    ready_s: float | None
    gpus: tuple[str, ...]
    adopted: bool
    reason: str | None


class Gpu(msgspec.Struct, frozen=True):
    """MiB and percent."""

    index: str
    uuid: str
    name: str
    memory_used_mb: float
    memory_total_mb: float
    utilisation: float


class Condition(msgspec.Struct, frozen=True):
    """What is shown of an engine. `failures`: starts in a row that failed; `restart_in_s`: until the next."""

    state: State
    ready: int
    wanted: int
    restarts: int
    failures: int
    restart_in_s: float | None
    last_error: str | None
    error_lines: tuple[str, ...]
    replicas: tuple[Replica, ...]
    rss_mb: float
    gpus: tuple[Gpu, ...] = ()
