"""What can go wrong with a tool, as the data plane's errors.

GatewayError
├── UnknownTool        404  there is no such tool, or none for this key: nobody can tell which
├── ServerDown         503  its server does not answer, or may not be started
├── ToolRefused        400  the server answered with a JSON-RPC error: it did no work
├── UpstreamError      502  what came back is damaged or too large
└── UpstreamTimeout    504  nothing came in time
"""

from gateway.errors import GatewayError, Overloaded


class UnknownTool(GatewayError):
    status, type, code = 404, "invalid_request_error", "tool_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(f"Unknown tool: {name}", param="name")


class ServerDown(Overloaded):
    """`unsent`: it cannot have seen the request."""

    code = "mcp_server_unavailable"

    def __init__(self, message: str, *, unsent: bool = False) -> None:
        super().__init__(message)
        self.unsent = unsent


class ToolRefused(GatewayError):
    """`number` is JSON-RPC's code."""

    status, type, code = 400, "invalid_request_error", "mcp_error"

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number
