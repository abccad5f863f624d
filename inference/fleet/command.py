"""What is executed for a declaration: program, arguments and variables of each kind of engine. Pure."""

from collections.abc import Mapping
from typing import Final, assert_never

import msgspec

from inference.fleet.settings import Check, EngineKind, EngineSpec

INHERITED: Final = frozenset(
    (
        "PATH",
        "HOME",
        "USER",
        "LANG",
        "LC_ALL",
        "TZ",
        "TMPDIR",
        "LD_LIBRARY_PATH",
        "VIRTUAL_ENV",
        "XDG_CACHE_HOME",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "SSL_CERT_FILE",
    )
)
INHERITED_PREFIXES: Final = (
    "CUDA",
    "NVIDIA",
    "NCCL",
    "ROCR",
    "HIP_",
    "HF_",
    "VLLM_",
    "SGLANG_",
    "OMP_",
    "TORCH",
    "OLLAMA_",
)


class Kind(msgspec.Struct, frozen=True):
    """`provider` is the gateway's word for it; `renames`: it can be told the name that clients use; `check`: what it can be asked."""

    provider: str
    program: tuple[str, ...] = ()
    check: Check = "chat"
    renames: bool = False


KINDS: Final[Mapping[EngineKind, Kind]] = {
    "vllm": Kind("vllm", ("vllm", "serve"), renames=True),
    "sglang": Kind("sglang", ("python", "-m", "sglang.launch_server"), renames=True),
    "llama_cpp": Kind("llamacpp", ("llama-server",), renames=True),
    "tei": Kind("openai", ("text-embeddings-router",), "embedding"),
    "ollama": Kind("ollama", ("ollama", "serve")),
    "transformers": Kind("openai", ("transformers", "serve")),
    "command": Kind("openai"),
}


def program(spec: EngineSpec) -> tuple[str, ...]:
    return spec.program or KINDS[spec.kind].program


def target(spec: EngineSpec) -> str:
    """The model's name at the engine."""
    return spec.model_name if KINDS[spec.kind].renames else spec.model or spec.model_name


def check(spec: EngineSpec) -> Check:
    return spec.ready.check or KINDS[spec.kind].check


def arguments(spec: EngineSpec, port: int) -> tuple[str, ...]:
    """The whole command line. In a command's own arguments `{host}`, `{port}`, `{model}` and `{name}` are replaced."""
    model, host, name = spec.model or "", spec.host, spec.model_name
    own: tuple[str, ...]
    match spec.kind:
        case "vllm":
            own = (model, "--host", host, "--port", f"{port}", "--served-model-name", name, *_vllm(spec))
        case "sglang":
            own = ("--model-path", model, "--host", host, "--port", f"{port}", "--served-model-name", name)
        case "llama_cpp":
            own = ("--model", model, "--host", host, "--port", f"{port}", "--alias", name)
        case "tei":
            own = ("--model-id", model, "--hostname", host, "--port", f"{port}")
        case "transformers":
            own = ("--host", host, "--port", f"{port}")
        case "ollama" | "command":
            own = ()
        case never:
            assert_never(never)
    line = (*program(spec), *own, *spec.args)
    if spec.kind != "command":
        return line
    said = {"{host}": host, "{port}": f"{port}", "{model}": model, "{name}": name}
    return tuple(_replaced(part, said) for part in line)


def variables(
    spec: EngineSpec, port: int, seat: int, declared: Mapping[str, str], environ: Mapping[str, str]
) -> dict[str, str]:
    """Of the server's own only what finds programs, caches and devices: an engine has no use for our keys. `seat`: which replica it is."""
    made = {name: value for name, value in environ.items() if name in INHERITED or name.startswith(INHERITED_PREFIXES)}
    made |= {"HOST": spec.host, "PORT": f"{port}"}
    if spec.kind == "ollama":
        made["OLLAMA_HOST"] = f"{spec.host}:{port}"
    if spec.kind == "vllm":
        if spec.sleeps:
            made["VLLM_SERVER_DEV_MODE"] = "1"  # /sleep and /wake_up are behind it
        made["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "True"  # /v1/load_lora_adapter is behind it
    if gpus := gpus_of(spec, seat):
        made["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    return made | dict(declared)


def gpus_of(spec: EngineSpec, seat: int) -> tuple[str, ...]:
    if not spec.gpus:
        return ()
    return spec.gpus[seat] if len(spec.gpus) > 1 else spec.gpus[0]


def _vllm(spec: EngineSpec) -> tuple[str, ...]:
    sleep = ("--enable-sleep-mode",) if spec.sleeps else ()
    if not spec.lora:
        return sleep
    return (*sleep, "--enable-lora", "--lora-modules", *(f"{one.name}={one.path}" for one in spec.lora))


def _replaced(text: str, said: Mapping[str, str]) -> str:
    for mark, value in said.items():
        text = text.replace(mark, value)
    return text
