"""LiteLLM's configuration becomes ours: every field accounted for, every result loads, no secret in the account."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from admin.config_file import ConfigError
from admin.import_litellm import Imported, import_litellm
from admin.litellm_fields import INHERENT, LIMITS, MANUAL, SIZES, TOKEN_PRICES, UNIT_PRICES, UNSUPPORTED
from admin.settings import Loaded, load

CORPUS = sorted((Path(__file__).parent / "litellm").glob("*.yaml"))
ROOT = Path(__file__).parents[2]


def imported(text: str) -> Imported:
    return import_litellm(text.encode(), "config.yaml")


def loaded(result: Imported, folder: Path) -> Loaded:
    """As `penstock serve` reads it, with every variable that it names set."""
    names = re.findall(r"(?<!\$)\$\{(\w+)\}", result.configuration)
    environ = {name: "https://there.example.com" if "BASE" in name else "a-value-of-some-length" for name in names}
    file = folder / "penstock.yaml"
    file.write_text(result.configuration)
    return load({"--config": str(file)}, environ)


def fields(value: object, path: str = "") -> Iterator[str]:
    """The dotted path of every key that has no keys of its own below it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            where = f"{path}.{key}" if path else str(key)
            below = list(fields(inner, where))
            yield from below or [where]
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from fields(inner, f"{path}[{index}]")


def accounted(result: Imported, field: str) -> bool:
    return any(
        field == finding.path or field.startswith((f"{finding.path}.", f"{finding.path}["))
        for finding in result.findings
    )


def only(result: Imported) -> dict[str, Any]:
    """The one model of a result."""
    (model,) = yaml.safe_load(result.configuration)["models"]
    return dict(model)


def test_there_is_a_corpus() -> None:
    """An empty folder would make every test below pass."""
    assert len(CORPUS) >= 10


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.stem)
def test_the_account_is_the_expected_one(file: Path) -> None:
    """Line, status and path of each finding, as reviewed in the .expected file beside it."""
    result = import_litellm(file.read_bytes(), file.name)
    found = [f"{finding.line} {finding.status} {finding.path}" for finding in result.findings]
    assert found == file.with_suffix(".expected").read_text().splitlines()


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.stem)
def test_the_result_loads(file: Path, tmp_path: Path) -> None:
    """What is written passes the check that every other penstock.yaml has to pass."""
    assert loaded(import_litellm(file.read_bytes(), file.name), tmp_path).settings is not None


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.stem)
def test_every_field_is_accounted_for(file: Path) -> None:
    """Each key of the file, as PyYAML reads it, has a finding of its own or one of what it belongs to."""
    result = import_litellm(file.read_bytes(), file.name)
    assert [field for field in fields(yaml.safe_load(file.read_text())) if not accounted(result, field)] == []


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.stem)
def test_no_secret_is_in_the_account(file: Path) -> None:
    """A report is pasted into tickets."""
    account = "\n".join(finding.message for finding in import_litellm(file.read_bytes(), file.name).findings)
    secrets = re.findall(r"(?:api_key|master_key|_KEY): (?!os\.environ)(\S{6,})", file.read_text())
    assert [secret for secret in secrets if secret in account] == []


def test_references_and_dollar_signs_keep_their_meaning(tmp_path: Path) -> None:
    """os.environ/X is read from the environment, any other $ is a character."""
    result = import_litellm((Path(__file__).parent / "litellm" / "04_prices.yaml").read_bytes(), "x")
    configuration = loaded(result, tmp_path)
    assert configuration.settings.models[0].deployments[0].api_key == "literal-$ecret-$1"


def test_prices_are_the_same_money(tmp_path: Path) -> None:
    """USD per token there, per million here, without a float's dust."""
    result = import_litellm((Path(__file__).parent / "litellm" / "04_prices.yaml").read_bytes(), "x")
    price = loaded(result, tmp_path).settings.models[0].deployments[0].price
    assert price is not None
    tariff = price.tariff()
    assert (tariff.input, tariff.output, tariff.cached_read) == (3_000_000, 15_000_000, 300_000)
    assert (tariff.cache_write, price.factor()) == (3_750_000, (209, 200))


def test_an_unusable_address_leaves_the_deployment_out() -> None:
    """Without its address, a local model would become a paid call to a provider."""
    result = imported("model_list:\n- {model_name: a, litellm_params: {model: openai/a, api_base: localhost}}\n")
    assert "models" not in (yaml.safe_load(result.configuration) or {})
    assert {(f.status, f.path) for f in result.findings} >= {("manual", "model_list[0].litellm_params.api_base")}


def test_the_long_tail_goes_through_litellm() -> None:
    """With its name there, and LiteLLM's own arguments as headers; what is no line of text is left to the reader."""
    result = imported(
        "model_list: [{model_name: x, litellm_params: {model: llama, custom_llm_provider: predibase, api_key: os.environ/K,"
        ' api_version: "1", aws_region_name: "two\\nlines", organization: ""}}]'
    )
    (deployment,) = only(result)["deployments"]
    assert (deployment["provider"], deployment["model"], deployment["api_key"]) == (
        "litellm",
        "predibase/llama",
        "${K}",
    )
    assert deployment["headers"] == {"x-litellm-api-version": "1"}
    manual = {finding.path.rpartition(".")[2] for finding in result.findings if finding.status == "manual"}
    assert manual == {"aws_region_name", "organization"}


def test_the_router_has_the_last_word_and_deployments_the_first() -> None:
    """router_settings beats litellm_settings; what a deployment says stays."""
    result = imported(
        "model_list:\n- {model_name: a, litellm_params: {model: openai/a, timeout: 5}}\n"
        "litellm_settings: {num_retries: 1, request_timeout: 7}\nrouter_settings: {num_retries: 4, timeout: 9}\n"
    )
    assert only(result)["retries"] == {"attempts": 4}
    assert only(result)["timeouts"] == {"total_s": 5}


@pytest.mark.parametrize("text", ["just text", "- a\n- b\n", "a: [", "\tx: 1"])
def test_what_is_no_mapping_is_refused_with_a_reason(text: str) -> None:
    """The place in the file and what is wrong there, not half of a result."""
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        imported(text)


KEYS = [
    *sorted({*LIMITS, *SIZES, *TOKEN_PRICES, *UNIT_PRICES, *INHERENT, *MANUAL, *UNSUPPORTED}),
    "api_base", "api_key", "weight", "order", "timeout", "stream_timeout", "num_retries", "routing_strategy", "fallbacks",
    "default_fallbacks", "cache", "cache_params", "redis_host", "model_group_alias", "cost_discount_config", "extra_headers",
    "organization", "silent_model", "master_key", "json_logs", "set_verbose", "retry_after", "custom_llm_provider", "id", "$odd",
]  # fmt: skip
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-5, 10**15)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(
        [
            "os.environ/BASE",
            "http://h:1",
            "redis://h",
            "${A}",
            "1e-6",
            "yes",
            "chat",
            "a b",
            "*",
            "latency-based-routing",
        ]
    )
)
LISTS = st.lists(SCALARS, max_size=3)
MAPPINGS = st.dictionaries(st.sampled_from(["chat", "ttl", "openai", "url", "*"]), SCALARS | LISTS, max_size=3)
VALUES = SCALARS | LISTS | MAPPINGS | st.lists(MAPPINGS, max_size=2)
PART = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(params=PART, info=PART, router=PART, general=PART, lite=PART)
def test_whatever_stands_in_the_fields_the_result_loads(tmp_path: Path, **parts: dict[str, Any]) -> None:
    """Wrong values become findings, never a configuration that does not load, and no field is lost."""
    data = {
        "model_list": [
            {
                "model_name": "chat",
                "litellm_params": {"model": "openai/chat", **parts["params"]},
                "model_info": parts["info"],
            },
            {"model_name": "other", "litellm_params": {"model": "openai/other"}},
        ],
        "router_settings": parts["router"],
        "litellm_settings": parts["lite"],
        "general_settings": parts["general"],
    }
    result = imported(yaml.safe_dump(data))
    loaded(result, tmp_path)
    assert [field for field in fields(data) if not accounted(result, field)] == []


def test_the_command_prints_a_configuration_and_an_account(tmp_path: Path) -> None:
    """The result on stdout can be piped into a file, the report goes beside it; --json has both."""
    command = [sys.executable, "-m", "admin", "config", "import-litellm", str(CORPUS[0])]
    plain = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert yaml.safe_load(plain.stdout)["models"][0]["name"] == "gpt-4o"
    assert f"{CORPUS[0]}:5: converted" in plain.stderr
    out = tmp_path / "penstock.yaml"
    done = subprocess.run(
        [*command, "--json", "--output", str(out)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    told = json.loads(done.stdout)
    assert told["configuration"] == out.read_text() == plain.stdout
    assert sum(told["counts"].values()) == len(told["fields"])


def test_an_unreadable_file_is_the_only_failure(tmp_path: Path) -> None:
    """Exit code 1 with a line that says why."""
    command = [sys.executable, "-m", "admin", "config", "import-litellm", str(tmp_path / "none.yaml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "none.yaml" in done.stderr
