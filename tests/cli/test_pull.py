"""`penstock models pull` from a hub in this process: whole files or none, however the connection goes."""

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from admin.cli import main
from admin.commands.documents import Failed
from admin.hub import Hub, HubFile, Snapshot
from tests.fixtures.server import refused_port

WEIGHTS = bytes(range(256)) * 9000  # 2.3 MB: more than one block
FILES = {
    "config.json": b'{"model_type": "tiny"}',
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"the same in another form",
    ".gitattributes": b"x",
}
GGUF = {"tiny-q4_k_m.gguf": WEIGHTS, "tiny-q8_0.gguf": b"larger", "README.md": b"hello"}
COMMIT = "c0ffee" * 6 + "abcd"


class FakeHub(http.server.ThreadingHTTPServer):
    """Speaks as the hub does. `cut`: a connection ends after so many bytes of a body. `lies`: what it sends instead of a file."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = {"acme/tiny": FILES, "acme/tiny-gguf": GGUF}
        self.cut: list[int] = []
        self.lies: dict[str, bytes] = {}
        self.ranges: list[str | None] = []
        self.tokens: set[str | None] = set()
        self.ignores_ranges = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeHub

    def do_GET(self) -> None:
        hub, path = self.server, self.path.partition("?")[0].lstrip("/")
        hub.tokens.add(self.headers.get("authorization"))
        if path.startswith("api/models/"):
            name, _, revision = path.removeprefix("api/models/").partition("/revision/")
            files = hub.repositories.get(name)
            if name == "acme/gated":
                self._send(403, b"{}")
            elif files is None or revision != "main":
                self._send(404, b"{}")
            else:
                self._send(
                    200, json.dumps({"sha": COMMIT, "siblings": [_sibling(*each) for each in files.items()]}).encode()
                )
            return
        name, _, file = path.partition(f"/resolve/{COMMIT}/")
        body = hub.lies.get(file, hub.repositories[name][file])
        asked = self.headers.get("range")
        hub.ranges.append(asked)
        if asked is None or hub.ignores_ranges:
            self._send(200, body)
        else:
            self._send(206, body[int(asked.removeprefix("bytes=").rstrip("-")) :])

    def _send(self, status: int, body: bytes) -> None:
        cut = self.server.cut.pop(0) if self.server.cut and len(body) > 100_000 else None
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self.close_connection = True

    def log_message(self, *_: Any) -> None: ...


def _sibling(name: str, content: bytes) -> dict[str, Any]:
    size = len(content)
    if size > 1000:
        return {"rfilename": name, "size": size, "lfs": {"sha256": hashlib.sha256(content).hexdigest(), "size": size}}
    return {"rfilename": name, "size": size, "blobId": hashlib.sha1(b"blob %d\0" % size + content).hexdigest()}  # git's


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    made = FakeHub()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    thread.join(10)
    made.server_close()


def pull(hub: FakeHub, folder: Path, name: str, *options: str) -> int:
    data = ["--data-dir", str(folder / "data"), "--endpoint", hub.url]
    return main(["models", "pull", name, *data, "--output", str(folder / "model"), *options])


def there(folder: Path) -> dict[str, bytes]:
    home = folder / "model"
    return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}


def test_one_form_of_the_weights_is_fetched_once(
    hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what belongs to it, and an entry to copy; a second run fetches nothing; a token goes along."""
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    assert pull(hub, tmp_path, "acme/tiny") == 0
    assert there(tmp_path) == {name: FILES[name] for name in ("config.json", "model.safetensors")}
    assert "kind: vllm" in capsys.readouterr().out
    assert hub.tokens == {"Bearer hf_x"}
    asked = len(hub.ranges)
    assert pull(hub, tmp_path, "acme/tiny", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["fetched"], told["commit"], len(hub.ranges)) == ([], COMMIT, asked)
    (tmp_path / "model" / "config.json").write_bytes(b"x" * len(FILES["config.json"]))
    assert pull(hub, tmp_path, "acme/tiny") == 0
    assert there(tmp_path)["config.json"] == FILES["config.json"], "what is damaged is fetched again"


def test_the_usual_quantisation_or_the_one_that_is_named(
    hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pull(hub, tmp_path, "acme/tiny-gguf") == 0
    assert there(tmp_path) == {"tiny-q4_k_m.gguf": WEIGHTS}
    assert "kind: llama_cpp" in capsys.readouterr().out
    assert pull(hub, tmp_path, "acme/tiny-gguf", "--file", "*Q8_0*") == 0
    assert set(there(tmp_path)) == {"tiny-q4_k_m.gguf", "tiny-q8_0.gguf"}
    assert pull(hub, tmp_path, "acme/tiny-gguf", "--file", "*q2*") == 1
    assert "there are tiny-q4_k_m.gguf" in capsys.readouterr().err


@pytest.mark.parametrize("ignores_ranges", [False, True])
def test_a_broken_connection_is_gone_on_with(hub: FakeHub, tmp_path: Path, *, ignores_ranges: bool) -> None:
    """From where it broke, where the hub can; from the beginning where it cannot. A later run goes on as well."""
    hub.cut, hub.ignores_ranges = [1_100_000, 2_000_000 if ignores_ranges else 500_000], ignores_ranges
    home = tmp_path / "model"
    home.mkdir()
    (home / "model.safetensors.part").write_bytes(WEIGHTS[:700])
    with Hub(hub.url, backoff_s=0.01) as source:
        snapshot = source.snapshot("acme/tiny", "main")
        file = next(each for each in snapshot.files if each.large)
        assert source.fetch(snapshot, file, home, lambda *_: None)
    assert there(tmp_path) == {"model.safetensors": WEIGHTS}
    assert hub.ranges[0] == "bytes=700-"
    if not ignores_ranges:
        assert len(set(hub.ranges)) == len(hub.ranges) == 3


def test_what_is_not_what_the_hub_says_is_thrown_away(
    hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.lies["model.safetensors"] = WEIGHTS[:-1] + b"!"
    assert pull(hub, tmp_path, "acme/tiny") == 1
    assert "checksum" in capsys.readouterr().err
    assert set(there(tmp_path)) == {"config.json"}


def test_what_cannot_be_had_is_one_line(
    hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No such model, not for everybody, no hub, no name: each says what to do."""
    for name, told in (("acme/none", "has no acme/none"), ("acme/gated", "HF_TOKEN"), ("none", "OWNER/NAME")):
        assert pull(hub, tmp_path, name) == 1
        assert told in capsys.readouterr().err
    with refused_port() as port:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
        assert main(["models", "pull", "acme/tiny", "--data-dir", str(tmp_path / "data")]) == 1
    said = capsys.readouterr().err
    assert "cannot be reached" in said
    assert "HF_ENDPOINT" in said


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../../b", "a\\b"])
def test_no_file_leads_out_of_the_folder(hub: FakeHub, name: str) -> None:
    hub.repositories["acme/evil"] = {name: b"x"}
    with Hub(hub.url) as source, pytest.raises(Failed, match="no place in a folder"):
        source.snapshot("acme/evil", "main")


def test_a_file_without_a_checksum_is_taken_by_its_size(hub: FakeHub, tmp_path: Path) -> None:
    hub.repositories["acme/plain"] = {"a.txt": b"plain"}
    file = HubFile("a.txt", 5, "", large=False)
    with Hub(hub.url) as source:
        assert source.fetch(Snapshot("acme/plain", COMMIT, [file]), file, tmp_path, lambda *_: None)
    assert (tmp_path / "a.txt").read_bytes() == b"plain"
