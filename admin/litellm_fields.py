"""LiteLLM's configuration as data: what each of its words is here, or why it is nothing here.

The fields are those that LiteLLM's documentation names for `config.yaml`; what is in no table is reported as unknown.
"""

from collections.abc import Mapping
from typing import Literal

Status = Literal["exact", "converted", "manual", "unsupported"]

# Prefix of `litellm_params.model` → our provider.
PROVIDERS: Mapping[str, str] = {
    "openai": "openai",
    "text-completion-openai": "openai",
    "custom_openai": "openai",
    "openai_like": "openai",
    "litellm_proxy": "openai",
    "azure": "azure",
    "azure_text": "azure",
    "anthropic": "anthropic",
    "gemini": "gemini",
    "groq": "groq",
    "mistral": "mistral",
    "codestral": "mistral",
    "deepseek": "deepseek",
    "together_ai": "together",
    "fireworks_ai": "fireworks",
    "openrouter": "openrouter",
    "xai": "xai",
    "cohere": "cohere",
    "cohere_chat": "cohere",
    "perplexity": "perplexity",
    "nvidia_nim": "nvidia",
    "cerebras": "cerebras",
    "vllm": "vllm",
    "hosted_vllm": "vllm",
    "ollama": "ollama",
    "ollama_chat": "ollama",
    "llamafile": "llamacpp",
    "lm_studio": "lmstudio",
    "baseten": "baseten",
    "dashscope": "dashscope",
    "databricks": "databricks",
    "deepinfra": "deepinfra",
    "friendliai": "friendli",
    "hyperbolic": "hyperbolic",
    "minimax": "minimax",
    "moonshot": "moonshot",
    "nebius": "nebius",
    "novita": "novita",
    "sambanova": "sambanova",
    "scaleway": "scaleway",
    "vercel_ai_gateway": "vercel",
    "zai": "zai",
    "azure_ai": "azure_ai",
    "bedrock": "bedrock",
    "cloudflare": "cloudflare",
    "oci": "oci",
    "replicate": "replicate",
    "sagemaker": "sagemaker",
    "snowflake": "snowflake",
    "vertex_ai": "vertex_ai",
    "watsonx": "watsonx",
}
# LiteLLM's prefixes of providers that are reached through it here as well; any other prefix may be a part of a model's name.
OTHER_PROVIDERS = frozenset(
    {
        "ai21", "aleph_alpha", "anyscale", "bedrock_converse", "bytez", "clarifai", "datarobot", "deepgram", "elevenlabs", "fal_ai",
        "featherless_ai", "galadriel", "github", "github_copilot", "huggingface", "infinity", "jina_ai", "lambda_ai", "lemonade",
        "maritalk", "meta_llama", "nlp_cloud", "nscale", "oobabooga", "petals", "predibase", "recraft", "sagemaker_chat", "topaz",
        "triton", "vertex_ai_beta", "volcengine", "voyage", "wandb", "watsonx_text", "xinference",
    }
)  # fmt: skip
# How LiteLLM's arguments begin that only some of those providers have: they become headers of the deployment, too.
OTHER_ARGUMENTS = (
    "api_version", "aws_", "azure_ad_", "oci_", "project_id", "region_name", "snowflake_", "space_id", "vertex_", "watsonx_"
)  # fmt: skip
HEADERS = frozenset({"extra_headers", "headers", "organization"})
# Bare names whose provider LiteLLM knows by heart.
BARE_NAMES: tuple[tuple[str, str], ...] = (
    ("claude", "anthropic"),
    ("command-", "cohere"),
    ("sonar", "perplexity"),
    ("deepseek-", "deepseek"),
    ("gpt-", "openai"),
    ("chatgpt-", "openai"),
    ("o1", "openai"),
    ("o3", "openai"),
    ("o4", "openai"),
    ("text-embedding-", "openai"),
)
STRATEGIES: Mapping[str, str] = {
    "simple-shuffle": "weighted",
    "least-busy": "least_busy",
    "usage-based-routing": "usage",
    "usage-based-routing-v2": "usage",
    "latency-based-routing": "latency",
    "cost-based-routing": "cost",
}
LIMITS: Mapping[str, str] = {"rpm": "rpm", "tpm": "tpm", "max_parallel_requests": "parallel"}
SIZES: Mapping[str, str] = {"max_input_tokens": "max_input_tokens", "max_output_tokens": "max_output_tokens"}
TOKEN_PRICES: Mapping[str, str] = {  # USD per token there, per million here
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cached_input",
    "cache_creation_input_token_cost": "cache_write",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
    "output_cost_per_reasoning_token": "reasoning",
    "input_cost_per_audio_token": "audio_input",
    "output_cost_per_audio_token": "audio_output",
    "input_cost_per_image_token": "image_input",
    "output_cost_per_image_token": "image_output",
}
UNIT_PRICES: Mapping[str, str] = {  # USD per unit in both
    "input_cost_per_second": "per_second",
    "output_cost_per_second": "per_second",
    "input_cost_per_character": "per_character",
    "output_cost_per_image": "per_image",
    "input_cost_per_request": "per_request",
    "input_cost_per_query": "per_search_unit",
}
FALLBACKS: Mapping[str, str] = {
    "fallbacks": "fallbacks",
    "context_window_fallbacks": "context_fallbacks",
    "content_policy_fallbacks": "content_fallbacks",
}

_KEYS = "name the models that a key may use in its `models`: POST /admin/v1/keys"
_BUDGETS = "make it a budget: POST /admin/v1/budgets"
_LIMITS = "make it a limit of the keys or teams that it is for"
_UNCHANGED = "requests reach the upstream as the client sent them"

# What needs a person, with the way to go, by the last word of its path.
MANUAL: Mapping[str, str] = {
    "max_budget": _BUDGETS,
    "budget_duration": _BUDGETS,
    "max_end_user_budget": _BUDGETS,
    "max_end_user_budget_id": _BUDGETS,
    "max_user_budget": _BUDGETS,
    "internal_user_budget_duration": _BUDGETS,
    "max_internal_user_budget": _BUDGETS,
    "provider_budget_config": _BUDGETS,
    "default_key_generate_params": "set it with each key",
    "upperbound_key_generate_params": "set it with each key",
    "default_team_settings": "set it with each team",
    "default_internal_user_params": "set it with each user",
    "access_groups": _KEYS,
    "default_team_params": "set it with each team",
    "global_max_parallel_requests": _LIMITS,
    "base_model": "name the price of the base model in the deployment's `price`",
    "tags": "clients name tags in x-penstock-tags; choosing deployments by them has no counterpart yet",
    "include": "import each included file by itself and join the results",
    "alerting": "alerts are set per budget",
    "alerting_threshold": "alerts are set per budget",
    "alert_types": "alerts are set per budget",
    "alert_to_webhook_url": "alerts are set per budget",
    "alerting_args": "alerts are set per budget",
    "database_url": "its tables are LiteLLM's own; name an empty database in `database_url`, or leave it out for SQLite",
    "environment_variables": "set them in the environment of the server",
    "allowed_routes": "give each key the routes and models that it needs",
    "public_routes": "only /health and the console's sign-in answer without a key",
    "guardrails": "guards are set up apart",
    "prompts": "prompts are set up apart",
    "vector_store_registry": "collections are set up apart",
    "mcp_servers": "tool servers are not carried over",
    "allowed_ips": "let the network decide",
    "max_request_size_mb": "server.limits.body_mb",
    "ui_username": "sign in with the admin key or single sign-on",
    "ui_password": "sign in with the admin key or single sign-on",
}
# What has no counterpart, with what happens instead.
UNSUPPORTED: Mapping[str, str] = {
    "drop_params": _UNCHANGED,
    "modify_params": _UNCHANGED,
    "additional_drop_params": _UNCHANGED,
    "max_tokens": f"{_UNCHANGED}; clients name it",
    "temperature": f"{_UNCHANGED}; clients name it",
    "top_p": f"{_UNCHANGED}; clients name it",
    "extra_body": _UNCHANGED,
    "mock_response": "there are no made-up answers",
    "region_name": "regions are not told apart; name the region's address in `base_url`",
    "allowed_fails": "a deployment that fails is left alone by a rule of its own",
    "allowed_fails_policy": "a deployment that fails is left alone by a rule of its own",
    "cooldown_time": "a deployment that fails is left alone by a rule of its own",
    "disable_cooldowns": "a deployment that fails is left alone by a rule of its own",
    "retry_policy": "what is worth a retry is decided by the kind of error",
    "model_group_retry_policy": "what is worth a retry is decided by the kind of error",
    "max_fallbacks": "every fallback is tried once",
    "enable_pre_call_checks": "a prompt that is too long goes to `context_fallbacks`",
    "optional_pre_call_checks": "a prompt that is too long goes to `context_fallbacks`",
    "enable_tag_filtering": "deployments are not chosen by tags",
    "tag_filtering_match_any": "deployments are not chosen by tags",
    "routing_strategy_args": "strategies have no settings",
    "background_health_checks": "deployments are watched through their traffic",
    "health_check_interval": "deployments are watched through their traffic",
    "health_check_details": "deployments are watched through their traffic",
    "proxy_batch_write_at": "the ledger is written at once",
    "database_connection_pool_limit": "connections are few and fixed",
    "database_connection_timeout": "connections are few and fixed",
    "allow_requests_on_db_unavailable": "what happens without the database is documented, not set",
    "disable_budget_reservation": "budgets are always held before a call",
    "fail_closed_budget_enforcement": "budgets are always held before a call",
    "pass_through_endpoints": "every path is metered or refused",
    "forward_client_headers_to_llm_api": "clients' headers stay here",
    "enforce_user_param": "the `user` field stays optional",
    "callbacks": "figures are on /metrics, traces over OpenTelemetry",
    "success_callback": "figures are on /metrics, traces over OpenTelemetry",
    "failure_callback": "figures are on /metrics, traces over OpenTelemetry",
    "service_callback": "figures are on /metrics, traces over OpenTelemetry",
    "custom_auth": "no code is loaded from a configuration",
    "custom_key_generate": "no code is loaded from a configuration",
}
# What is so anyway: the setting says what Penstock does without one, if its value is the one given here (None: any value).
INHERENT: Mapping[str, tuple[object, str]] = {
    "store_model_in_db": (None, "models are in the database, and the file seeds them"),
    "turn_off_message_logging": (True, "texts are never logged"),
    "redact_messages_in_exceptions": (True, "texts are never logged"),
    "redact_user_api_key_info": (True, "keys are never logged"),
    "always_include_stream_usage": (None, "usage is always asked for, and shown to clients that asked"),
    "disable_spend_logs": (False, "requests are recorded; `records.enabled` turns it off"),
    "telemetry": (None, "nothing is reported to anyone"),
    "mode": (None, "the path of a call says what it is"),
    "token_rate_limit_type": (None, "limits count input and output, each or both"),
    "custom_llm_provider": (None, "the provider is named apart from the model"),
    "num_workers": (None, "`server.workers`"),
}


def is_header(field: str, *, through: bool) -> bool:
    """`through`: the provider is reached through LiteLLM."""
    return field in HEADERS or (through and field.startswith(OTHER_ARGUMENTS))


def header(field: str, value: object) -> str | None:
    """The header that stands for a field with one value; None for what cannot be in one."""
    if not isinstance(value, str | int) or not str(value).strip() or not str(value).isprintable():
        return None
    if field == "organization":
        return "openai-organization"
    return f"x-litellm-{field.replace('_', '-')}" if field.startswith(OTHER_ARGUMENTS) else None
