"""Which provider has an API of its own. All others speak OpenAI's, and their bytes go through unread."""

import secrets
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from gateway.dialect import Dialect
from gateway.dialects.anthropic import Anthropic
from gateway.dialects.gemini import Gemini

DIALECTS: Final[Mapping[str, Dialect]] = MappingProxyType(
    {"anthropic": Anthropic(time.time), "gemini": Gemini(time.time, lambda: secrets.token_hex(12))}
)
