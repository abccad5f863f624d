"""The paths of APIs beside OpenAI's, each with its front."""

import secrets
from typing import Final

from gateway.endpoint import Endpoint
from gateway.fronts.messages import Messages
from gateway.fronts.messages_request import parse, parse_count

_FRONT: Final = Messages(lambda: secrets.token_hex(12))

MESSAGES: Final = Endpoint("messages", "/messages", parse, front=_FRONT, done=b"")
COUNT_TOKENS: Final = Endpoint("count_tokens", "/messages/count_tokens", parse_count, front=_FRONT, done=b"")
