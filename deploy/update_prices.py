# ruff: noqa: INP001, T201 — a script, never imported as a package, that says what it did
"""Makes gateway/prices.jsonl anew from the price map that LiteLLM's wheel carries (MIT licence, © Berri AI).

    python deploy/update_prices.py [--wheel FILE] [--tokenizers DIR]

Without --wheel the newest one is fetched with pip into a temporary folder. Nothing of it is imported or run. --tokenizers also takes
OpenAI's token table o200k_base from it, under the name that tiktoken gives it in its cache folder.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1]))

from gateway.price_map import BUNDLED, Entry
from gateway.pricing import pico_per_token, pico_per_unit
from gateway.tariffs import Schedule, Tariff

SOURCE = "litellm/model_prices_and_context_window_backup.json"
TABLES = "litellm/litellm_core_utils/tokenizers/"
O200K = "fb374d419588a4632f3f557e76b4b70aebbca790"

# Whose models the catalogue can reach, now or through an adapter that is planned; the others would only be weight.
PROVIDERS = frozenset(
    {
        "openai", "text-completion-openai", "azure", "azure_text", "azure_ai", "anthropic", "gemini", "groq", "mistral", "codestral",
        "deepseek", "together_ai", "fireworks_ai", "fireworks_ai-embedding-models", "xai", "cohere", "cohere_chat", "perplexity",
        "nvidia_nim", "cerebras", "bedrock", "bedrock_converse", "vertex_ai", "voyage", "sambanova", "hyperbolic", "deepinfra",
        "moonshot", "zai", "dashscope", "minimax", "nebius", "novita", "friendliai", "baseten", "scaleway", "vercel_ai_gateway",
        "databricks", "ai21", "cloudflare", "oci", "replicate", "sagemaker", "snowflake", "volcengine", "watsonx",
    }
)  # fmt: skip
VERTEX = "vertex_ai-"

TOKEN_RATES = {
    "input": "input_cost_per_token",
    "output": "output_cost_per_token",
    "cached_read": "cache_read_input_token_cost",
    "cache_write": "cache_creation_input_token_cost",
    "cache_write_1h": "cache_creation_input_token_cost_above_1hr",
    "reasoning": "output_cost_per_reasoning_token",
    "audio_input": "input_cost_per_audio_token",
    "audio_output": "output_cost_per_audio_token",
    "image_input": "input_cost_per_image_token",
    "image_output": "output_cost_per_image_token",
}
SERVICES = {"batch": "_batches", "flex": "_flex", "priority": "_priority"}
CAPABILITIES = {
    "supports_function_calling": "tools",
    "supports_vision": "vision",
    "supports_reasoning": "reasoning",
    "supports_response_schema": "json_schema",
    "supports_prompt_caching": "cache",
    "supports_audio_input": "audio_input",
    "supports_audio_output": "audio_output",
    "supports_pdf_input": "pdf",
    "supports_web_search": "web_search",
}
_DATE = re.compile(r"^\d{4}-\d{2}-\d{2}$")
_TIER = re.compile(r"_above_(\d+)k_tokens")


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        wheel = arguments.wheel or _fetch(Path(folder))
        with zipfile.ZipFile(wheel) as archive:
            models: dict[str, dict[str, Any]] = json.loads(archive.read(SOURCE))
            if arguments.tokenizers is not None:
                arguments.tokenizers.mkdir(parents=True, exist_ok=True)
                (arguments.tokenizers / O200K).write_bytes(archive.read(TABLES + O200K))
    lines = sorted(_lines(models))
    arguments.output.write_bytes(b"".join(lines))
    print(f"{arguments.output.name}: {len(lines)} of {len(models)} models, {sum(map(len, lines)) // 1024} KiB")


def entry(model: Mapping[str, Any]) -> Entry:
    """One model of LiteLLM's map as ours."""
    return Entry(
        provider=model["litellm_provider"],
        mode=model.get("mode") or ("embedding" if "embedding" in model["litellm_provider"] else "chat"),
        schedule=schedule(model),
        max_input_tokens=_size(model, "max_input_tokens") or _size(model, "max_tokens"),
        max_output_tokens=_size(model, "max_output_tokens"),
        capabilities=tuple(ours for theirs, ours in CAPABILITIES.items() if model.get(theirs) is True),
        deprecated=_date(model.get("deprecation_date")),
    )


def schedule(model: Mapping[str, Any]) -> Schedule | None:
    """Its price; None where the map has none, or one that makes input or output free without saying so."""
    base = _tariff(model, "")
    ranges = model.get("tiered_pricing") or ()
    stated = [(int(part["range"][0]), _tariff(part, "")) for part in ranges if "range" in part]
    if stated and stated[0][0] == 0 and base.input is None:
        base, stated = stated[0][1], stated[1:]
    if not any(msgspec.structs.astuple(base)):
        return Schedule(base) if model.get("mode") == "moderation" and base.input is not None else None  # it is free
    if base.input and not base.output and model.get("mode") in {"chat", "responses", "completion"}:
        return None
    services = {name: _service(model, suffix) for name, suffix in SERVICES.items()}
    return Schedule(
        base,
        tuple(stated) + _tiers(model, ""),
        {name: service for name, service in services.items() if service is not None},
    )


def _service(model: Mapping[str, Any], suffix: str) -> Schedule | None:
    tariff, tiers = _tariff(model, suffix), _tiers(model, suffix)
    return Schedule(tariff, tiers) if tiers or tariff != Tariff() else None


def _tiers(model: Mapping[str, Any], suffix: str) -> tuple[tuple[int, Tariff], ...]:
    sizes = sorted({int(match[1]) for name in model if (match := _TIER.search(name))})
    made = [(size * 1000, _tariff(model, f"_above_{size}k_tokens{suffix}")) for size in sizes]
    return tuple((above, tariff) for above, tariff in made if tariff != Tariff())


def _tariff(model: Mapping[str, Any], suffix: str) -> Tariff:
    rates: dict[str, int] = {}
    for ours, theirs in TOKEN_RATES.items():
        value = model.get(theirs + suffix)
        # A write to a cache for nothing only says that the provider does not bill it apart from the input.
        if isinstance(value, int | float) and value >= 0 and (value or not ours.startswith("cache_write")):
            rates[ours] = pico_per_token(float(f"{value * 1_000_000:.9g}"))
    if not suffix:
        rates |= _units(model, has_tokens=bool(rates.get("input") or rates.get("audio_input")))
    return Tariff(**rates)


def _units(model: Mapping[str, Any], *, has_tokens: bool) -> dict[str, int]:
    """Per image, second, character, query. Seconds and characters of models that bill by the token only restate the token's price."""

    def dearest(*names: str) -> float:
        return max((value for name in names if isinstance(value := model.get(name), int | float)), default=0)

    found = {"image": dearest("output_cost_per_image", "input_cost_per_image") if model.get("mode") != "chat" else 0}
    found["request"] = dearest("input_cost_per_request")
    found["search_unit"] = dearest("input_cost_per_query") or _search(model)
    if not has_tokens:
        found["second"] = dearest("input_cost_per_second", "output_cost_per_second")
        found["character"] = dearest("input_cost_per_character")
    return {name: pico_per_unit(value) for name, value in found.items() if value > 0}


def _search(model: Mapping[str, Any]) -> float:
    prices = model.get("search_context_cost_per_query")
    return max(prices.values(), default=0) if isinstance(prices, Mapping) else 0


def _size(model: Mapping[str, Any], name: str) -> int | None:
    value = model.get(name)
    return int(value) if isinstance(value, int | float) and value > 0 else None


def _date(value: object) -> str | None:
    return value if isinstance(value, str) and _DATE.match(value) else None


def _lines(models: Mapping[str, Mapping[str, Any]]) -> Iterator[bytes]:
    for name, model in models.items():
        provider = model.get("litellm_provider", "")
        if provider in PROVIDERS or provider.startswith(VERTEX):
            made = entry(model)
            if made.schedule is not None or made.max_input_tokens or made.max_output_tokens:
                yield b"%b\t%b\n" % (name.encode(), msgspec.json.encode(made))


def _fetch(folder: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary",
        ":all:",
        "litellm",
        "-d",
        str(folder),
    ]
    subprocess.run(command, check=True)  # noqa: S603 — a fixed command
    return next(folder.glob("litellm-*.whl"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheel", type=Path, help="a wheel of litellm that is there already")
    parser.add_argument("--tokenizers", type=Path, metavar="DIR", help="also put OpenAI's token tables here")
    parser.add_argument("--output", type=Path, default=BUNDLED)
    return parser.parse_args()


if __name__ == "__main__":
    main()
