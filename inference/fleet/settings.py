"""Engines as they are declared: in `penstock.yaml` under `engines`, over REST and in the database."""

import hashlib
from typing import Annotated, Any, Literal, Self

import msgspec
from pydantic import BaseModel, ConfigDict, Field, model_validator

EngineKind = Literal["vllm", "sglang", "llama_cpp", "tei", "ollama", "transformers", "command"]
Check = Literal["chat", "completion", "embedding", "http"]

EngineName = Annotated[str, Field(min_length=1, max_length=60, pattern=r"^[a-z0-9]+([._-][a-z0-9]+)*$")]
ModelName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x20\x7f*]+$")]
Argument = Annotated[str, Field(max_length=4096, pattern=r"^[^\x00]*$")]
Variable = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Secret = Annotated[str, Field(min_length=1, max_length=16_384, pattern=r"^[^\x00]+$")]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Gpu = Annotated[
    str, Field(min_length=1, max_length=80, pattern=r"^[A-Za-z0-9:_-]+$")
]  # an index, or a UUID of a GPU or MIG slice
Usd = Annotated[float, Field(ge=0, le=1_000_000)]

OUTSIDE_THE_PROCESS = frozenset(  # may change while it runs
    (
        "replicas",
        "lora",
        "price",
        "ready",
        "restart",
        "drain_s",
        "stop_s",
        "nice",
        "check_s",
        "idle",
        "wake",
        "replace",
        "on_exit",
        "max_rss_mb",
        "enabled",
        "log_mb",
        "log_files",
        "description",
        "parallel",
    )
)


class _Section(BaseModel):
    """Unknown keys are errors, as everywhere in the configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ReadySpec(_Section):
    """When an engine counts as ready: after an answer of its own to `check`, at most `within_s` after its start.

    Default: what its kind is for. `http` is a GET of `path`, for programs that generate nothing.
    """

    check: Check | None = None
    path: Annotated[str, Field(max_length=500, pattern=r"^/\S*$")] = "/health"
    within_s: Seconds = 900
    answer_s: Seconds = 120


class RestartSpec(_Section):
    """Waits between starts that fail: `base_s`, doubled up to `max_s`. After `attempts` in a row the engine is `crashed` and left alone.

    What was ready for `healthy_s` was no failed start.
    """

    base_s: Seconds = 1
    max_s: Seconds = 60
    attempts: int = Field(default=5, ge=1, le=1000)
    healthy_s: Seconds = 60


class IdleSpec(_Section):
    """What happens to an engine that nobody asks for `after_s`: `stop` ends its processes, `sleep` lets vLLM give its memory back."""

    after_s: Seconds
    action: Literal["stop", "sleep"] = "stop"


class WakeSpec(_Section):
    """How many calls may wait, in each process, for an engine that is not there yet, and how long each."""

    queue: int = Field(default=64, ge=0, le=100_000)
    wait_s: Seconds = 300


class LoraSpec(_Section):
    """An adapter on the engine's model, offered as a model of its own."""

    name: ModelName
    path: Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00=]+$")]


class EnginePriceSpec(_Section):
    """USD per million tokens. Default: nothing, as the machine is paid for."""

    input: Usd = 0
    output: Usd = 0


class EngineSpec(_Section):
    """An engine that this server runs as `replicas` processes, each of them a deployment of the model `serves` (default: its own name).

    `model` is what it loads: a name or a folder. `gpus` are those of each replica in turn, or of all if there is one list. With a `port`
    the replicas use it and those above it; without, free ones. `drain_s`: how long running calls may take before a process is ended.
    `nice`: how much a ready process yields to the gateway and to those that start, as nice(1) has it.
    """

    name: EngineName
    kind: EngineKind = "vllm"
    description: Annotated[str, Field(max_length=2000)] | None = None
    model: Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]+$")] | None = None
    serves: ModelName | None = None
    program: Annotated[tuple[Argument, ...], Field(min_length=1, max_length=100)] | None = None
    args: Annotated[tuple[Argument, ...], Field(max_length=1000)] = ()
    env: dict[Variable, Secret] = Field(default={}, repr=False)
    gpus: Annotated[tuple[tuple[Gpu, ...], ...], Field(max_length=256)] = ()
    host: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9.:_-]+$")] = "127.0.0.1"
    port: int | None = Field(default=None, ge=1, le=65_000)
    replicas: int = Field(default=1, ge=1, le=64)
    parallel: int | None = Field(default=None, ge=1, le=100_000)
    lora: Annotated[tuple[LoraSpec, ...], Field(max_length=1000)] = ()
    price: EnginePriceSpec = EnginePriceSpec()
    ready: ReadySpec = ReadySpec()
    restart: RestartSpec = RestartSpec()
    check_s: Seconds = 10
    drain_s: float = Field(default=120, ge=0, le=86_400)
    stop_s: float = Field(default=10, ge=0, le=3600)
    nice: int = Field(default=10, ge=0, le=19)
    idle: IdleSpec | None = None
    wake: WakeSpec = WakeSpec()
    sleep_mode: bool = False
    replace: Literal["rolling", "recreate"] = "rolling"
    on_exit: Literal["stop", "keep"] = "stop"
    max_rss_mb: float | None = Field(default=None, gt=0, le=1 << 30)
    log_mb: float = Field(default=32, gt=0, le=1 << 20)
    log_files: int = Field(default=3, ge=1, le=100)
    enabled: bool = True

    @model_validator(mode="after")
    def _what_the_kind_has(self) -> Self:
        if self.kind == "command" and self.program is None:
            raise ValueError("an engine of the kind command needs a program")
        if self.kind not in ("command", "ollama") and self.model is None:
            raise ValueError(f"an engine of the kind {self.kind} needs a model")
        if self.lora and self.kind != "vllm":
            raise ValueError("lora is for engines of the kind vllm")
        if self.sleeps and self.kind != "vllm":
            raise ValueError("sleep is vLLM's; engines of other kinds can stop when idle")
        if len(self.gpus) > 1 and len(self.gpus) < self.replicas:
            raise ValueError("gpus needs one list, or one for each replica")
        names = [self.model_name, *(one.name for one in self.lora)]
        if len(set(names)) != len(names):
            raise ValueError("the engine's model and its adapters need names of their own")
        return self

    @property
    def sleeps(self) -> bool:
        """Whether it is started so that it can be put to sleep."""
        return self.sleep_mode or (self.idle is not None and self.idle.action == "sleep")

    @property
    def model_name(self) -> str:
        """What clients ask for."""
        return self.serves or self.name


class ProgramSpec(_Section):
    """A program that engines made over REST may be, word by word (`[vllm, serve]`); `env`: variables that they may set."""

    program: Annotated[tuple[Argument, ...], Field(min_length=1, max_length=100)]
    env: tuple[Variable, ...] = ()


def fingerprint(spec: EngineSpec, turn: int) -> str:
    """Of what a running process was started with: another one means that it has to be replaced. `turn` counts wanted restarts."""
    written: dict[str, Any] = spec.model_dump(mode="json", exclude_defaults=True, exclude=set(OUTSIDE_THE_PROCESS))
    sleeps = spec.sleeps
    return hashlib.sha256(msgspec.json.encode((written, sleeps, turn), order="sorted")).hexdigest()[:16]
