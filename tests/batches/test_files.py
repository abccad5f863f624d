"""Files in the real process: who may, how large, how much, and what is left of what did not come in whole."""

import resource
import time
from collections.abc import Callable, Iterator

import openai
import pytest

from tests.fixtures.batches import chat_line, results, start, wait
from tests.fixtures.raw import Raw
from tests.fixtures.server import ONCE, Scripts, Server
from tests.fixtures.upstream import Upstream
from tests.upstream.behaviour import Behaviour

MEBI = 1 << 20
FULL_AT = 6 * MEBI  # above what the journal and the database of a small test need


@pytest.fixture(scope="module")
def small(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Little room, and a limit on the size of the files of the process where a test sets one."""
    one = {"id": "s", "base_url": upstream.base_url, "model": "*", "api_key": "sk-up"}
    config = {
        "models": [{"name": "s/*", "deployments": [one], "retries": ONCE}],
        "files": {"max_mb": 10, "quota_mb": 25},
        "batches": {"concurrency": 4},
    }
    server = Server(config, tmp_path_factory.mktemp("small")).start()
    yield server
    server.stop()


def client_of(server: Server) -> openai.OpenAI:
    return openai.OpenAI(api_key=server.new_key(), base_url=server.base_url, max_retries=0, timeout=20)


def left_over(server: Server) -> list[str]:
    """What is on its way in."""
    return [path.name for path in (server.data / "files" / "incoming").iterdir()]


@pytest.mark.parametrize(
    "path", ["/v1/files", "/v1/files/file-x", "/v1/uploads", "/v1/batches", "/v1/batches/b/cancel"]
)
def test_nobody_comes_in_without_a_key(small: Server, path: str) -> None:
    """Told before a body is read, in OpenAI's shape."""
    answer = small.http.post(path, content=b"x" * 100)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    barred = small.new_key(routes=["/v1/chat/completions"])
    answer = small.post(path, b"{}", key=barred)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "route_access_denied")


def test_what_is_no_route_is_told_as_such(small: Server) -> None:
    """With a key, in the same shape."""
    headers = {"authorization": f"Bearer {small.key}"}
    assert small.http.get("/v1/files/a/b/c", headers=headers).json()["error"]["type"] == "invalid_request_error"
    answer = small.http.put("/v1/files", headers=headers)
    assert (answer.status_code, answer.json()["error"]["type"]) == (405, "invalid_request_error")
    assert small.http.get("/v1/files?limit=0", headers=headers).status_code == 400
    assert small.http.get("/v1/batches?after=../x", headers=headers).status_code == 400


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"files": {"file": ("a", b"a")}}, "purpose"),
        ({"files": {"file": ("a", b"a")}, "data": {"purpose": "fun"}}, "purpose"),
        ({"files": {"other": ("a", b"a")}, "data": {"purpose": "batch"}}, "file"),
        ({"files": {"file": ("a", b"a")}, "data": {"purpose": "batch", "expires_after[seconds]": "5"}}, "expires_after.anchor"),
        ({"files": {"file": ("a", b"a")}, "data": {"purpose": "batch", "extra": "5"}}, "extra"),
        ({"files": [("file", ("a", b"a")), ("file", ("b", b"b"))], "data": {"purpose": "batch"}}, "file"),
        ({"json": {"purpose": "batch"}}, None),
        ({"content": b"--x\r\n", "headers": {"content-type": "multipart/form-data; boundary=y"}}, None),
    ],
)  # fmt: skip
def test_a_form_that_is_wrong_is_refused_and_leaves_nothing(
    small: Server, form: dict[str, object], param: str | None
) -> None:
    headers = {"authorization": f"Bearer {small.key}", **form.pop("headers", {})}  # type: ignore[dict-item]  # of the form
    answer = small.http.post("/v1/files", headers=headers, **form)  # type: ignore[arg-type]  # httpx's own arguments
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param
    assert left_over(small) == []


def test_a_file_s_name_is_no_path(small: Server) -> None:
    with client_of(small) as client:
        made = client.files.create(file=("../../etc/passwd", b"a"), purpose="user_data")
        assert made.filename == "passwd"


def test_files_are_as_large_and_as_many_as_they_may_be(small: Server) -> None:
    """Over either limit nothing is kept; with less there, there is room again."""
    with client_of(small) as client:
        with pytest.raises(openai.APIStatusError) as refused:
            client.files.create(file=("a", b"x" * (10 * MEBI + 1)), purpose="user_data")
        assert (refused.value.status_code, refused.value.code) == (413, "file_too_large")
        with pytest.raises(openai.APIStatusError) as refused:
            client.uploads.create(bytes=11 * MEBI, filename="a", mime_type="a/b", purpose="user_data")
        assert (refused.value.status_code, refused.value.code) == (413, "file_too_large")
        first = client.files.create(file=("a", b"x" * 10 * MEBI), purpose="user_data")
        client.files.create(file=("a", b"x" * 10 * MEBI), purpose="user_data")
        with pytest.raises(openai.APIStatusError) as refused:
            client.files.create(file=("a", b"x" * 6 * MEBI), purpose="user_data")
        assert (refused.value.status_code, refused.value.code) == (413, "storage_quota_exceeded")
        assert len(list(client.files.list())) == 2
        client.files.delete(first.id)
        client.files.create(file=("a", b"x" * 6 * MEBI), purpose="user_data")
    assert left_over(small) == []


def test_a_client_that_leaves_in_the_middle_leaves_nothing(small: Server) -> None:
    with Raw(small) as raw:
        head = (
            f"POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {small.key}\r\ncontent-length: 9000000\r\n"
            'content-type: multipart/form-data; boundary=x\r\n\r\n--x\r\ncontent-disposition: form-data; name="file"; '
            'filename="a"\r\n\r\n'
        )
        raw.send(head.encode() + b"y" * 3 * MEBI)
        until(lambda: left_over(small) != [])
    until(lambda: left_over(small) == [])
    assert "admin.failed" not in small.output


def test_a_disk_that_is_full_is_told_and_a_batch_waits_for_room(small: Server, scripts: Scripts) -> None:
    """An upload is refused and not to be repeated; the batch says why it waits, and loses nothing and asks nothing twice."""
    script = scripts(Behaviour(pad_bytes=200_000))
    usual = resource.prlimit(small.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(small.pid, resource.RLIMIT_FSIZE, (FULL_AT, usual[1]))
    try:
        with client_of(small) as client:
            with pytest.raises(openai.InternalServerError) as refused:
                client.files.create(file=("a", b"x" * 8 * MEBI), purpose="user_data")
            assert (refused.value.status_code, refused.value.code) == (503, "storage_full")
            assert refused.value.response.headers["x-should-retry"] == "false"
            assert left_over(small) == []
            id_ = start(client, [chat_line(f"{n}", script.model) for n in range(40)]).id
            batch = wait(client, id_, lambda batch: batch.errors is not None)
            assert batch.status == "in_progress"
            assert ((batch.errors and batch.errors.data) or [])[0].code == "storage_full"
            resource.prlimit(small.pid, resource.RLIMIT_FSIZE, usual)
            batch = wait(client, id_)
            assert (batch.status, batch.errors) == ("completed", None)
            assert len(results(client, batch.output_file_id)) == 40
    finally:
        resource.prlimit(small.pid, resource.RLIMIT_FSIZE, usual)
    assert len(script.upstream.entries()) == 40


def until(wanted: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not wanted():
        assert time.monotonic() < deadline
        time.sleep(0.01)
