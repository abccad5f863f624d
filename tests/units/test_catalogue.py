"""`/v1/models`: what a caller may use, with kinds, sizes, prices and ends of life; the admin also sees who serves it."""

from collections.abc import Iterator

import pytest

from tests.fixtures.server import Json, Server
from tests.fixtures.upstream import Upstream

REQUIRED = {"id", "object", "created", "owned_by"}


@pytest.fixture(scope="module")
def listed(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    def place(id_: str, model: str, **fields: object) -> Json:
        return {"id": id_, "base_url": upstream.base_url, "model": model, **fields}

    models = [
        {"name": "gpt", "aliases": ["best"], "deployments": [place("a", "gpt-4o")]},
        {"name": "own", "deployments": [place("b", "secret-name")]},
        {"name": "tape", "deployments": [place("c", "whisper-1")]},
        {
            "name": "two",
            "fallbacks": ["own"],
            "deployments": [
                place("d", "gpt-4o", price={"input": 1, "output": 9}),
                place("e", "gpt-4o", price={"input": 2, "output": 8}, max_input_tokens=1000),
            ],
        },
        {"name": "gpt-*", "deployments": [place("f", "gpt-*")]},
        {"name": "draw", "deployments": [place("g", "x", kinds=["image"], price={"per_image": 0.04})]},
    ]
    server = Server({"models": models}, tmp_path_factory.mktemp("listed")).start()
    yield server
    server.stop()


def card(server: Server, name: str, key: str | None = None) -> Json:
    answer = server.http.get(f"/v1/models/{name}", headers={"authorization": f"Bearer {key or server.key}"})
    assert answer.status_code == 200, answer.text
    made: Json = answer.json()
    return made


def test_every_row_has_openai_s_fields(listed: Server) -> None:
    """Extras stand beside them, in the list and alone; who is no admin learns nothing of deployments."""
    answer = listed.http.get("/v1/models", headers={"authorization": f"Bearer {listed.key}"}).json()
    assert answer["object"] == "list"
    assert [row["id"] for row in answer["data"]] == ["best", "draw", "gpt", "gpt-*", "own", "tape", "two"]
    for row in answer["data"]:
        assert row.keys() >= REQUIRED
        assert "deployments" not in row
        if row["id"] != "gpt-*":
            assert card(listed, row["id"]) == row


def test_a_known_model_says_what_it_is(listed: Server) -> None:
    row = card(listed, "gpt")
    assert row["kinds"] == ["chat"]
    assert row["endpoints"] == ["/v1/chat/completions", "/v1/messages", "/v1/responses"]
    assert (row["context_window"], row["max_output_tokens"]) == (128_000, 16_384)
    assert {"tools", "vision", "json_schema"} <= set(row["capabilities"])
    assert (row["pricing"]["input"], row["pricing"]["output"], row["pricing"]["cached_input"]) == (2.5, 10, 1.25)
    assert row["pricing"]["service_tiers"]["batch"]["input"] == 1.25
    assert row["deprecation_date"] is not None
    assert card(listed, "best") == {**row, "id": "best"}
    assert card(listed, "gpt-4o")["pricing"] == row["pricing"]


def test_what_nobody_knows_is_null(listed: Server) -> None:
    row = card(listed, "own")
    names = ("kinds", "endpoints", "context_window", "max_output_tokens", "capabilities", "pricing", "deprecation_date")
    assert [row[name] for name in names] == [None] * len(names)


def test_units_have_their_prices(listed: Server) -> None:
    tape, draw = card(listed, "tape"), card(listed, "draw")
    assert tape["pricing"] == {"per_second": 0.0001}
    assert tape["endpoints"] == ["/v1/audio/transcriptions", "/v1/audio/translations"]
    assert (draw["kinds"], draw["pricing"]) == (["image"], {"per_image": 0.04})


def test_several_deployments_promise_what_all_of_them_keep(listed: Server) -> None:
    row = card(listed, "two")
    assert row["context_window"] == 1000
    assert row["pricing"] == {"input": 2, "output": 9}


def test_the_admin_sees_who_serves_it(listed: Server) -> None:
    key = listed.admin.headers["authorization"].removeprefix("Bearer ")
    row = card(listed, "two", key)
    assert row["fallbacks"] == ["own"]
    assert [place["id"] for place in row["deployments"]] == ["d", "e"]
    assert [place["pricing"] for place in row["deployments"]] == [{"input": 1, "output": 9}, {"input": 2, "output": 8}]
    assert "api_key" not in str(row)


def test_a_key_sees_its_own_models(listed: Server) -> None:
    key = listed.new_key(models=["own"])
    answer = listed.http.get("/v1/models", headers={"authorization": f"Bearer {key}"}).json()
    assert [row["id"] for row in answer["data"]] == ["own"]
    assert listed.http.get("/v1/models/gpt", headers={"authorization": f"Bearer {key}"}).status_code == 404
