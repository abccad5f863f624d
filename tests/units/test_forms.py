"""Forms are read as offsets; what two readers could read differently is refused, so that the upstream reads the form that was checked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from python_multipart.multipart import FormParser

from gateway.errors import BadRequest
from gateway.units.forms import read_form

BOUNDARY = b"7f3a"
KIND = b"multipart/form-data; boundary=7f3a"
NAMES = st.sampled_from(["model", "prompt", "n", "image[]", "file", "x-1.y_z"])


def part(name: str, value: bytes, filename: str | None = None) -> bytes:
    head = f'content-disposition: form-data; name="{name}"'
    if filename is not None:
        head += f'; filename="{filename}"\r\ncontent-type: application/octet-stream'
    return head.encode() + b"\r\n\r\n" + value


def form(*parts: bytes) -> bytes:
    return b"".join(b"--7f3a\r\n" + one + b"\r\n" for one in parts) + b"--7f3a--\r\n"


def elsewhere(body: bytes) -> list[tuple[str, bytes]] | None:
    """What the parser of most Python servers makes of it; None if it refuses."""
    found: list[tuple[str, bytes]] = []

    def field(one: object) -> None:
        found.append((one.field_name.decode("latin-1"), one.value or b""))  # type: ignore[attr-defined]

    def file(one: object) -> None:
        one.file_object.seek(0)  # type: ignore[attr-defined]
        found.append((one.field_name.decode("latin-1"), one.file_object.read()))  # type: ignore[attr-defined]

    try:
        parser = FormParser("multipart/form-data", field, file, boundary=BOUNDARY)
        parser.write(body)
        parser.finalize()
    except Exception:  # noqa: BLE001 — whatever it says, it refuses
        return None
    return found


@given(st.lists(st.tuples(NAMES, st.binary(max_size=40), st.booleans()), min_size=1, max_size=6))
def test_what_was_written_is_read(parts: list[tuple[str, bytes, bool]]) -> None:
    """Every value, byte for byte, at its place; a value that has the delimiter in it is refused or ends there."""
    parts = [(name, value.replace(b"--7f3a", b""), file) for name, value, file in parts]
    body = form(*(part(name, value, "a.bin" if file else None) for name, value, file in parts))
    read = read_form(body, KIND)
    assert [(one.name, bytes(read.bytes_of(one)), one.file) for one in read.parts] == parts


@given(st.data())
def test_a_form_that_was_changed_is_refused_or_read_as_others_read_it(data: st.DataObject) -> None:
    """Bytes replaced, inserted or removed anywhere: nobody gets a second `model` past the check."""
    body = bytearray(form(part("model", b"chat"), part("n", b"1"), part("file", b"\0\1", "a.wav")))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body)))
        insert = data.draw(
            st.sampled_from([b"", b"\r\n", b"\n", b"--7f3a", b'"', b";", b" ", b"--", b"\0", b'; name="n"', b"\r"])
        )
        body[at : at + data.draw(st.integers(0, 3))] = insert
    try:
        read = read_form(bytes(body), KIND)
    except BadRequest:
        return
    theirs = elsewhere(bytes(body))
    ours = [(one.name, bytes(read.bytes_of(one))) for one in read.parts]
    assert theirs is None or theirs == ours


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--7f3a--\r\n--7f3a\r\n",
        form(part("model", b"a")).replace(b"--7f3a--", b""),
        form(part("model", b"a")) + b"more",
        form(b'content-disposition: form-data; name="model"; filename="x"; name="n"\r\n\r\na'),
        form(b'content-disposition: form-data; name="model"\r\ncontent-transfer-encoding: base64\r\n\r\nYQ=='),
        form(b'content-disposition: form-data; name="mo\xc3\xb6del"\r\n\r\na'),
        form(b"content-type: text/plain\r\n\r\na"),
        form(b"x" * 5000),
        form(*[part("x", b"")] * 257),
        b"--7f3ab\r\n" + part("model", b"a") + b"\r\n--7f3a--\r\n",
    ],
)
def test_what_is_no_clean_form_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest) as refused:
        read_form(body, KIND)
    assert refused.value.code == "invalid_form"


@pytest.mark.parametrize(
    "kind",
    [
        None,
        b"application/json",
        b"multipart/form-data",
        b"multipart/mixed; boundary=7f3a",
        b"multipart/form-data; boundary=",
    ],
)
def test_a_content_type_without_a_boundary_is_refused(kind: bytes | None) -> None:
    with pytest.raises(BadRequest) as refused:
        read_form(form(part("model", b"a")), kind)
    assert refused.value.code == "unsupported_content_type"


def test_a_boundary_may_be_quoted_and_have_neighbours() -> None:
    """RFC 2045 parameters; the upstream is told the boundary alone."""
    read = read_form(form(part("model", b"a")), b'Multipart/Form-Data; charset=utf-8; Boundary="7f3a"')
    assert read.content_type == b'multipart/form-data; boundary="7f3a"'


def test_a_field_that_decides_something_may_come_once() -> None:
    read = read_form(form(part("n", b"1"), part("n", b"9")), KIND)
    with pytest.raises(BadRequest) as refused:
        read.number("n", 1, 10)
    assert (refused.value.code, refused.value.param) == ("duplicate_parameter", "n")


@pytest.mark.parametrize("value", [b"0", b"11", b"-1", b"1.5", b"x", "²".encode(), b"9" * 5000])
def test_a_number_is_a_number(value: bytes) -> None:
    with pytest.raises(BadRequest):
        read_form(form(part("n", value)), KIND).number("n", 1, 10)
