"""`penstock engines`: what is declared and how it is, and the same for Kubernetes or Ray."""

import argparse
import json
from typing import Any

import msgspec

from admin.commands.configuration import database, loaded
from gateway.database import reading
from inference.fleet import manifest, store
from inference.fleet.settings import EngineSpec
from inference.fleet.store import EngineRecord


def run(arguments: argparse.Namespace) -> int:
    with database(arguments) as engine, reading(engine) as tx:
        found = store.every(tx)
    if arguments.action == "manifest":
        declared = [EngineSpec.model_validate(one.spec) for one in found]
        # Before the first start the file is all there is.
        print(_manifest(declared or list(loaded(arguments).settings.engines), arguments))
        return 0
    if arguments.json:
        print(json.dumps({"data": [_json(one) for one in found]}))
        return 0
    if not found:
        print("no engines yet: declare them under `engines:` in penstock.yaml, or over REST")
    for one in found:
        state = one.state
        print(f"{one.name}  {'not seen yet' if state is None else state.state}  ({one.origin})")
        for replica in () if state is None else state.replicas:
            print(
                f"  {one.name}@{replica.slot}: {replica.phase}, pid {replica.pid}, port {replica.port}, {replica.rss_mb:.0f} MB"
            )
        if state is not None and state.last_error is not None and state.state != "ready":
            print(f"  {state.last_error}")
    return 0


def _manifest(specs: list[EngineSpec], arguments: argparse.Namespace) -> str:
    import yaml  # noqa: PLC0415 — for those who ask for it

    wanted = [spec for spec in specs if not arguments.names or spec.name in arguments.names]
    missing = set(arguments.names) - {spec.name for spec in wanted}
    if missing or not wanted:
        raise SystemExit(f"no engine {', '.join(sorted(missing))}" if missing else "no engines are declared")
    try:
        if arguments.format == "ray":
            return yaml.safe_dump(manifest.ray(wanted), sort_keys=False).rstrip()
        images = dict(one.split("=", 1) for one in arguments.image if "=" in one)
        made = manifest.kubernetes(wanted, namespace=arguments.namespace, images=images)
        return yaml.safe_dump_all(made, sort_keys=False).rstrip()
    except manifest.ManifestError as error:
        raise SystemExit(str(error)) from None


def _json(record: EngineRecord) -> dict[str, Any]:
    return {
        "name": record.name,
        "origin": record.origin,
        "wish": record.wish,
        "kind": record.spec.get("kind", "vllm"),
        "state": msgspec.to_builtins(record.state),
    }
