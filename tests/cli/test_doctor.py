"""Each check of `penstock doctor`, on things that are really right or really broken."""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from admin import doctor
from admin.settings import ServerSection, load
from gateway.database import connect


def checks(config: Path, *, probe: bool = False) -> dict[str, doctor.Check]:
    loaded = load({"--config": str(config), "--data-dir": str(config.parent / "data"), "--port": 0}, {})
    return {check.name: check for check in doctor.examine(loaded, probe=probe)}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "p.yaml"
    file.write_text("")
    return file


@pytest.fixture
def redis() -> Iterator[int]:
    """A real Redis with a password."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    process = subprocess.Popen(
        [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--requirepass", "p@ss"],
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    yield port
    process.terminate()
    process.wait(20)


def test_a_fresh_machine_is_well(config: Path) -> None:
    """Nothing configured, nothing wrong; looking creates no database."""
    found = checks(config)
    assert all(check.ok for check in found.values()), found
    assert not (config.parent / "data" / "penstock.db").exists()


def test_this_installation_is_well() -> None:
    """Python's version and our five names."""
    found = {check.name: check for check in doctor.installation()}
    assert found["python"].ok
    assert found["packages"].ok, found["packages"]


def test_a_package_that_is_shadowed_is_noticed(tmp_path: Path) -> None:
    """A folder called `embedding` in the way would be imported instead of ours."""
    (tmp_path / "embedding").mkdir()
    (tmp_path / "embedding" / "__init__.py").write_text("")
    root = Path(__file__).parents[2]
    paths = f"sys.path[:0] = [{str(tmp_path)!r}, {str(root)!r}]"
    script = f"import sys; {paths}; from admin.doctor import packages; print(packages())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "ok=False" in done.stdout
    assert str(tmp_path / "embedding") in done.stdout


def test_a_distribution_that_brings_one_of_our_names_is_noticed(tmp_path: Path) -> None:
    """Even while ours still wins: the next installation may turn that round."""
    info = tmp_path / "stranger-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (info / "top_level.txt").write_text("gateway\n")
    (info / "RECORD").write_text("")
    root = Path(__file__).parents[2]
    paths = f"sys.path[:0] = [{str(root)!r}]; sys.path.append({str(tmp_path)!r})"
    script = f"import sys; {paths}; from admin.doctor import packages; print(packages())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "stranger also installs one of" in done.stdout


def test_an_unwritable_data_directory_is_noticed() -> None:
    """With the system's reason."""
    check = doctor.data_dir(Path("/dev/null/data"))
    assert not check.ok
    assert "Not a directory" in check.detail


def test_an_admin_key_that_others_can_read_is_noticed(config: Path) -> None:
    """With the command that mends it."""
    (config.parent / "data").mkdir()
    key = config.parent / "data" / "admin-key"
    key.write_text("x")
    key.chmod(0o644)
    check = checks(config)["admin key"]
    assert not check.ok
    assert check.remedy.endswith(f"chmod 600 {key}")


def test_a_database_that_does_not_answer_is_noticed_without_its_password() -> None:
    """The URL is shown, its password is not."""
    engine = connect("postgresql://u:hunter2@127.0.0.1:1/d")
    check = doctor.database(engine)
    engine.dispose()
    assert not check.ok
    assert "hunter2" not in check.detail
    assert "127.0.0.1:1" in check.detail


def test_a_file_that_is_no_database_is_noticed(tmp_path: Path) -> None:
    """An SQLite URL may point anywhere."""
    (tmp_path / "x.db").write_text("this is not a database" * 100)
    engine = connect(f"sqlite:///{tmp_path}/x.db")
    check = doctor.database(engine)
    engine.dispose()
    assert not check.ok


def test_redis_is_asked_with_its_password(redis: int) -> None:
    """Right, wrong and missing passwords, on a real server."""
    assert doctor.redis(f"redis://:p%40ss@127.0.0.1:{redis}/0").ok
    wrong = doctor.redis(f"redis://:hunter2@127.0.0.1:{redis}/0")
    assert not wrong.ok
    assert "WRONGPASS" in wrong.detail
    assert "hunter2" not in wrong.detail
    assert "NOAUTH" in doctor.redis(f"redis://127.0.0.1:{redis}").detail


def test_a_redis_that_is_not_there_is_noticed() -> None:
    """A refused connection, a missing socket."""
    assert not doctor.redis("redis://127.0.0.1:1").ok
    assert not doctor.redis("unix:///nowhere.sock").ok


def test_a_redis_that_hangs_is_noticed() -> None:
    """A connection that nobody answers ends after two seconds."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        assert "timed out" in doctor.redis(f"redis://127.0.0.1:{mute.getsockname()[1]}").detail


def test_a_taken_port_is_noticed() -> None:
    """By trying to bind it."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert not doctor.port(ServerSection(port=other.getsockname()[1])).ok
    assert doctor.port(ServerSection(port=0)).ok


def test_certificate_and_key_must_fit(tmp_path: Path) -> None:
    """A pair of two different certificates is refused."""
    for name in ("one", "two"):
        issued = trustme.CA().issue_cert("localhost")
        issued.private_key_pem.write_to_path(str(tmp_path / f"{name}.key"))
        issued.cert_chain_pems[0].write_to_path(str(tmp_path / f"{name}.crt"))
    assert doctor.certificate(tmp_path / "one.crt", tmp_path / "one.key").ok
    assert not doctor.certificate(tmp_path / "one.crt", tmp_path / "two.key").ok
    assert not doctor.certificate(tmp_path / "none.crt", tmp_path / "one.key").ok


def test_deployments_are_only_connected_to_when_asked(config: Path) -> None:
    """`--probe` tries each address once, however many deployments share it."""
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        here = f"http://127.0.0.1:{upstream.getsockname()[1]}/v1"
        config.write_text(
            f"models:\n  - name: m\n    deployments:\n      - {{id: a, base_url: '{here}'}}\n"
            f"      - {{id: b, base_url: '{here}'}}\n      - {{id: c, base_url: 'http://127.0.0.1:1/v1'}}\n"
        )
        assert not [name for name in checks(config) if name.startswith("deployment")]
        found = checks(config, probe=True)
    assert found["deployment a, b"].ok
    assert not found["deployment c"].ok
