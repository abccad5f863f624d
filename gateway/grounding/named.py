"""Whether a chat names documents with the tool `file_search`: seen at a glance, before what reads it is loaded."""

from typing import Final

from gateway.bodies import NULL, ChatRequest
from gateway.call import Call
from gateway.endpoint import CHAT

TOOL: Final = b'"file_search"'


def names_documents(call: Call) -> bool:
    """It may: a function may be called like that, too."""
    request = call.request
    if call.endpoint is not CHAT or not isinstance(request, ChatRequest) or request.tools is NULL:
        return False
    return TOOL in bytes(request.tools)
