"""However a call ends, its hold ends with it: clients that leave, upstreams that fail, before and after the first byte."""

import time
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from gateway.database import connect
from tests.fixtures.fleet import INPUT, OUTPUT, USD, Line, shipped
from tests.fixtures.raw import Raw, chat, head
from tests.fixtures.server import QUICK, Json, Scripted, Scripts, Server, refused_port
from tests.fixtures.upstream import Upstream
from tests.upstream.behaviour import Behaviour

MAX_TOKENS = 50
ONCE = {"attempts": 0}


class Payer:
    """A key with a budget of 1 USD, and what the books say about its calls."""

    def __init__(self, server: Server, engine: Engine) -> None:
        answer = server.admin.post("/keys", json={"name": "payer", "budget": {"limit_usd": 1, "period": "total"}})
        assert answer.status_code == 201, answer.text
        self.server = server
        self.key: str = answer.json()["key"]
        self._budget: str = answer.json()["budget"]["id"]
        self._engine = engine
        server.await_key(self.key, known=True)

    def send(self, raw: Raw, model: str, *, stream: bool = False) -> None:
        body = chat(self.server, model, stream=stream, max_tokens=MAX_TOKENS)
        raw.send(head(self.server, f"content-length: {len(body)}", key=self.key), body)

    def line(self, script: Scripted) -> Line:
        """The one entry of a script's one call, which a kept connection may have brought twice."""
        (id_,) = {entry.header("x-request-id") for entry in script.upstream.entries()}
        deadline = time.monotonic() + 20
        while not (found := [line for line in shipped(self._engine) if line.id == id_]):
            assert time.monotonic() < deadline, "the call has no entry"
            time.sleep(0.05)
        (line,) = found
        return line

    def state(self) -> Json:
        state: Json = self.server.admin.get(f"/budgets/{self._budget}").json()
        return state

    def spent(self) -> int:
        """Nano-dollars, once nothing is held."""
        deadline = time.monotonic() + 20
        while (state := self.state())["held_usd"] != 0:
            assert time.monotonic() < deadline, f"a hold stayed open: {state}"
            time.sleep(0.1)
        assert state["remaining_usd"] == pytest.approx(1 - state["settled_usd"], abs=1e-12)
        return round(float(state["settled_usd"]) * USD)


@pytest.fixture(scope="module")
def paid_server(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Every model has a price, and one attempt: what several cost together, tests/resilience shows."""
    rates = {"input": INPUT / 1000, "output": OUTPUT / 1000}
    with refused_port() as port:
        here = {"base_url": upstream.base_url, "model": "*", "api_key": "sk-up", "price": rates}
        gone = {"id": "gone", "base_url": f"http://127.0.0.1:{port}/v1", "model": "x", "price": rates}
        models = [
            {"name": "s/*", "deployments": [{"id": "s", **here}], "retries": ONCE},
            {"name": "quick/*", "deployments": [{"id": "quick", **here}], "timeouts": QUICK, "retries": ONCE},
            {"name": "gone", "deployments": [gone], "retries": ONCE},
        ]
        server = Server({"models": models}, tmp_path_factory.mktemp("paid")).start(with_key=False)
        yield server
        server.stop()


@pytest.fixture
def payer(paid_server: Server) -> Iterator[Payer]:
    """Its budget holds nothing when the test is over, or the test fails."""
    engine = connect(f"sqlite:///{paid_server.data / 'penstock.db'}")
    payer = Payer(paid_server, engine)
    yield payer
    payer.spent()
    engine.dispose()


def test_a_client_that_leaves_a_stream_pays_for_what_it_got(payer: Payer, scripts: Scripts) -> None:
    """Five pieces were read: at least five tokens are settled, far less than the worst case, and the upstream is left at once."""
    script = scripts(Behaviour(text="word", chunks=40, held_after=10))
    with Raw(payer.server) as raw:
        payer.send(raw, script.model, stream=True)
        for _ in range(6):  # the first event has no content
            raw.until(b"\n\n")
        assert payer.state()["held_usd"] > 0

    assert script.upstream.ended().outcome == "client_left"
    line = payer.line(script)
    assert (line.source, line.reason) == ("estimated", "disconnect")
    assert 5 <= line.output_tokens < 40
    assert payer.spent() == line.cost_nanousd == price(line)


def test_a_client_that_leaves_before_the_answer_pays_the_worst_case(payer: Payer, scripts: Scripts) -> None:
    """The upstream may have done all the work, and nobody can know."""
    script = scripts(Behaviour(held_after=-1))
    with Raw(payer.server) as raw:
        payer.send(raw, script.model)
        script.upstream.wait(lambda entries: len(entries) == 1)

    assert script.upstream.ended().outcome == "client_left"
    line = payer.line(script)
    assert (line.source, line.reason) == ("estimated", "disconnect")
    assert line.output_tokens == MAX_TOKENS
    assert payer.spent() == line.cost_nanousd == price(line)


def test_an_upstream_that_refuses_is_owed_nothing(payer: Payer, scripts: Scripts) -> None:
    """An error with a status of its own: the call has an entry, and it costs nothing."""
    script = scripts(Behaviour(status=500))
    with Raw(payer.server) as raw:
        payer.send(raw, script.model)
        assert raw.reply().status >= 500

    line = payer.line(script)
    assert (line.cost_nanousd, line.reason) == (0, "failure")
    assert payer.spent() == 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("behaviour", "quick"),
    [(Behaviour(fault="fin"), False), (Behaviour(fault="rst"), False), (Behaviour(fault="silence"), True)],
)
def test_an_upstream_that_dies_before_the_first_byte_costs_the_worst_case(
    payer: Payer, scripts: Scripts, behaviour: Behaviour, quick: bool, stream: bool
) -> None:
    """It had the request, and what it did with it only its bill will tell."""
    script = scripts(behaviour, quick=quick)
    with Raw(payer.server) as raw:
        payer.send(raw, script.model, stream=stream)
        assert raw.reply().status in (502, 504)

    line = payer.line(script)
    assert (line.source, line.reason, line.output_tokens) == ("estimated", "failure", MAX_TOKENS)
    assert payer.spent() == line.cost_nanousd == price(line)


@pytest.mark.parametrize("fault", ["fin", "rst", "silence", "bad_framing", "error_event"])
def test_a_stream_that_breaks_costs_what_came(payer: Payer, scripts: Scripts, fault: str) -> None:
    """Eight pieces came before it broke: at least as many tokens are settled, and not all that was held."""
    breaks = Behaviour(text="word", chunks=20, fault=fault, fault_after=9)  # type: ignore[arg-type]  # a Fault
    script = scripts(breaks, quick=fault == "silence")
    with Raw(payer.server) as raw:
        payer.send(raw, script.model, stream=True)
        answer = raw.reply()
    delivered = answer.body.count(b'"content":"') - 1  # the first one is empty

    assert answer.status == 200
    assert b"[DONE]" not in answer.body
    line = payer.line(script)
    assert (line.source, line.reason) == ("estimated", "failure")
    assert max(1, delivered) <= line.output_tokens < MAX_TOKENS
    assert payer.spent() == line.cost_nanousd == price(line)


def test_what_never_reached_an_upstream_leaves_neither_entry_nor_hold(payer: Payer, scripts: Scripts) -> None:
    """Nobody listens there, or whoever does is too busy: what was held is free again, and nothing was spent."""
    busy = scripts(Behaviour(status=503))
    for model in ("gone", busy.model):
        with Raw(payer.server) as raw:
            payer.send(raw, model)
            assert raw.reply().status in (502, 503)

    assert payer.spent() == 0


def test_a_stream_that_reports_its_usage_costs_that(payer: Payer, scripts: Scripts) -> None:
    """To its end, with the provider's own numbers."""
    script = scripts(Behaviour(text="word", chunks=10, prompt_tokens=33, completion_tokens=44))
    with Raw(payer.server) as raw:
        payer.send(raw, script.model, stream=True)
        assert b"[DONE]" in raw.reply().body

    line = payer.line(script)
    assert (line.source, line.reason, line.input_tokens, line.output_tokens) == ("provider", "done", 33, 44)
    assert payer.spent() == line.cost_nanousd == price(line)


def price(line: Line) -> int:
    """In nano-dollars."""
    return line.input_tokens * INPUT + line.output_tokens * OUTPUT
