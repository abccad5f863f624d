"""The `penstock` command as a person meets it: real processes, real databases, one-line errors."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from admin.cli import COMMANDS, parser
from tests.fixtures.patience import quickest

HEAVY = ("sqlalchemy", "fastapi", "pydantic", "msgspec", "yaml", "httpx", "cryptography", "alembic")


class Shell:
    """A folder of its own and an environment without any PENSTOCK_ or provider variable."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        plain = {"PATH": os.defpath, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1", **environ}
        program = str(Path(sys.executable).with_name("penstock"))
        return subprocess.run(
            [program, *arguments], cwd=self.folder, env=plain, capture_output=True, text=True, check=False
        )

    def write(self, text: str) -> None:
        (self.folder / "penstock.yaml").write_text(text)


@pytest.fixture
def penstock(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_help_loads_no_server() -> None:
    """Neither a framework nor a database library: whoever asks for help does not wait for them."""
    script = (
        "import sys, admin.cli\n"
        "try: admin.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert all(command in done.stdout for command in COMMANDS)


def test_help_takes_less_than_150_ms_of_cpu() -> None:
    """User and system time of a whole process, by the operating system's account."""
    program = str(Path(sys.executable).with_name("penstock"))

    def cpu_s() -> float:
        pid = os.posix_spawn(
            program, [program, "--help"], {}, file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
        )
        _, status, usage = os.wait4(pid, 0)
        assert status == 0
        return usage.ru_utime + usage.ru_stime

    assert quickest(cpu_s, 0.15) < 0.15


def test_every_command_of_the_grammar_has_a_module() -> None:
    """A command that parses can be run."""
    choices = next(action.choices for action in parser()._actions if action.dest == "command")
    assert choices is not None
    assert set(choices) == set(COMMANDS)


def test_the_version_is_printed(penstock: Shell) -> None:
    """For bug reports."""
    done = penstock("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("penstock 0.")


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["keys"], ["keys", "create"], ["serve", "--port", "x"]])
def test_what_is_not_understood_exits_with_2(penstock: Shell, arguments: list[str]) -> None:
    """As argparse does, with the usage."""
    done = penstock(*arguments)
    assert done.returncode == 2
    assert "usage: penstock" in done.stdout + done.stderr


def test_a_key_is_made_listed_and_revoked(penstock: Shell) -> None:
    """The secret is shown once; afterwards only its end."""
    made = json.loads(
        penstock("keys", "create", "alice", "--models", "chat,gpt-*", "--expires-in-days", "1", "--json").stdout
    )
    assert made["key"].startswith("sk-ps-")
    assert made["models"] == ["chat", "gpt-*"]
    listed = penstock("keys", "list")
    assert made["id"] in listed.stdout
    assert "active" in listed.stdout
    assert made["key"] not in listed.stdout
    assert penstock("keys", "revoke", made["id"]).returncode == 0
    (record,) = json.loads(penstock("keys", "list", "--json").stdout)["data"]
    assert record["state"] == "revoked"
    assert "key" not in record


def test_a_key_for_people_stands_alone_on_the_first_line(penstock: Shell) -> None:
    """`penstock keys create x | head -1` gives the key."""
    assert penstock("keys", "create", "bob").stdout.splitlines()[0].startswith("sk-ps-")


def test_an_expired_key_says_so(penstock: Shell) -> None:
    """Expiry in the past is allowed, and visible."""
    penstock("keys", "create", "old", "--expires-in-days", "-1")
    assert "expired" in penstock("keys", "list").stdout


def test_the_database_is_made_in_the_data_directory_that_was_named(penstock: Shell) -> None:
    """With nobody else able to read the directory."""
    penstock("keys", "create", "a", "--data-dir", "here/data")
    folder = penstock.folder / "here" / "data"
    assert (folder / "penstock.db").exists()
    assert folder.stat().st_mode & 0o077 == 0


def test_migrate_reports_the_version(penstock: Shell) -> None:
    """And can be run again."""
    for _ in range(2):
        done = penstock("migrate")
        assert done.returncode == 0, done.stderr
        assert "the database is at version 0" in done.stdout


def test_models_says_what_to_do_when_there_are_none(penstock: Shell) -> None:
    """An empty list explains itself; for machines it is just empty."""
    assert "penstock serve" in penstock("models").stdout
    assert json.loads(penstock("models", "--json").stdout) == {"data": []}


@pytest.mark.parametrize(
    ("arguments", "environ", "message"),
    [
        (["keys", "revoke", "key_none"], {}, "penstock: There is no key 'key_none'."),
        (["keys", "list"], {"PENSTOCK_DATABASE_URL": "postgresql://u:hunter2@127.0.0.1:1/d"}, "penstock: the database does"),
        (["keys", "list"], {"PENSTOCK_DATABASE_URL": "mysql://u:hunter2@h/d"}, "environment PENSTOCK_DATABASE_URL: database_url:"),
        (["models", "--config", "none.yaml"], {}, "none.yaml: cannot be read"),
        (["models", "--data-dir", "/dev/null/x"], {}, "penstock: "),
        (["serve", "--port", "70000"], {}, "flag --port: server.port: should be less"),
    ],
)  # fmt: skip
def test_an_error_is_one_line_on_stderr(
    penstock: Shell, arguments: list[str], environ: dict[str, str], message: str
) -> None:
    """No traceback, no secret, exit status 1."""
    done = penstock(*arguments, **environ)
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1
    assert "hunter2" not in done.stderr
    assert done.stdout == ""


def test_a_reader_that_stops_reading_is_no_error_message(penstock: Shell) -> None:
    """`penstock config check | true` ends silently."""
    program = Path(sys.executable).with_name("penstock")
    done = subprocess.run(
        ["bash", "-c", f"'{program}' config check | true"],
        cwd=penstock.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "BrokenPipe" not in done.stderr
    assert "Traceback" not in done.stderr


def test_config_check_prints_each_value_with_its_origin_and_no_secret(penstock: Shell) -> None:
    """Flag, environment, file and default side by side; references are shown, values are not."""
    penstock.write(
        "server:\n  host: 0.0.0.0\nadmin_key: hunter2hunter2hunter2\nredis_url: redis://:hunter2@h:1/0\nmodels:\n"
        "  - name: chat\n    deployments:\n      - {id: a, api_key: '${THE_KEY:-hunter2}', headers: {x: hunter2}}\n"
        "      - {id: b, api_key: hunter2}\n"
    )
    done = penstock("config", "check", "--port", "5", PENSTOCK_DATABASE_URL="postgresql://u:hunter2@h/d")
    assert done.returncode == 0, done.stderr
    rows = {row.split()[0]: row.split()[1:] for row in done.stdout.splitlines()}
    assert rows["server.port"] == ["5", "flag", "--port"]
    assert rows["server.host"] == ["0.0.0.0", "penstock.yaml:2"]
    assert rows["server.workers"] == ["1", "default"]
    assert rows["database_url"] == ["postgresql://u:***@h/d", "environment", "PENSTOCK_DATABASE_URL"]
    assert rows["redis_url"] == ["redis://:***@h:1/0", "penstock.yaml:4"]
    assert rows["admin_key"] == ["set", "penstock.yaml:3"]
    assert rows["models[0].deployments[0].api_key"] == ["${THE_KEY}", "penstock.yaml:8"]
    assert rows["models[0].deployments[1].api_key"] == ["set", "penstock.yaml:9"]
    assert "hunter2" not in done.stdout + done.stderr


def test_config_check_reports_every_mistake(penstock: Shell) -> None:
    """On stderr for people, as a list for machines; exit status 1."""
    penstock.write("prot: 1\nserver: {hots: x}\n")
    done = penstock("config", "check")
    assert done.returncode == 1
    assert [line.split(":")[1] for line in done.stderr.splitlines()] == ["1", "2"]
    asked = penstock("config", "check", "--json")
    assert asked.returncode == 1
    assert len(json.loads(asked.stdout)["errors"]) == 2
