"""What a call is charged equals what the upstream bills, per character, second, image, search unit and token, and says who counted."""

import httpx
import pytest

from gateway import ledger_export
from gateway.journal_records import Settled
from gateway.ledger_entries import entry
from gateway.usage import usage
from gateway.used import Usage
from tests.fixtures.deployments import Route, Routes
from tests.fixtures.server import Json
from tests.upstream.behaviour import Behaviour
from tests.upstream.journal import Entry
from tests.upstream.units_dialect import recording

RATES = {"characters": 15_000, "seconds": 100_000, "images": 40_000_000, "search_units": 2_000_000}  # nano-dollars
UNITS = {"per_character": 15e-6, "per_second": 1e-4, "per_image": 0.04, "per_search_unit": 0.002}
TOKENS = {"input": 5, "output": 10}  # USD per million: 5,000 and 10,000 nano-dollars a token
TAPE = {"file": ("tape.wav", recording(2.5), "audio/wav")}
PICTURE = {"image": ("a.png", b"\x89PNG", "image/png")}


def bill(entry: Entry) -> int:
    """What the upstream asks for a call, in nano-dollars."""
    units = round(sum(RATES[unit] * count for unit, count in entry.units.items()))
    return units + entry.prompt_tokens * 5_000 + entry.completion_tokens * 10_000


def call(routes: Routes, path: str, route: Route, *, files: object = None, **fields: object) -> httpx.Response:
    headers = {"authorization": f"Bearer {routes.server.key}"}
    body = {"model": route.name, **fields}
    if files is None:
        return routes.server.http.post(path, json=body, headers=headers)
    return routes.server.http.post(path, data=body, files=files, headers=headers)  # type: ignore[arg-type]


def billed(routes: Routes, route: Route, answer: httpx.Response) -> Json:
    """The call's record, which agrees with the upstream."""
    assert answer.status_code == 200, answer.text
    record = routes.record(answer)
    entry = route.places[0].handle.ended()
    assert record["cost_nanousd"] == bill(entry)
    assert record["units"] == entry.units
    if "x-penstock-cost-usd" in answer.headers:
        assert round(float(answer.headers["x-penstock-cost-usd"]) * 1e9) == bill(entry)
    return record


DOCUMENTS = ["a gate", "a river", "the gate of a river"] * 50


@pytest.mark.parametrize(
    ("path", "fields", "files", "source"),
    [
        ("/v1/audio/speech", {"input": "héllo", "voice": "v"}, None, "counted"),
        ("/v1/audio/speech", {"input": "héllo", "voice": "v", "stream_format": "sse"}, None, "counted"),
        ("/v1/audio/transcriptions", {}, TAPE, "provider"),
        ("/v1/audio/transcriptions", {"response_format": "verbose_json"}, TAPE, "provider"),
        ("/v1/audio/transcriptions", {"response_format": "diarized_json"}, TAPE, "provider"),
        ("/v1/audio/transcriptions", {"response_format": "text"}, TAPE, "counted"),
        ("/v1/audio/transcriptions", {"response_format": "srt"}, TAPE, "counted"),
        ("/v1/audio/transcriptions", {"response_format": "vtt"}, {"file": ("a.webm", b"\x1aE" * 600)}, "estimated"),
        ("/v1/audio/transcriptions", {"stream": "true"}, TAPE, "provider"),
        ("/v1/audio/translations", {}, TAPE, "provider"),
        ("/v1/images/generations", {"prompt": "a gate", "n": 3}, None, "counted"),
        ("/v1/images/generations", {"prompt": "a gate", "stream": True, "partial_images": 1}, None, "counted"),
        ("/v1/images/edits", {"prompt": "a gate", "n": 2}, PICTURE, "counted"),
        ("/v1/images/variations", {}, PICTURE, "counted"),
        ("/v1/rerank", {"query": "the gate", "documents": DOCUMENTS}, None, "counted"),
    ],
)
def test_a_call_costs_what_the_upstream_bills_by_the_unit(
    routes: Routes, path: str, fields: dict[str, object], files: object, source: str
) -> None:
    """What nobody reports is counted from the request; a recording whose container is silent is estimated from its subtitles."""
    route = routes(Behaviour(), deployment={"price": UNITS})
    record = billed(routes, route, call(routes, path, route, files=files, **fields))
    assert record["usage_source"] == source


@pytest.mark.parametrize(
    ("path", "fields", "files"),
    [
        ("/v1/audio/speech", {"input": "hello", "voice": "v", "stream_format": "sse"}, None),
        ("/v1/audio/transcriptions", {}, TAPE),
        ("/v1/audio/transcriptions", {"stream": "true"}, TAPE),
        ("/v1/images/generations", {"prompt": "a gate", "n": 3}, None),
        ("/v1/images/generations", {"prompt": "a gate", "stream": True, "partial_images": 2}, None),
        ("/v1/images/edits", {"prompt": "a gate", "stream": "true"}, PICTURE),
        ("/v1/rerank", {"query": "the gate", "documents": DOCUMENTS}, None),
    ],
)
def test_a_call_costs_what_the_upstream_bills_by_the_token(
    routes: Routes, path: str, fields: dict[str, object], files: object
) -> None:
    """The provider's word, whichever shape it has."""
    route = routes(Behaviour(by_token=True), deployment={"price": TOKENS})
    answer = call(routes, path, route, files=files, **fields)
    record = routes.record(answer)
    entry = route.places[0].handle.ended()
    assert answer.status_code == 200, answer.text
    assert record["cost_nanousd"] == entry.prompt_tokens * 5_000 + entry.completion_tokens * 10_000
    assert record["usage_source"] == "provider"


def test_search_units_are_the_provider_s_word(routes: Routes) -> None:
    """Cohere says how many it billed."""
    route = routes(Behaviour(), deployment={"price": UNITS, "provider": "cohere"})
    answer = call(routes, "/v2/rerank", route, query="the gate", documents=DOCUMENTS)
    assert billed(routes, route, answer)["usage_source"] == "provider"


def test_moderations_are_free_where_the_price_says_so(routes: Routes) -> None:
    """A price of zero is a price: nothing is owed, and the cost is known."""
    route = routes(Behaviour(), deployment={"price": {"input": 0, "output": 0}})
    record = routes.record(call(routes, "/v1/moderations", route, input="be kind"))
    assert record["cost_nanousd"] == 0


def test_sound_without_a_report_is_estimated_by_the_token(routes: Routes) -> None:
    """Who bills by the token and says nothing is charged for what the text is likely to take."""
    route = routes(Behaviour(), deployment={"price": TOKENS})
    record = routes.record(call(routes, "/v1/audio/speech", route, input="hello there", voice="v"))
    assert (record["usage_source"], record["cost_nanousd"]) == ("estimated", 2 * 5_000 + 22 * 10_000)


@pytest.mark.parametrize(
    ("unknown", "status", "cost"), [("flag", 200, None), ("deny", 403, None), ("hold", 200, 10_000_000)]
)
def test_a_price_that_says_nothing_of_a_call_is_unknown(
    routes: Routes, unknown: str, status: int, cost: int | None
) -> None:
    """A model that is priced by the character does not make pictures for nothing."""
    pricing = {"unknown": unknown, **({"hold_usd": 0.01} if unknown == "hold" else {})}
    route = routes(Behaviour(), deployment={"price": {"per_character": 15e-6}}, pricing=pricing)
    answer = call(routes, "/v1/images/generations", route, prompt="a gate")
    assert answer.status_code == status
    record = routes.record(answer)
    assert record["cost_nanousd"] == cost
    assert (record["error_code"] == "unknown_price") is (status == 403)


def test_the_worst_case_is_held_before_the_call(routes: Routes) -> None:
    """Ten pictures do not fit into a budget for nine; nothing reaches the upstream. One for ten takes them, to the nano-dollar."""
    route = routes(Behaviour(), deployment={"price": UNITS})
    server = routes.server
    for limit, status in ((0.36, 429), (0.4, 200)):
        made = server.admin.post("/keys", json={"name": "k", "budget": {"limit_usd": limit, "period": "total"}}).json()
        server.await_key(made["key"], known=True)
        answer = server.post(
            "/v1/images/generations", {"model": route.name, "prompt": "a gate", "n": 10}, key=made["key"]
        )
        assert answer.status_code == status, answer.text
        if status == 429:
            assert answer.json()["error"]["code"] == "budget_exceeded"
            assert route.asked == [0]


def test_a_recording_that_could_be_long_is_held_as_long(routes: Routes) -> None:
    """A hundred kilobytes of an unknown container are held as two hundred seconds, and settled as the provider says."""
    route = routes(Behaviour(), deployment={"price": UNITS})
    server = routes.server
    made = server.admin.post("/keys", json={"name": "k", "budget": {"limit_usd": 0.019, "period": "total"}}).json()
    server.await_key(made["key"], known=True)

    def upload(size: int) -> httpx.Response:
        return server.http.post(
            "/v1/audio/transcriptions",
            data={"model": route.name},
            files={"file": ("a.webm", b"\x1a" * size)},
            headers={"authorization": f"Bearer {made['key']}"},
        )

    assert upload(100_000).status_code == 429
    billed(routes, route, upload(50_000))


def test_a_failed_call_is_settled_by_what_was_done(routes: Routes) -> None:
    """A refusal costs nothing, a broken answer its worst case; the client gets the second deployment's answer."""
    broken = Behaviour(fault="fin")
    route = routes(broken, Behaviour(), deployment={"price": UNITS})
    answer = call(routes, "/v1/audio/speech", route, input="hello", voice="v")
    assert answer.status_code == 200
    first, last = routes.records(answer)
    assert (first["usage_source"], first["cost_nanousd"]) == ("estimated", 5 * 15_000)
    assert (last["usage_source"], last["deployment"]) == ("counted", route.places[1].id)
    refused = routes(Behaviour(status=400), deployment={"price": UNITS})
    record = routes.record(call(routes, "/v1/audio/speech", refused, input="hello", voice="v"))
    assert (record["usage_source"], record["cost_nanousd"]) == ("provider", 0)


def test_focus_counts_what_a_call_is_billed_by() -> None:
    """Tokens where there are any, else the unit, else the request."""

    def consumed(used: Usage) -> tuple[float, str]:
        settled = Settled("req_1", 1.0, "speech", 200, "counted", 1, used)
        return ledger_export._consumed(entry(settled, "s", 1))

    assert consumed(usage(3, 4, characters=5)) == (7, "Tokens")
    assert consumed(usage(characters=5)) == (5, "Characters")
    assert consumed(usage(seconds=2.5)) == (2.5, "Seconds")
    assert consumed(usage()) == (1, "Requests")
