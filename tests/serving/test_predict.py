"""`/v1/predict` and `/invocations` on the real process: the library's own numbers, strict input, one account, one path."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest

from tests.fixtures.predictions import Serving
from tests.serving import library
from tests.serving.models import Trained

DATA = ("cancer", "wine", "diabetes", "digits")
GOOD = {"number": 1.5, "count": 3, "tiny": 255, "flag": True, "colour": "red"}


def same(answer: dict[str, Any], model: Trained, count: int) -> None:
    np.testing.assert_allclose(answer["predictions"], model.predictions[:count], rtol=1e-5)
    assert ("probabilities" in answer) == (model.probabilities is not None)
    if model.probabilities is not None:
        np.testing.assert_allclose(answer["probabilities"], model.probabilities[:count], rtol=1e-4, atol=1e-6)


def refusal(answer: httpx.Response, status: int, code: str, param: str | None = None) -> None:
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code), answer.text
    assert set(error) == {"message", "type", "param", "code"}
    if param is not None:
        assert error["param"] == param, answer.text


@pytest.mark.parametrize("name", DATA)
def test_predictions_equal_the_librarys_in_every_form(
    predicting: Serving, trained: dict[str, Trained], name: str
) -> None:
    """Records, lists in order, columns, a data frame's split and records, and CSV all say the same."""
    model, count = trained[name], 20
    records = model.records(count)
    names = list(records[0])
    rows = [[record[one] for one in names] for record in records]
    forms: list[dict[str, Any]] = [
        {"instances": records},
        {"instances": model.rows[:count].tolist()},
        {"inputs": {one: [record[one] for record in records] for one in names}},
        {"inputs": rows},
        {"dataframe_records": records},
        {"dataframe_split": {"columns": names, "index": list(range(count)), "data": rows}},
    ]
    for form in forms:
        for path in (f"/v1/predict/{name}", f"/v1/predict/{name}/invocations"):
            answer = predicting.post(path, form)
            assert answer.status_code == 200, answer.text
            same(answer.json(), model, count)
    if name != "digits":
        lines = [",".join(names), *(",".join(map(str, row)) for row in rows)]
        headers = {"authorization": f"Bearer {predicting.key}", "content-type": "text/csv"}
        answer = predicting.http.post(f"/v1/predict/{name}/invocations", content="\n".join(lines), headers=headers)
        same(answer.json(), model, count)


def test_an_answer_names_itself_its_model_and_its_version(predicting: Serving, trained: dict[str, Trained]) -> None:
    """The id of the body is that of the headers and, later on, of the record, the capture and the feedback."""
    answer = predicting.post("/v1/predict/wine", {"instances": trained["wine"].records(1)})
    told = answer.json()
    assert list(told) == ["id", "model", "version", "predictions", "probabilities"]
    assert told["id"] == answer.headers["x-request-id"] == answer.headers["x-prediction-id"]
    assert (told["model"], told["version"]) == ("wine", 1)
    assert answer.headers["x-penstock-deployment"] == "wine:1"


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"count": "3"}, "invalid_type", "instances[0].count"),
        ({"count": 1.5}, "invalid_type", "instances[0].count"),
        ({"count": 1 << 31}, "out_of_range", "instances[0].count"),
        ({"count": 10**400}, "out_of_range", "instances[0].count"),
        ({"count": None}, "null_not_allowed", "instances[0].count"),
        ({"tiny": -1}, "out_of_range", "instances[0].tiny"),
        ({"flag": 1}, "invalid_type", "instances[0].flag"),
        ({"colour": "blue"}, "unknown_category", "instances[0].colour"),
        ({"colour": 7}, "invalid_type", "instances[0].colour"),
        ({"number": True}, "invalid_type", "instances[0].number"),
        ({"number": [1.0]}, "invalid_type", "instances[0].number"),
        ({"number": {"deep": 1}}, "invalid_type", "instances[0].number"),
        ({"half": 1e6}, "out_of_range", "instances[0].half"),
        ({"other": 1}, "unknown_feature", "instances[0].other"),
    ],
)
def test_a_value_that_does_not_fit_is_named(predicting: Serving, change: dict[str, Any], code: str, param: str) -> None:
    """The place as the client wrote it; nothing was run."""
    refusal(predicting.post("/v1/predict/strict", {"instances": [{**GOOD, **change}]}), 400, code, param)


def test_missing_values_are_taken_where_the_column_allows_them(predicting: Serving) -> None:
    """A null number is NaN for the model, and null again on the way out."""
    answer = predicting.post("/v1/predict/strict", {"instances": [{**GOOD, "number": None, "note": None}]})
    assert answer.json()["predictions"] == [None], answer.text
    short = {name: value for name, value in GOOD.items() if name != "colour"}
    refusal(
        predicting.post("/v1/predict/strict", {"instances": [GOOD, short]}),
        400,
        "missing_feature",
        "instances[1].colour",
    )


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"[]", 400, "invalid_json"),
        (b'{"instances": [{"x": 1}', 400, "invalid_json"),
        (b'{"instances": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "invalid_json"),
        (b'{"instances": ["\xff"]}', 400, "invalid_json"),
        (b'{"instances": [{"x": NaN}]}', 400, "invalid_json"),
        (b'{"instances": []}', 400, "no_rows"),
        (b'{"instances": {}}', 400, "invalid_type"),
        (b'{"instances": [[1, 2]]}', 400, "invalid_shape"),
        (b'{"instances": [{"x": 1}], "inputs": {}}', 400, "invalid_body"),
        (b'{"rows": [{"x": 1}]}', 400, "unknown_field"),
        (b'{"inputs": {"x": 1}}', 400, "invalid_type"),
        (b'{"dataframe_split": {"columns": ["x", "x"], "data": [[1, 1]]}}', 400, "duplicate_feature"),
        (b'{"dataframe_split": {"columns": ["x"], "data": [[1], [1, 2]]}}', 400, "invalid_shape"),
        (b'{"instances": [' + b'{"x": 1},' * 2000 + b'{"x": 1}]}', 413, "too_many_rows"),
        (b'{"instances": [{"x": 1}], "version": "two"}', 400, "invalid_version"),
        (b'{"instances": [{"x": 1e999}]}', 400, None),
        (b" " * (5 << 20), 413, "request_too_large"),
    ],
)
def test_a_body_that_is_none_is_the_clients_fault(
    predicting: Serving, body: bytes, status: int, code: str | None
) -> None:
    """Broken, deep, huge or empty: a 4xx of the usual shape, and the next call works."""
    answer = predicting.post("/v1/predict/echo", body)
    if code is None:
        assert answer.status_code == status, answer.text
    else:
        refusal(answer, status, code)
    assert predicting.post("/v1/predict/echo", {"instances": [{"x": 2}]}).json()["predictions"] == [2.0]


def test_columns_of_different_lengths_are_refused(predicting: Serving) -> None:
    """A row is a row in every column."""
    columns = {"number": [1.0, 2.0], "count": [1], "tiny": [1, 1], "flag": [True, True], "colour": ["red", "red"]}
    refusal(predicting.post("/v1/predict/strict", {"inputs": columns}), 400, "row_count_mismatch", "inputs.count")


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("raise", 500, "model_failed"),
        ("die", 500, "model_failed"),
        ("hang", 504, "model_timeout"),
        ("threaded-hang", 504, "model_timeout"),
        ("short", 500, "invalid_output"),
        ("wide", 500, "invalid_output"),
        ("nameless", 500, "invalid_output"),
        ("no_load", 500, "model_load_failed"),
    ],
)
def test_a_model_that_misbehaves_is_named_and_harms_nobody_else(
    predicting: Serving, name: str, status: int, code: str
) -> None:
    """It raised, died, did not return or gave nonsense; it costs nothing, and is there again for the next call."""
    answer = predicting.post(f"/v1/predict/{name}", {"instances": [{"x": 13}]})
    refusal(answer, status, code)
    assert f"'{name}'" in answer.json()["error"]["message"]
    assert predicting.post("/v1/predict/echo", {"instances": [{"x": 1}]}).status_code == 200
    if name in {"raise", "die", "hang", "threaded-hang"}:
        again = predicting.post(f"/v1/predict/{name}", {"instances": [{"x": 0}]})
        assert again.json()["predictions"] == [0.0], again.text


def test_a_version_is_chosen_by_number_alias_query_header_or_body(predicting: Serving) -> None:
    """Without a word it is the champion."""
    one = {"instances": [{"x": 1}]}

    def version(path: str, body: dict[str, Any] = one, **headers: str) -> int:
        answer = predicting.http.post(
            f"/v1/predict/{path}", json=body, headers={"authorization": f"Bearer {predicting.key}", **headers}
        )
        assert answer.status_code == 200, answer.text
        assert answer.json()["predictions"] == [float(answer.json()["version"])]
        found: int = answer.json()["version"]
        return found

    assert version("swap") == 1
    assert version("swap@challenger") == version("swap%40challenger") == 2
    assert version("swap?version=2") == version("swap?alias=challenger") == 2
    assert version("swap", one, **{"x-penstock-version": "2"}) == 2
    assert version("swap", one, **{"x-penstock-alias": "challenger"}) == 2
    assert version("swap", {**one, "version": 2}) == version("swap", {**one, "alias": "challenger"}) == 2
    refusal(predicting.post("/v1/predict/swap?version=9", one), 404, "model_not_found")
    refusal(predicting.post("/v1/predict/swap@nobody", one), 404, "model_not_found")
    refusal(predicting.post("/v1/predict/swap?version=x", one), 400, "invalid_version")
    refusal(predicting.post("/v1/predict/nothing", one), 404, "model_not_found")


def test_every_path_wants_a_key_that_may(predicting: Serving) -> None:
    """Who has none, or one for other models or paths, learns no more than that."""
    body = {"instances": [{"x": 1}]}
    for path in ("/v1/predict/echo", "/v1/predict/echo/invocations"):
        assert predicting.http.post(path, json=body).status_code == 401
    assert predicting.http.get("/v1/predict/echo").status_code == 401
    narrow = predicting.new_key(models=["wine"])
    refusal(predicting.post("/v1/predict/echo", body, key=narrow), 403, "model_access_denied")
    assert predicting.http.get("/v1/predict/echo", headers={"authorization": f"Bearer {narrow}"}).status_code == 404
    listed = predicting.http.get("/v1/predict", headers={"authorization": f"Bearer {narrow}"}).json()
    assert [one["id"] for one in listed["data"]] == ["wine"]
    answering = predicting.http.get("/v1/models", headers={"authorization": f"Bearer {narrow}"}).json()
    assert answering["data"] == [], "what has another list"
    routed = predicting.new_key(routes=["/v1/chat/*"])
    refusal(predicting.post("/v1/predict/echo", body, key=routed), 403, "route_access_denied")


def test_a_prediction_draws_from_the_keys_budget_and_shows_in_its_spend(predicting: Serving) -> None:
    """One account for scores and tokens: held, settled, refused when it is empty, in rows by model and by tag.

    The model is this test's alone: the process is shared, and its sums are exact.
    """
    key = predicting.new_key(name="payer", budget={"limit_usd": 0.01, "period": "total"})
    headers = {"authorization": f"Bearer {key}", "x-penstock-tags": "fraud"}

    def ask(rows: int) -> httpx.Response:
        return predicting.http.post("/v1/predict/accounted", json={"instances": [{"x": 1}] * rows}, headers=headers)

    first = ask(2)
    assert first.headers["x-penstock-cost-usd"] == "0.005000000", first.text
    assert first.headers["x-penstock-budget-remaining-usd"].rstrip("0") == "0.005"
    refusal(ask(3), 429, "budget_exceeded")
    assert ask(1).headers["x-penstock-cost-usd"] == "0.003000000"
    refusal(
        predicting.http.post("/v1/predict/accounted", json={"instances": [{}]}, headers=headers), 400, "missing_feature"
    )
    assert await_spend(predicting, "tag", "fraud")["cost_nanousd"] == 8_000_000
    assert await_spend(predicting, "model", "accounted")["cost_nanousd"] == 8_000_000


def await_spend(server: Serving, by: str, group: str) -> dict[str, Any]:
    """The journal's rows come within a second or so."""
    deadline = time.monotonic() + 20
    while True:
        rows = server.admin.get("/spend", params={"group_by": by}).json()["data"]
        found: dict[str, Any] | None = next((row for row in rows if row["group"] == group), None)
        if found is not None and found["cost_nanousd"] >= 8_000_000:
            return found
        assert time.monotonic() < deadline, rows
        time.sleep(0.1)


def test_limits_of_requests_hold_for_predictions(predicting: Serving) -> None:
    """A key with one request a minute has one, whatever it asks for."""
    key = predicting.new_key(limits={"rpm": 1})
    assert predicting.post("/v1/predict/echo", {"instances": [{"x": 1}]}, key=key).status_code == 200
    limited = predicting.post("/v1/predict/echo", {"instances": [{"x": 1}]}, key=key)
    refusal(limited, 429, "rate_limit_exceeded")
    assert int(limited.headers["retry-after"]) > 0


def test_a_model_tells_what_it_takes(predicting: Serving) -> None:
    """Names, types, shapes, what may be missing and which categories there are."""
    headers = {"authorization": f"Bearer {predicting.key}"}
    told = predicting.http.get("/v1/predict/strict", headers=headers).json()
    assert told["versions"] == [1]
    colour = next(column for column in told["inputs"] if column["name"] == "colour")
    assert (colour["datatype"], colour["categories"]) == ("BYTES", ["red", "green"])
    for word in ("ping", "health", "version"):
        assert predicting.http.get(f"/v1/predict/strict/{word}", headers=headers).status_code == 200
    assert predicting.http.delete("/v1/predict/strict", headers=headers).status_code == 405


def test_a_swap_under_load_loses_no_request(predicting: Serving) -> None:
    """Every answer is one of the two versions', all of them after the swap are the new one's, and the old one stays warm."""
    body = json.dumps({"instances": [{"x": 1}]})
    library.point(predicting.folder, {"swap": {"champion": 1, "challenger": 2}})
    stop = False
    seen: list[tuple[int, int]] = []

    def ask() -> None:
        with httpx.Client(base_url=predicting.url, timeout=30, trust_env=False) as client:
            while not stop:
                answer = client.post(
                    "/v1/predict/swap", content=body, headers={"authorization": f"Bearer {predicting.key}"}
                )
                seen.append((answer.status_code, answer.json().get("version", 0)))

    def answers(champion: int) -> None:
        """Until it does: also what this test leaves to others."""
        deadline = time.monotonic() + 20
        while predicting.post("/v1/predict/swap", body).json().get("version") != champion:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    with ThreadPoolExecutor(3) as pool:
        work = [pool.submit(ask) for _ in range(3)]
        try:
            for champion in (2, 1, 2):
                time.sleep(0.2)
                library.point(predicting.folder, {"swap": {"champion": champion}})
                answers(champion)
        finally:
            time.sleep(0.2)
            stop = True
        for one in work:
            one.result()
    library.point(predicting.folder, {"swap": {"champion": 1, "challenger": 2}})
    answers(1)
    assert {status for status, _ in seen} == {200}
    assert {version for _, version in seen} == {1, 2}
