"""OpenTelemetry's names for what happens in a gateway: the semantic conventions for GenAI, HTTP and errors.

https://github.com/open-telemetry/semantic-conventions-genai (status Development, read 2026-11); what they have no name for is `penstock.*`.
"""

from collections.abc import Mapping
from typing import Final

SCOPE: Final = "penstock"
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.37.0"

OPERATIONS: Final[Mapping[str, str]] = {
    "chat": "chat",
    "responses": "chat",
    "messages": "chat",
    "realtime": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
    "rerank": "rerank",
    "mcp": "execute_tool",
    "rounds": "invoke_agent",
}
"""By endpoint. The conventions' own words where they have one; other endpoints stand for themselves."""

PROVIDERS: Final[Mapping[str, str]] = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "vertex_ai": "gcp.vertex_ai",
    "mistral": "mistral_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
"""Where a provider here has another name there."""

ROUTES: Final[Mapping[str, str]] = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
    "count_tokens": "/v1/messages/count_tokens",
    "rerank": "/v1/rerank",
    "moderations": "/v1/moderations",
    "speech": "/v1/audio/speech",
    "transcriptions": "/v1/audio/transcriptions",
    "translations": "/v1/audio/translations",
    "image_generations": "/v1/images/generations",
    "image_edits": "/v1/images/edits",
    "image_variations": "/v1/images/variations",
    "realtime": "/v1/realtime",
    "mcp": "/mcp",
    "rounds": "/v1/responses",
    "retrieval": "/v1/vector_stores/{vector_store_id}/search",
}
"""By endpoint: the path that it is called at. Of passed-through APIs the endpoint's name is told instead."""

DURATION_S: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
FIRST_TOKEN_S: Final = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
)
PER_TOKEN_S: Final = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
TOKENS: Final = tuple(float(4**power) for power in range(14))  # 1 … 67108864
OVERHEAD_S: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0)


def operation(endpoint: str) -> str:
    return OPERATIONS.get(endpoint, endpoint)


def provider(name: str | None) -> str:
    """`_OTHER`, where no upstream was chosen: the conventions require a value."""
    return "_OTHER" if name is None else PROVIDERS.get(name, name)


def route(endpoint: str) -> str:
    return ROUTES.get(endpoint, endpoint)
