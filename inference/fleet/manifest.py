"""The same declaration for machines that others run: Deployments and Services of Kubernetes, an application of Ray Serve."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from inference.fleet import command
from inference.fleet.settings import EngineKind, EngineSpec

Json = dict[str, Any]

IMAGES: Final[Mapping[EngineKind, str]] = {
    "vllm": "vllm/vllm-openai:latest",
    "sglang": "lmsysorg/sglang:latest",
    "llama_cpp": "ghcr.io/ggml-org/llama.cpp:server",
    "tei": "ghcr.io/huggingface/text-embeddings-inference:latest",
    "ollama": "ollama/ollama:latest",
    "transformers": "huggingface/transformers-pytorch-gpu:latest",
}
OWN_ENTRYPOINT: Final = frozenset(
    ("vllm", "llama_cpp", "tei")
)  # images that are the program: they take its arguments alone
PORT: Final = 8000


class ManifestError(ValueError):
    """A declaration that has no meaning there."""


def kubernetes(
    specs: Sequence[EngineSpec], *, namespace: str | None = None, images: Mapping[str, str] | None = None
) -> list[Json]:
    """A Deployment and a Service for each engine. `images` by engine or kind. Raises ManifestError.

    The Deployment's own rolling update is the replacement here, its probes the supervision, `drain_s` the grace period. Values of
    variables come from a Secret `penstock-engine-<name>`, which is not made here: a manifest is no place for them.
    """
    made: list[Json] = []
    for spec in specs:
        made += [_deployment(spec, _image(spec, images or {})), _service(spec)]
    if namespace is not None:
        for one in made:
            one["metadata"]["namespace"] = namespace
    return made


def ray(specs: Sequence[EngineSpec]) -> Json:
    """A Serve config for `serve deploy` with Ray's builder of OpenAI-compatible applications. Raises ManifestError for other than vLLM.

    Variables are not in it: Ray has no secrets, so they have to be set on its machines.
    """
    return {
        "applications": [
            {
                "name": "penstock-engines",
                "route_prefix": "/",
                "import_path": "ray.serve.llm:build_openai_app",
                "args": {"llm_configs": [_llm(spec) for spec in specs]},
            }
        ]
    }


def _deployment(spec: EngineSpec, image: str) -> Json:
    labels = {"app.kubernetes.io/name": _dns(spec.name), "app.kubernetes.io/part-of": "penstock"}
    rolling = spec.replace == "rolling"
    strategy: Json = {"type": "Recreate"}
    if rolling:
        strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": _dns(spec.name), "labels": labels},
        "spec": {
            "replicas": spec.replicas if spec.enabled else 0,
            "selector": {"matchLabels": {"app.kubernetes.io/name": _dns(spec.name)}},
            "strategy": strategy,
            "progressDeadlineSeconds": int(spec.ready.within_s) + 60,
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "terminationGracePeriodSeconds": int(spec.drain_s + spec.stop_s),
                    "containers": [_container(spec, image)],
                    "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}],
                },
            },
        },
    }


def _container(spec: EngineSpec, image: str) -> Json:
    line = list(command.arguments(spec.model_copy(update={"host": "0.0.0.0"}), PORT))
    own = len(command.program(spec)) if spec.kind in OWN_ENTRYPOINT and spec.program is None else 0
    every_s = max(1, int(spec.check_s))
    get = {"httpGet": {"path": spec.ready.path, "port": "http"}}
    made: Json = {
        "name": "engine",
        "image": image,
        "args": line[own:],
        "ports": [{"name": "http", "containerPort": PORT}],
        "env": _env(spec),
        "startupProbe": {**get, "periodSeconds": 10, "failureThreshold": max(1, int(spec.ready.within_s) // 10)},
        "readinessProbe": {**get, "periodSeconds": every_s},
        "livenessProbe": {**get, "periodSeconds": every_s, "timeoutSeconds": 10, "failureThreshold": 3},
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "5"]}}},  # until every client knows that it leaves
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],  # noqa: S108 — tensors between a pod's processes
    }
    if not own:
        made["command"], made["args"] = line[:1], line[1:]
    if gpus := max((len(each) for each in spec.gpus), default=0):
        made["resources"] = {"limits": {"nvidia.com/gpu": gpus}}
    return made


def _env(spec: EngineSpec) -> list[Json]:
    plain = command.variables(spec.model_copy(update={"gpus": ()}), PORT, 0, {}, {})
    plain.pop("HOST"), plain.pop("PORT")
    secret = f"penstock-engine-{_dns(spec.name)}"
    return [
        *({"name": name, "value": value} for name, value in sorted(plain.items())),
        *({"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": name}}} for name in sorted(spec.env)),
    ]


def _service(spec: EngineSpec) -> Json:
    name = {"app.kubernetes.io/name": _dns(spec.name)}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": _dns(spec.name), "labels": {**name, "app.kubernetes.io/part-of": "penstock"}},
        "spec": {"selector": name, "ports": [{"name": "http", "port": PORT, "targetPort": "http"}]},
    }


def _llm(spec: EngineSpec) -> Json:
    if spec.kind != "vllm":
        raise ManifestError(f"engine {spec.name!r}: Ray Serve's OpenAI application runs vLLM, not {spec.kind}")
    gpus = max((len(each) for each in spec.gpus), default=1)
    made: Json = {
        "model_loading_config": {"model_id": spec.model_name, "model_source": spec.model},
        "deployment_config": {
            "autoscaling_config": {
                "min_replicas": 0 if spec.idle is not None else spec.replicas,
                "max_replicas": spec.replicas,
                **({"downscale_delay_s": spec.idle.after_s} if spec.idle is not None else {}),
            },
            "graceful_shutdown_timeout_s": spec.drain_s,
            **({"max_ongoing_requests": spec.parallel} if spec.parallel is not None else {}),
        },
        "engine_kwargs": {"tensor_parallel_size": gpus, **_kwargs(spec)},
    }
    return made


def _kwargs(spec: EngineSpec) -> Json:
    """vLLM's options as Python has them: `--max-model-len 4096` is `max_model_len: 4096`, a lone `--enforce-eager` is true."""
    made: Json = {}
    name = ""
    for part in (*spec.args, *(("--enable-sleep-mode",) if spec.sleeps else ())):
        if part.startswith("--"):
            name, _, value = part.removeprefix("--").partition("=")
            name = name.replace("-", "_")
            made[name] = _value(value) if value else True
        elif name:
            made[name], name = _value(part), ""
        else:
            raise ManifestError(f"engine {spec.name!r}: the argument {part!r} has no option before it")
    return made


def _value(text: str) -> str | int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _image(spec: EngineSpec, images: Mapping[str, str]) -> str:
    image = images.get(spec.name) or images.get(spec.kind) or IMAGES.get(spec.kind)
    if image is None:
        raise ManifestError(f"engine {spec.name!r}: a command of your own needs an image: --image {spec.name}=…")
    return image


def _dns(name: str) -> str:
    """A label of RFC 1123."""
    return name.replace("_", "-").replace(".", "-")
