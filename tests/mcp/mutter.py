"""A server over standard input and output, made by hand, that says what it should not where it should not."""

import json
import sys
from typing import Any

TOOL = {"name": "shout", "inputSchema": {"type": "object"}}


def answer(message: dict[str, Any]) -> dict[str, Any]:
    match message["method"]:
        case "initialize":
            version = message["params"]["protocolVersion"]
            return {
                "protocolVersion": version,
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "m", "version": "1"},
            }
        case "tools/list":
            return {"tools": [TOOL]}
        case _:
            sys.stdout.write("x" * message["params"]["arguments"]["size"] + "\n")
            return {"content": [{"type": "text", "text": "shouted"}]}


for line in sys.stdin:
    asked = json.loads(line)
    if "id" in asked:
        result = answer(asked)
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}) + "\n")
        sys.stdout.flush()
