"""`penstock config check`: every value in force with who decided it, or everything that is wrong.

`penstock config import-litellm`: a penstock.yaml from LiteLLM's config.yaml, and what became of each of its fields.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import TextIO

from admin.commands.configuration import loaded, warn
from admin.config_file import ConfigError
from admin.effective import effective
from admin.import_litellm import Imported, import_litellm


def run(arguments: argparse.Namespace) -> int:
    return _import(arguments) if arguments.action == "import-litellm" else _check(arguments)


def _import(arguments: argparse.Namespace) -> int:
    """0 whatever the account says; a file that cannot be read raises OSError or ConfigError."""
    imported = import_litellm(Path(arguments.file).read_bytes(), arguments.file)
    if arguments.output is not None:
        Path(arguments.output).write_text(imported.configuration, encoding="utf-8")
    if arguments.json:
        rows = [
            {"line": finding.line, "path": finding.path, "status": finding.status, "message": finding.message}
            for finding in imported.findings
        ]
        print(json.dumps({"configuration": imported.configuration, "fields": rows, "counts": _counts(imported)}))
    elif arguments.output is not None:
        _report(imported, arguments.file, sys.stdout)
    else:
        print(imported.configuration, end="")
        _report(imported, arguments.file, sys.stderr)
    return 0


def _report(imported: Imported, file: str, stream: TextIO) -> None:
    for finding in imported.findings:
        print(f"{file}:{finding.line}: {finding.status:<11} {finding.path}: {finding.message}", file=stream)
    counts = _counts(imported)
    print(", ".join(f"{count} {status}" for status, count in counts.items()) or "nothing to import", file=stream)


def _counts(imported: Imported) -> dict[str, int]:
    found = Counter(finding.status for finding in imported.findings)
    return {status: found[status] for status in ("exact", "converted", "manual", "unsupported") if found[status]}


def _check(arguments: argparse.Namespace) -> int:
    try:
        configuration = loaded(arguments)
    except ConfigError as error:
        if not arguments.json:
            raise
        print(json.dumps({"errors": [problem.text() for problem in error.problems]}))
        return 1
    values = effective(configuration)
    if arguments.json:
        rows = [{"path": value.path, "value": value.shown, "origin": value.origin} for value in values]
        print(json.dumps({"errors": [], "warnings": configuration.warnings, "values": rows}))
        return 0
    path, shown = (max(len(getattr(value, field)) for value in values) for field in ("path", "shown"))
    for value in values:
        print(f"{value.path:<{path}}  {value.shown:<{min(shown, 48)}}  {value.origin}")
    if not configuration.settings.models:
        print(
            "no models configured: `penstock serve` registers what it finds, `penstock models` lists it",
            file=sys.stderr,
        )
    warn(configuration)
    return 0
