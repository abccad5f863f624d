"""Who can stand behind a model, as data that discovery and checks read.

A row never acts. Another provider that speaks OpenAI's API is one more row; those that have one of their own stand in
`gateway.dialects.registry` as well.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec


class Provider(msgspec.Struct, frozen=True):
    """`wildcards` are public names that mean this provider alone; each also answers under `<name>/*`.

    `base_url` of None: every deployment names its own. `example` is a chat model that a fresh key can usually reach.
    `input_types`: what it calls questions and passages, where its embedding models have to be told.
    `responses`: at its own address it speaks `/v1/responses`, too.
    `renames`: OpenAI's names for fields and what they are called there; `omits`: hints of OpenAI's API that it refuses as unknown.
    `litellm` is LiteLLM's prefix for a provider that is only reached through it, empty where a model's name has the prefix itself.
    """

    name: str
    owned_by: str
    base_url: str | None = None
    env: str | None = None
    base_url_env: str | None = None
    wildcards: tuple[str, ...] = ()
    local_port: int | None = None
    key_required: bool = True
    auth: Literal["bearer", "api-key"] = "bearer"
    example: str | None = None
    litellm: str | None = None
    responses: bool = False
    input_types: tuple[str, str] | None = None
    renames: tuple[tuple[str, str], ...] = ()
    omits: tuple[str, ...] = ()

    @property
    def placed(self) -> bool:
        """Whether a deployment may do without a `base_url`."""
        return self.base_url is not None or self.litellm is not None or self.name in IN_PROCESS


# Never sent anywhere, and free: the embedding engine and the models that quote and rerank run in this process.
EMBEDDED = "embedded"
SENTENCE_TRANSFORMERS = "sentence-transformers"  # models of its own in this process, on a GPU where there is one
QUOTES = "quotes"
QUOTES_MODEL = "penstock/quotes"
RERANKER = "reranker"
RERANKER_MODEL = "penstock/rerank"
DISTILLED = "distilled"  # classic models that answer chats; the deployment's `model` is one of the registry
IN_PROCESS = frozenset((EMBEDDED, SENTENCE_TRANSFORMERS, QUOTES, RERANKER, DISTILLED))

# Servers that know the limit of an answer by its old name alone: they ignore the new one, and write on, or refuse it.
_LIMIT = (("max_completion_tokens", "max_tokens"),)

# An exact name stands beside its pattern where the bare name is a model, because `*` matches at least one character.
_EVERY = (
    Provider(
        "openai",
        "openai",
        "https://api.openai.com/v1",
        env="OPENAI_API_KEY",
        base_url_env="OPENAI_BASE_URL",
        wildcards=(
            "gpt-*",
            "chatgpt-*",
            "o1",
            "o1-*",
            "o3",
            "o3-*",
            "o4-*",
            "text-embedding-*",
            "omni-moderation-*",
            "tts-*",
            "whisper-*",
        ),
        key_required=False,  # "any compatible URL": many of them ask for none
        example="gpt-4o-mini",
        responses=True,
    ),
    Provider(
        "anthropic",
        "anthropic",
        "https://api.anthropic.com/v1",
        env="ANTHROPIC_API_KEY",
        wildcards=("claude-*",),
        example="claude-haiku-4-5",
    ),
    Provider(
        "gemini",
        "google",
        "https://generativelanguage.googleapis.com/v1beta",
        env="GEMINI_API_KEY",
        wildcards=("gemini-*",),
        example="gemini-3.5-flash",
    ),
    Provider(
        "azure",
        "azure",
        env="AZURE_OPENAI_API_KEY",
        auth="api-key",
    ),
    Provider(
        "groq",
        "groq",
        "https://api.groq.com/openai/v1",
        env="GROQ_API_KEY",
        example="groq/openai/gpt-oss-20b",
    ),
    Provider(
        "mistral",
        "mistralai",
        "https://api.mistral.ai/v1",
        env="MISTRAL_API_KEY",
        wildcards=("mistral-*", "ministral-*", "magistral-*", "codestral-*", "devstral-*"),
        example="mistral-small-latest",
        renames=(*_LIMIT, ("seed", "random_seed")),
        omits=(  # usage comes with every stream
            "stream_options",
            "store",
            "user",
            "safety_identifier",
            "prompt_cache_key",
            "prompt_cache_options",
            "prompt_cache_retention",
            "service_tier",
        ),
    ),
    Provider(
        "deepseek",
        "deepseek",
        "https://api.deepseek.com/v1",
        env="DEEPSEEK_API_KEY",
        wildcards=("deepseek-*",),
        example="deepseek-v4-flash",
        renames=_LIMIT,
    ),
    Provider(
        "together",
        "together",
        "https://api.together.xyz/v1",
        env="TOGETHER_API_KEY",
        example="together/openai/gpt-oss-20b",
        renames=_LIMIT,
    ),
    Provider(
        "fireworks",
        "fireworks",
        "https://api.fireworks.ai/inference/v1",
        env="FIREWORKS_API_KEY",
        example="fireworks/accounts/fireworks/models/llama-v3p3-70b-instruct",
    ),
    Provider(
        "openrouter",
        "openrouter",
        "https://openrouter.ai/api/v1",
        env="OPENROUTER_API_KEY",
        example="openrouter/openai/gpt-4o-mini",
    ),
    Provider(
        "xai",
        "xai",
        "https://api.x.ai/v1",
        env="XAI_API_KEY",
        wildcards=("grok-*",),
        example="grok-4.5",
    ),
    Provider(
        "cohere",
        "cohere",
        "https://api.cohere.ai/compatibility/v1",
        env="COHERE_API_KEY",
        wildcards=("command-*", "rerank-*"),
        example="command-r7b-12-2024",
        renames=_LIMIT,
    ),
    Provider(
        "perplexity",
        "perplexity",
        "https://api.perplexity.ai",
        env="PERPLEXITY_API_KEY",
        wildcards=("sonar", "sonar-*"),
        example="sonar",
        renames=_LIMIT,
    ),
    Provider(
        "nvidia",
        "nvidia",
        "https://integrate.api.nvidia.com/v1",
        env="NVIDIA_API_KEY",
        example="nvidia/meta/llama-3.1-8b-instruct",
        input_types=("query", "passage"),
    ),
    Provider(
        "cerebras",
        "cerebras",
        "https://api.cerebras.ai/v1",
        env="CEREBRAS_API_KEY",
        example="cerebras/gpt-oss-120b",
    ),
    Provider(
        "sambanova",
        "sambanova",
        "https://api.sambanova.ai/v1",
        env="SAMBANOVA_API_KEY",
        example="sambanova/Meta-Llama-3.3-70B-Instruct",
    ),
    Provider(
        "hyperbolic",
        "hyperbolic",
        "https://api.hyperbolic.xyz/v1",
        env="HYPERBOLIC_API_KEY",
        example="hyperbolic/meta-llama/Llama-3.3-70B-Instruct",
    ),
    Provider(
        "deepinfra",
        "deepinfra",
        "https://api.deepinfra.com/v1/openai",
        env="DEEPINFRA_API_KEY",
        example="deepinfra/meta-llama/Llama-3.3-70B-Instruct-Turbo",
    ),
    Provider(
        "moonshot",
        "moonshotai",
        "https://api.moonshot.ai/v1",
        env="MOONSHOT_API_KEY",
        wildcards=("kimi-*", "moonshot-*"),
        example="kimi-k2.5",
    ),
    Provider(
        "zai",
        "zai",
        "https://api.z.ai/api/paas/v4",
        env="ZAI_API_KEY",
        wildcards=("glm-*",),
        example="glm-4.7",
        renames=_LIMIT,
    ),
    Provider(
        "dashscope",
        "alibaba",
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        env="DASHSCOPE_API_KEY",
        wildcards=("qwen-*", "qwen3-*", "qwq-*"),
        example="qwen-plus",
    ),
    Provider(
        "minimax",
        "minimax",
        "https://api.minimax.io/v1",
        env="MINIMAX_API_KEY",
        wildcards=("MiniMax-*",),
        example="MiniMax-M2.5",
    ),
    Provider(
        "huggingface",
        "huggingface",
        "https://router.huggingface.co/v1",
        env="HUGGINGFACE_API_KEY",  # not HF_TOKEN, which is set to download with, not to pay with
        example="huggingface/meta-llama/Llama-3.3-70B-Instruct",
    ),
    Provider(
        "nebius",
        "nebius",
        "https://api.tokenfactory.nebius.com/v1",
        env="NEBIUS_API_KEY",
        example="nebius/meta-llama/Llama-3.3-70B-Instruct",
    ),
    Provider(
        "novita",
        "novita",
        "https://api.novita.ai/openai/v1",
        env="NOVITA_API_KEY",
        example="novita/meta-llama/llama-3.3-70b-instruct",
    ),
    Provider(
        "siliconflow",
        "siliconflow",
        "https://api.siliconflow.com/v1",
        env="SILICONFLOW_API_KEY",
        example="siliconflow/Qwen/Qwen3-8B",
    ),
    Provider(
        "friendli",
        "friendli",
        "https://api.friendli.ai/serverless/v1",
        env="FRIENDLI_TOKEN",
        example="friendli/zai-org/GLM-5.3-Flash",
    ),
    Provider(
        "baseten",
        "baseten",
        "https://inference.baseten.co/v1",
        env="BASETEN_API_KEY",
        example="baseten/openai/gpt-oss-120b",
    ),
    Provider(
        "scaleway",
        "scaleway",
        "https://api.scaleway.ai/v1",
        env="SCW_SECRET_KEY",
        example="scaleway/llama-3.3-70b-instruct",
    ),
    Provider(
        "vercel",
        "vercel",
        "https://ai-gateway.vercel.sh/v1",
        env="AI_GATEWAY_API_KEY",
        example="vercel/openai/gpt-4o-mini",
    ),
    Provider("databricks", "databricks", env="DATABRICKS_TOKEN"),  # https://<workspace>/serving-endpoints
    Provider("vllm", "vllm", "http://127.0.0.1:8000/v1", local_port=8000, key_required=False),
    Provider(
        "ollama",
        "ollama",
        "http://127.0.0.1:11434/v1",
        base_url_env="OLLAMA_HOST",
        local_port=11434,
        key_required=False,
        renames=_LIMIT,
    ),
    Provider("llamacpp", "llamacpp", "http://127.0.0.1:8080/v1", local_port=8080, key_required=False, renames=_LIMIT),
    Provider("lmstudio", "lmstudio", "http://127.0.0.1:1234/v1", local_port=1234, key_required=False, renames=_LIMIT),
    Provider("sglang", "sglang", "http://127.0.0.1:30000/v1", local_port=30000, key_required=False),
    Provider("tgi", "tgi", "http://127.0.0.1:3000/v1", local_port=3000, key_required=False),
    Provider("litellm", "litellm", key_required=False, litellm=""),
    Provider("bedrock", "amazon", key_required=False, litellm="bedrock/"),
    Provider("vertex_ai", "google", key_required=False, litellm="vertex_ai/"),
    Provider("azure_ai", "azure", key_required=False, litellm="azure_ai/"),
    Provider("sagemaker", "amazon", key_required=False, litellm="sagemaker/"),
    Provider("watsonx", "ibm", key_required=False, litellm="watsonx/"),
    Provider("oci", "oracle", key_required=False, litellm="oci/"),
    Provider("snowflake", "snowflake", key_required=False, litellm="snowflake/"),
    Provider("cloudflare", "cloudflare", key_required=False, litellm="cloudflare/"),
    Provider("replicate", "replicate", key_required=False, litellm="replicate/"),
    Provider(EMBEDDED, "penstock", key_required=False),
    Provider(SENTENCE_TRANSFORMERS, "penstock", key_required=False, input_types=("query", "document")),
    Provider(QUOTES, "penstock", key_required=False),
    Provider(RERANKER, "penstock", key_required=False),
    Provider(DISTILLED, "penstock", key_required=False),
)

PROVIDERS: Mapping[str, Provider] = {provider.name: provider for provider in _EVERY}
