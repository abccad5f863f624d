"""What providers charge and what their models take: the bundled map, looked up by provider and the model's name there.

The map is a sorted text file, one model a line, made by `deploy/update_prices.py`. It is searched in place: nothing is parsed but the
lines that are asked for, so that it costs no start-up time and no memory until a deployment without a price of its own asks.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import final

import msgspec

from gateway.catalog import Deployment
from gateway.pricing import compile_price, fixed_price
from gateway.tariffs import Price, Schedule, Terms

BUNDLED = Path(__file__).with_name("prices.jsonl")
MAX_KEPT = 2048  # names asked for under wildcards come from clients

# How the map's keys begin for a provider of ours; OpenAI's and Anthropic's models stand there under their bare names.
PREFIXES: Mapping[str, tuple[str, ...]] = {
    "openai": ("",),
    "anthropic": ("",),
    "gemini": ("gemini/",),
    "azure": ("azure/", ""),
    "groq": ("groq/",),
    "mistral": ("mistral/",),
    "deepseek": ("deepseek/",),
    "together": ("together_ai/",),
    "fireworks": ("fireworks_ai/", "fireworks_ai/accounts/fireworks/models/"),
    "openrouter": ("openrouter/",),
    "xai": ("xai/",),
    "cohere": ("cohere/", ""),
    "perplexity": ("perplexity/",),
    "nvidia": ("nvidia_nim/",),
    "cerebras": ("cerebras/",),
    "sambanova": ("sambanova/",),
    "hyperbolic": ("hyperbolic/",),
    "deepinfra": ("deepinfra/",),
    "moonshot": ("moonshot/",),
    "zai": ("zai/",),
    "dashscope": ("dashscope/",),
    "minimax": ("minimax/",),
    "nebius": ("nebius/",),
    "novita": ("novita/",),
    "friendli": ("friendliai/",),
    "baseten": ("baseten/",),
    "scaleway": ("scaleway/",),
    "vercel": ("vercel_ai_gateway/",),
    "databricks": ("databricks/",),
    "bedrock": ("", "bedrock/"),
    "vertex_ai": ("vertex_ai/",),
    "azure_ai": ("azure_ai/",),
    "sagemaker": ("sagemaker/",),
    "watsonx": ("watsonx/",),
    "oci": ("oci/",),
    "snowflake": ("snowflake/",),
    "cloudflare": ("cloudflare/",),
    "replicate": ("replicate/",),
    "litellm": ("",),
}
# A dated release of a model whose price is listed under its plain name: -2024-08-06, -20241022, -0613, @20241022, -001, -latest.
_DATED = re.compile(r"(?:[-@](?:\d{4}-\d{2}-\d{2}|\d{8}|\d{6}|\d{4}|\d{3})|-latest)$")
_REGION = re.compile(r"^(?:us|eu|global|apac|jp|au)[./]")
OWN_ADDRESS = frozenset({"openai"})  # also means "any compatible URL"


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One model of the map. `schedule` of None: its sizes are known, its price is not. `provider`: as LiteLLM calls it."""

    provider: str
    mode: str = "chat"
    schedule: Schedule | None = None
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None
    capabilities: tuple[str, ...] = ()
    deprecated: str | None = None  # the day from which on its provider no longer offers it


class Quote(msgspec.Struct, frozen=True):
    """A model's price and sizes, as one deployment serves it. A `price` of None: unknown, and the terms say what follows."""

    price: Price | None = None
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None


_entry = msgspec.json.Decoder(Entry)


@final
class PriceMap:
    """Opens its file with the first question. Answers are kept, bounded, also the ones that are empty."""

    def __init__(self, file: Path = BUNDLED) -> None:
        self._file = file
        self._text: bytes | None = None
        self._entries: dict[tuple[str, str], Entry | None] = {}
        self._quotes: dict[tuple[str, str], tuple[Deployment, Quote]] = {}

    def find(self, provider: str, model: str) -> Entry | None:
        """The entry of a provider's model; a dated release without one of its own is its plain name's."""
        key = (provider, model)
        if key in self._entries:
            return self._entries[key]
        found = next((entry for name in keys(provider, model) if (entry := self._line(name)) is not None), None)
        if len(self._entries) >= MAX_KEPT:
            self._entries.clear()
        self._entries[key] = found
        return found

    def quote(self, deployment: Deployment, name: str) -> Quote:
        """Price and sizes for `name` on `deployment`; `name` is what stands for the `*` of a target that has one."""
        if "*" not in deployment.target:
            return Quote(deployment.price, deployment.max_input_tokens, deployment.max_output_tokens)
        key = (deployment.id, name)
        known = self._quotes.get(key)
        if known is not None and known[0] is deployment:
            return known[1]
        made = self._quoted(deployment, name)
        if len(self._quotes) >= MAX_KEPT:
            self._quotes.clear()
        self._quotes[key] = (deployment, made)
        return made

    def _quoted(self, deployment: Deployment, name: str) -> Quote:
        entry = self.find(deployment.provider, deployment.target.replace("*", name))
        price = deployment.price or price_under(entry.schedule if entry is not None else None, deployment.terms)
        return Quote(
            price,
            deployment.max_input_tokens or (entry.max_input_tokens if entry is not None else None),
            deployment.max_output_tokens or (entry.max_output_tokens if entry is not None else None),
        )

    def _line(self, name: str) -> Entry | None:
        """The lines are sorted by their first field as bytes: a search by halves, each step at the start of a line."""
        if self._text is None:
            self._text = (
                self._file.read_bytes()
            )  # not mapped: a file that is written anew in place would change under us
        text, wanted = self._text, name.encode("utf-8", "surrogatepass")
        low, high = 0, len(text)
        while low < high:
            start = text.rfind(b"\n", low, (low + high) // 2) + 1 or low
            end = text.find(b"\n", start)
            if end < 0:  # the last line has no end
                end = len(text)
            tab = text.find(b"\t", start, end)
            key = text[start:tab]
            if key == wanted:
                return _entry.decode(text[tab + 1 : end])
            if key < wanted:
                low = end + 1
            else:
                high = start
        return None


def price_under(schedule: Schedule | None, terms: Terms) -> Price | None:
    """The price in force: the one that is stated or known, else what the terms hold for a call, else none."""
    if schedule is not None:
        return compile_price(schedule, terms.factor)
    return fixed_price(terms.hold_nanousd) if terms.unknown == "hold" else None


def keys(provider: str, model: str) -> Iterator[str]:
    """The names under which the map may have a model, the most exact one first."""
    plain = model.removeprefix("openai/") if provider in OWN_ADDRESS else model.removeprefix(f"{provider}/")
    names = [plain]
    if (undated := _DATED.sub("", plain)) != plain:
        names.append(undated)
    if provider in {"bedrock", "azure"} and (anywhere := _REGION.sub("", plain)) != plain:
        names.append(anywhere)
    prefixes = PREFIXES.get(provider, ())
    for name in names:
        for prefix in prefixes:
            yield prefix + name
