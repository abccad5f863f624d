"""`penstock doctor`: looks for what could go wrong on this machine and says the way out."""

import argparse
import json

from admin.commands.configuration import loaded
from admin.config_file import ConfigError
from admin.doctor import Check, examine, installation


def run(arguments: argparse.Namespace) -> int:
    """1 if anything is wrong."""
    checks = list(installation())
    try:
        configuration = loaded(arguments)
    except ConfigError as error:
        way_out = "`penstock config check` shows the same; mend the file and look again"
        checks.append(Check("configuration", False, "; ".join(problem.text() for problem in error.problems), way_out))
    else:
        checks.append(Check("configuration", True, str(configuration.file or "none, so the defaults hold")))
        checks += examine(configuration, probe=arguments.probe)
    if arguments.json:
        rows = [
            {"name": check.name, "ok": check.ok, "detail": check.detail, "remedy": check.remedy} for check in checks
        ]
        print(json.dumps({"ok": all(check.ok for check in checks), "checks": rows}))
    else:
        for check in checks:
            print(f"{'✓' if check.ok else '✗'} {check.name}: {check.detail}")
            if not check.ok:
                print(f"    {check.remedy}")
    return 0 if all(check.ok for check in checks) else 1
