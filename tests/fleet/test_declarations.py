"""What a declaration means: command lines, variables, fingerprints, manifests. No process."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from inference.fleet import command, gpus, manifest, process
from inference.fleet.settings import EngineSpec, fingerprint


def spec(**fields: Any) -> EngineSpec:
    return EngineSpec.model_validate({"name": "chat", "model": "org/model", **fields})


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ["vllm", "serve", "org/model", "--host", "127.0.0.1", "--port", "9", "--served-model-name", "chat"]),
        ({"kind": "sglang", "serves": "x"}, ["python", "-m", "sglang.launch_server", "--model-path", "org/model"]),
        ({"kind": "llama_cpp"}, ["llama-server", "--model", "org/model"]),
        ({"kind": "tei"}, ["text-embeddings-router", "--model-id", "org/model", "--hostname"]),
        ({"kind": "ollama"}, ["ollama", "serve"]),
        ({"kind": "transformers"}, ["transformers", "serve", "--host"]),
        ({"kind": "command", "program": ["run", "{name}:{port}"]}, ["run", "chat:9"]),
        ({"program": ["/opt/vllm", "serve"], "args": ["-x"]}, ["/opt/vllm", "serve", "org/model"]),
    ],
)
def test_each_kind_has_its_command_line(fields: dict[str, Any], expected: list[str]) -> None:
    """As its own documentation has it."""
    assert list(command.arguments(spec(**fields), 9))[: len(expected)] == expected


def test_gpus_are_those_of_the_seat() -> None:
    """One list for all, or one for each replica."""
    pinned = spec(replicas=2, gpus=[["0", "1"], ["2", "3"]])
    assert command.variables(pinned, 1, 1, {}, {})["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert command.variables(spec(replicas=2, gpus=[["5"]]), 1, 1, {}, {})["CUDA_VISIBLE_DEVICES"] == "5"
    seen = command.variables(spec(), 1, 0, {"A": "b"}, {"OPENAI_API_KEY": "sk", "HF_HOME": "/c", "PATH": "/bin"})
    assert seen == {
        "A": "b",
        "HF_HOME": "/c",
        "PATH": "/bin",
        "HOST": "127.0.0.1",
        "PORT": "1",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
    }


@pytest.mark.parametrize(
    ("fields", "same"),
    [
        ({"args": ["--max-model-len", "4096"]}, False),
        ({"env": {"A": "b"}}, False),
        ({"gpus": [["1"]]}, False),
        ({"replicas": 3}, True),
        ({"drain_s": 1}, True),
        ({"lora": [{"name": "a", "path": "b"}]}, True),
        ({"idle": {"after_s": 5, "action": "sleep"}}, False),
        ({"idle": {"after_s": 5}}, True),
    ],
)
def test_only_what_a_process_was_started_with_replaces_it(fields: dict[str, Any], *, same: bool) -> None:
    """More replicas, other waits and adapters do not end a process that answers."""
    assert (fingerprint(spec(), 0) == fingerprint(spec(**fields), 0)) is same
    assert fingerprint(spec(), 0) != fingerprint(spec(), 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"model": None},
        {"kind": "command"},
        {"kind": "tei", "sleep_mode": True},
        {"kind": "sglang", "lora": [{"name": "a", "path": "b"}]},
        {"lora": [{"name": "chat", "path": "b"}]},
        {"replicas": 3, "gpus": [["0"], ["1"]]},
        {"name": "no spaces"},
        {"typo": 1},
        {"args": ["a\x00b"]},
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, Any]) -> None:
    """When it is declared, not when it is started."""
    with pytest.raises(ValidationError):
        spec(**fields)


def test_kubernetes_gets_a_deployment_and_a_service() -> None:
    """Read as YAML: selectors match, probes and ports are those of the engine, no secret's value is in it."""
    engines = [spec(replicas=2, gpus=[["0", "1"]], env={"HF_TOKEN": "hf_secret"}, drain_s=60, stop_s=5)]
    text = yaml.safe_dump_all(manifest.kubernetes(engines, namespace="llm"))
    assert "hf_secret" not in text
    deployment, service = yaml.safe_load_all(text)
    assert (deployment["apiVersion"], deployment["kind"]) == ("apps/v1", "Deployment")
    assert (service["apiVersion"], service["kind"]) == ("v1", "Service")
    assert deployment["metadata"]["namespace"] == service["metadata"]["namespace"] == "llm"
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert service["spec"]["selector"].items() <= labels.items()
    assert deployment["spec"]["replicas"] == 2
    pod = deployment["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 65
    container = pod["containers"][0]
    assert container["image"].startswith("vllm/vllm-openai")
    assert container["args"][:5] == ["org/model", "--host", "0.0.0.0", "--port", "8000"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 2}
    assert container["readinessProbe"]["httpGet"] == {"path": "/health", "port": "http"}
    token = next(one for one in container["env"] if one["name"] == "HF_TOKEN")
    assert token["valueFrom"]["secretKeyRef"] == {"name": "penstock-engine-chat", "key": "HF_TOKEN"}


def test_ray_gets_an_application() -> None:
    """The builder of OpenAI-compatible applications, with vLLM's options under their Python names."""
    made = manifest.ray(
        [spec(args=["--max-model-len", "4096", "--enforce-eager"], gpus=[["0", "1"]], idle={"after_s": 60})]
    )
    application = yaml.safe_load(yaml.safe_dump(made))["applications"][0]
    assert application["import_path"] == "ray.serve.llm:build_openai_app"
    config = application["args"]["llm_configs"][0]
    assert config["model_loading_config"] == {"model_id": "chat", "model_source": "org/model"}
    assert config["engine_kwargs"] == {"tensor_parallel_size": 2, "max_model_len": 4096, "enforce_eager": True}
    assert config["deployment_config"]["autoscaling_config"]["min_replicas"] == 0
    with pytest.raises(manifest.ManifestError, match="runs vLLM"):
        manifest.ray([spec(kind="tei")])
    with pytest.raises(manifest.ManifestError, match="--image"):
        manifest.kubernetes([spec(kind="command", program=["x"])])


def test_the_command_prints_manifests(tmp_path: Path) -> None:
    """`penstock engines manifest`, from the file alone."""
    config = tmp_path / "penstock.yaml"
    config.write_text(yaml.safe_dump({"engines": [{"name": "chat", "model": "org/model"}]}))
    where = ["--config", str(config), "--data-dir", str(tmp_path / "data")]
    for form, key in (("kubernetes", "kind"), ("ray", "applications")):
        done = subprocess.run(
            [sys.executable, "-m", "admin", "engines", "manifest", "--format", form, *where],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert key in next(iter(yaml.safe_load_all(done.stdout)))


def test_what_nvidia_smi_cannot_tell_is_no_trouble() -> None:
    """Columns it has no value for, lines that are none, no such program."""
    assert [gpu.utilisation for gpu in gpus.read("0, GPU-a, H1, 10, 20, [N/A]\nnonsense\n")] == [0.0]
    assert gpus.look({"PATH": "/nonexistent"}) == ()


def test_logs_are_rotated_while_somebody_writes(tmp_path: Path) -> None:
    """The writer keeps its file; what was written is in the copies, as many as are wanted."""
    log = tmp_path / "0.log"
    with log.open("ab", buffering=0) as writer:
        for number in range(5):
            writer.write(b"%d\n" % number * 100)
            process.rotate(log, 50, 2)
            writer.write(b"after\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.log", "0.log.1", "0.log.2"]
    assert log.read_bytes() == b"after\n"
    assert process.tail(log, 3) == ("after",)
