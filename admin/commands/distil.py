"""`penstock distil`: a small model from the recorded answers of a large one, and a model of the gateway that puts it in front of that."""

import argparse
import json
from typing import Any, Final

import httpx

from admin.commands.documents import ask, server
from admin.commands.registry import PLANE

TIMEOUT_S: Final = 1800.0


def run(arguments: argparse.Namespace) -> int:
    body: dict[str, Any] = {
        "route": arguments.route,
        "name": arguments.name,
        "kind": arguments.kind,
        "agreement": arguments.agreement,
        "coverage": arguments.coverage,
        "seed": arguments.seed,
        "alias": arguments.alias,
        **({} if arguments.field is None else {"field": arguments.field}),
    }
    with server(arguments, PLANE) as client:
        client.timeout = httpx.Timeout(TIMEOUT_S)
        made = ask(client, "POST", "distil", json=body)
        if arguments.serve_as:
            deployment = {"id": arguments.serve_as, "provider": "distilled", "model": arguments.name}
            model = {"name": arguments.serve_as, "deployments": [deployment], "fallbacks": [arguments.route]}
            ask(client, "POST", "models", json=model)
        if arguments.rollout:
            rollout = {
                "target": {"kind": "route", "name": arguments.rollout_name or f"{arguments.route}-distilled"},
                "strategy": arguments.rollout,
                "champion": arguments.route,
                "challenger": arguments.serve_as,
                "gates": _gates(arguments),
            }
            begun = ask(client, "POST", "rollouts", json=rollout)
            made["rollout"] = begun["id"]
    if arguments.json:
        print(json.dumps(made))
        return 0
    metrics, version = made["metrics"], made["version"]
    print(f"{version['model']} version {version['version']}  from {made['rows']} answers of {arguments.route}")
    sure = f"sure enough of {metrics['coverage']:.1%} of texts it has not seen"
    print(f"  {sure}, and right on {metrics['agreement']:.1%} of those (from {made['threshold']:.3f} on)")
    if "rollout" in made:
        print(f"  {arguments.rollout} {made['rollout']}")
    return 0


def _gates(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A shadow has to agree, a canary to fail no more and to cost less."""
    errors = {"metric": "error_rate", "max_regression": 0.02}
    if arguments.rollout == "shadow":
        return [errors, {"metric": "agreement", "max_regression": round(1 - arguments.agreement, 6) or 0.01}]
    return [errors, {"metric": "cost_usd", "max_regression": 0.0}]
