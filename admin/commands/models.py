"""`penstock models`: what can be called, where it is answered, and where each entry comes from."""

import argparse
import importlib
import json
from typing import Any

from admin.commands.configuration import database
from gateway import model_store
from gateway.database import reading
from gateway.model_store import DeploymentRecord
from gateway.named_specs import SpecRecord


def run(arguments: argparse.Namespace) -> int:
    if arguments.action is not None:  # with imports that a list of models does not need
        apart = arguments.action if arguments.action in ("score", "pull") else "registry"
        command = importlib.import_module(f"admin.commands.{apart}")
        status: int = command.run(arguments)
        return status
    with database(arguments) as engine, reading(engine) as tx:
        found = model_store.every_model(tx)
    if arguments.json:
        print(json.dumps({"data": [_json(model, below) for model, below in found]}))
    elif not found:
        print("no models yet: `penstock serve` registers those of penstock.yaml, or what it finds by itself")
    for model, below in [] if arguments.json else found:
        print(f"{model.name}  ({model.origin})")
        for deployment in below:
            spec = deployment.spec
            provider, target = spec.get("provider", "openai"), spec.get("model", "*")
            print(f"  {deployment.id}: {target} at {spec.get('base_url', provider)}")
    return 0


def _json(model: SpecRecord, below: list[DeploymentRecord]) -> dict[str, Any]:
    return {
        "name": model.name,
        "strategy": model.spec.get("strategy", "weighted"),
        "origin": model.origin,
        "deployments": [
            {
                "id": deployment.id,
                "provider": deployment.spec.get("provider", "openai"),
                "base_url": deployment.spec.get("base_url"),
                "model": deployment.spec.get("model", "*"),
                "origin": deployment.origin,
            }
            for deployment in below
        ],
    }
