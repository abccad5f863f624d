"""Nothing that is looked for leaves a window in pieces: whatever the secret, wherever a stream is cut, however it is written."""

import base64
import json
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.guards import kinds, pii, secrets
from gateway.guards.events import Events
from gateway.guards.hidden import Decoding
from gateway.guards.masking import Restoring, Vault, mark
from gateway.guards.pii import Pii
from gateway.guards.scanner import Scanner
from gateway.guards.secrets import Secrets
from gateway.guards.window import Chained, Window
from gateway.guards.words import Patterns

PEM = "-----{} RSA PRIVATE " + "KEY-----"  # in pieces, as are the others: no file of ours has what looks like one
SECRETS = {
    "anthropic_key": "sk-" + "ant-api03-AbCdEf0123456789AbCdEf0123",
    "openai_key": "sk-" + "proj-abcdEFGH0123456789abcdEFGH",
    "penstock_key": "sk-" + "ps-0123456789abcdefABCDEF0123456789abcdefABCDE",
    "aws_access_key": "AKI" + "AIOSFODNN7EXAMPLE",
    "github_token": "ghp" + "_abcdefghijklmnopqrstuvwxyz0123456789",
    "slack_token": "xox" + "b-123456789012-abcdefghijkl",
    "google_key": "AIz" + "aSyA0123456789abcdefghijklmnopqrstuv",
    "jwt": "ey" + "JhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    "private_key": f"{PEM.format('BEGIN')}\nMIIBOgIBAAJBAK\nj34GkxFhD90v\n{PEM.format('END')}",
    "credit_card": "4111 1111 1111 1111",
    "email": "ada.lovelace@example.co.uk",
    "iban": "DE89 3704 0044 0532 0130 00",
    "us_ssn": "123-45-6789",
    "phone": "+49 30 1234567",
}
BOTH: tuple[Scanner, Scanner] = (Decoding(Secrets()), Decoding(Pii()))
FILLERS = st.text(st.sampled_from(" \n.,:;()[]{}\"'äé漢字😀abcdefg XYZ0-/@\\\u200b"), max_size=40)


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A text with some of them in it, and their names: apart from what stands around by a blank or a mark."""
    names = draw(st.lists(st.sampled_from(sorted(SECRETS)), min_size=1, max_size=3))
    parts = [draw(FILLERS)]
    for name in names:
        parts += [draw(st.sampled_from(" \n\"'(,")), SECRETS[name], draw(st.sampled_from(" \n\"'),")), draw(FILLERS)]
    return "".join(parts), names


def cut(text: str, edges: Sequence[int]) -> list[str]:
    places = sorted({0, len(text), *(edge % (len(text) + 1) for edge in edges)})
    return [text[start:end] for start, end in pairwise(places)]


def windows() -> Chained:
    return Chained([Window(scanner, lambda _, category: mark(category), runs=True) for scanner in BOTH])


def read(pieces: Sequence[str], piece: Any = None) -> str:
    made = piece or windows()
    return "".join(made.feed(one) for one in pieces) + str(made.finish())


@given(texts(), st.lists(st.integers(0, 10_000), max_size=30))
@settings(max_examples=100)
def test_a_text_is_read_the_same_however_it_is_cut(found: tuple[str, list[str]], edges: list[int]) -> None:
    text, names = found
    whole = read([text])
    assert read(cut(text, edges)) == whole
    assert read(list(text)) == whole
    for name in names:
        assert SECRETS[name] not in whole, (name, text, whole)


@given(st.sampled_from(sorted(SECRETS)), st.data())
@settings(max_examples=30)
def test_nothing_of_a_secret_is_out_before_all_of_it_is_known(name: str, data: st.DataObject) -> None:
    """At no moment a client has as much of it as would be worth something."""
    secret = SECRETS[name]
    piece, out = windows(), ""
    for one in cut(f"so it is {secret} you see", data.draw(st.lists(st.integers(0, 200), max_size=40))):
        out += piece.feed(one)
        assert not any(secret[:size] in out for size in range(8, len(secret) + 1)), out
    assert secret not in out + piece.finish()


def escaped(text: str) -> str:
    return "".join(
        f"\\u{ord(char):04x}" if ord(char) < 0x10000 and at % 3 == 0 else json.dumps(char)[1:-1]
        for at, char in enumerate(text)
    )


@given(st.sampled_from(sorted(SECRETS)), st.lists(st.integers(0, 10_000), max_size=20))
def test_escapes_inside_of_json_hide_nothing(name: str, edges: list[int]) -> None:
    text = f'{{"to": "{escaped(SECRETS[name])}", "n": 1}}'
    made = read(cut(text, edges))
    assert json.loads(made)["to"] == mark(name)


def test_base64_hides_nothing() -> None:
    for name in ("anthropic_key", "email", "github_token", "credit_card"):
        hidden = base64.b64encode(f"look: {SECRETS[name]} ok".encode()).decode()
        text = f"see {hidden} there"
        assert read([text]) == read(list(text)) == f"see {mark(name)} there"


def chat(place: int, part: str) -> dict[str, Any]:
    deltas: list[dict[str, Any]] = [
        {"content": part},
        {"reasoning_content": part},
        {"tool_calls": [{"index": 1, "function": {"arguments": part}}]},
        {"refusal": part},
    ]
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "choices": [{"index": place // 4, "delta": deltas[place % 4], "finish_reason": None}],
    }


def completion(place: int, part: str) -> dict[str, Any]:
    return {"object": "text_completion", "choices": [{"index": place, "text": part, "finish_reason": None}]}


def message(place: int, part: str) -> dict[str, Any]:
    kind, name = (("text_delta", "text"), ("thinking_delta", "thinking"), ("input_json_delta", "partial_json"))[
        place % 3
    ]
    return {"type": "content_block_delta", "index": place, "delta": {"type": kind, name: part}}


def response(place: int, part: str) -> dict[str, Any]:
    kind = (
        "response.output_text.delta",
        "response.function_call_arguments.delta",
        "response.reasoning_summary_text.delta",
    )[place % 3]
    return {"type": kind, "output_index": place, "content_index": 0, "delta": part}


def spoken(data: bytes) -> str:
    """Everything that a client of any dialect would put together, text by text."""
    heard: dict[str, str] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict):
            at = f"{path}/{value.get('index', '')}{value.get('output_index', '')}"
            for name, inner in value.items():
                walk(inner, f"{at}/{name}")
        elif isinstance(value, list):
            for inner in value:
                walk(inner, path)
        elif isinstance(value, str):
            heard[path] = heard.get(path, "") + value

    for line in data.split(b"\n"):
        if line.startswith(b"data: {"):
            walk(json.loads(line[6:]), "")
    return "\n".join(heard.values())


@pytest.mark.parametrize("dialect", [chat, completion, message, response])
@given(
    st.lists(st.tuples(st.integers(0, 7), st.sampled_from(sorted(SECRETS)), FILLERS), min_size=1, max_size=4), st.data()
)
@settings(max_examples=30)
def test_no_dialect_lets_a_secret_through(
    dialect: Callable[[int, str], dict[str, Any]], said: list[tuple[int, str, str]], data: st.DataObject
) -> None:
    """Several texts at the same time, cut anywhere, their bytes cut anywhere again."""
    queues = []
    for place, name, filler in {one[0]: one for one in said}.values():
        text = f"{filler} {SECRETS[name]} {filler}"
        queues.append([(place, part) for part in cut(text, data.draw(st.lists(st.integers(0, 500), max_size=8)))])
    body = b""
    while queues:
        queue = queues[data.draw(st.integers(0, len(queues) - 1))]
        place, part = queue.pop(0)
        body += b"data: %b\n\n" % json.dumps(dialect(place, part)).encode()
        queues = [queue for queue in queues if queue]
    events = Events(lambda _: windows())
    places = sorted(
        {0, len(body), *(edge % (len(body) + 1) for edge in data.draw(st.lists(st.integers(0, 100_000), max_size=10)))}
    )
    out = b"".join(events.feed(body[start:end]) for start, end in pairwise(places)) + events.finish()
    heard = spoken(out)
    for _, name, _ in said:
        assert SECRETS[name] not in heard


@given(
    st.lists(
        st.sampled_from(["ada@example.com", "bob@example.org", " and ", "[EMAIL_9]", "[", "]", "[EMAIL"]), max_size=8
    ),
    st.lists(st.integers(0, 999), max_size=20),
)
def test_what_is_masked_comes_back_the_same(parts: list[str], edges: list[int]) -> None:
    text = " ".join(parts)
    vault = Vault()
    vault.take([text])
    masked = read([text], Window(Pii(["email"]), vault.mask, runs=True))
    assert "example" not in masked
    assert read(cut(masked, edges), Restoring(vault, in_json=False)) == text


def test_the_names_are_those_of_what_is_found() -> None:
    assert set(pii._BY_FORM) | {"email", "iban"} == set(kinds.ENTITIES)
    assert {*secrets._FORMS, secrets.NAMED} == set(kinds.SECRETS)


@pytest.mark.parametrize("text", [
    "the quick brown fox ", "1 ", "4111 ", "a@", "a", "eyJ", "sk-ant-", ":", "-----BEGIN ", "\u200b", "\\u0041", "1.", PEM.format("BEGIN"),
    "DE89 ", "token: ", "QUJD", "http://aaaa:", "\\", "[EMAIL_1", "４", "(", "+1 ",
])  # fmt: skip
def test_time_grows_with_the_text_alone(text: str) -> None:
    """Ten times the text takes about ten times as long, and not a hundred."""

    def taken(size: int) -> float:
        long = text * (size // len(text))
        began = time.process_time()
        read([long])
        return time.process_time() - began

    bound = 25 * taken(15_000) + 0.5
    assert any(taken(150_000) < bound for _ in range(3)), "what collects garbage in between is not the text's fault"


def test_a_catastrophic_pattern_is_none() -> None:
    patterns = Patterns([("evil", r"^(a+)+$"), ("worse", r"(x|xx)+y")])
    began = time.process_time()
    read(["a" * 200_000 + "!", "x" * 200_000], Window(patterns, lambda _, category: mark(category), runs=False))
    assert time.process_time() - began < 5


def test_what_waits_is_bounded() -> None:
    key = f"{PEM.format('BEGIN')}\n" + "x y\n" * 5000
    for text in ("A1-" * 7000, "\u200b" * 120_000, "\\u0041" * 12_000, key):
        window = Window(BOTH[0], lambda _, category: mark(category), runs=True)
        for at in range(0, len(text), 4096):
            window.feed(text[at : at + 4096])
            assert len(window._raw) <= 8 * 8320 + 4096
