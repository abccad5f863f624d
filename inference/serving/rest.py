"""`/v1/predict/{model}`, and below it what MLflow's scoring server answers: `…/invocations`, `…/ping`, `…/health`, `…/version`."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple, final

import msgspec

from inference.errors import InferenceError, ModelNotFound
from inference.ports import Bundle
from inference.serving import errors
from inference.serving.desk import Desk, Visit
from inference.serving.errors import BadInput, NotAllowed
from inference.serving.exchange import JSON, Exchange, parsed, path_of, query_of, version_of
from inference.serving.frame import Frame
from inference.serving.outputs import words
from inference.serving.quick import Quick
from inference.serving.reading import FORMS, quick_of, read_body, read_csv
from inference.serving.service import Answer, Predictions, Wanted
from inference.signature import Signature

PATH: Final = "/v1/predict"
ENDPOINT: Final = "predict"
INVOCATIONS: Final = "invocations"
ASKED_OF_MLFLOW: Final = frozenset({"ping", "health", "version"})
MORE: Final = frozenset({*FORMS, "version", "alias", "user"})
JSON_HEAD: Final = b"content-type: application/json\r\n"

MOST_PLACES: Final = 1000  # that are kept

Work = Callable[[Visit], Awaitable[None]]


class Place(NamedTuple):
    """What a URL says. `rest`: behind `PATH`, `last` the word behind its last slash, and `name` what stands before that."""

    path: str
    rest: str
    name: str
    last: str
    query: Mapping[str, str]


@final
class Rest:
    """One per process. `most_rows`: of one request."""

    def __init__(self, predictions: Predictions, desk: Desk, most_rows: int) -> None:
        self._predictions = predictions
        self._desk = desk
        self._most_rows = most_rows
        self._places: dict[bytes, Place] = {}  # clients ask the same again and again
        self._quick: dict[str, tuple[Signature, Quick]] = {}  # by what was asked for last, as it was written

    async def serve(self, exchange: Exchange) -> None:
        place = self._places.get(exchange.url) or self._place(exchange)
        if exchange.method == b"POST" and place.rest:
            if place.name and place.last == INVOCATIONS:
                await self._served(exchange, INVOCATIONS, place, lambda visit: self._invoke(exchange, visit, place))
            else:
                await self._served(exchange, ENDPOINT, place, lambda visit: self._predict(exchange, visit, place))
            return
        try:
            exchange.respond(200, JSON_HEAD, msgspec.json.encode(self._told(exchange, place)))
        except InferenceError as error:
            exchange.respond(error.status, errors.head(error), errors.body(error))

    def _place(self, exchange: Exchange) -> Place:
        if len(self._places) >= MOST_PLACES:
            self._places.clear()
        path = path_of(exchange)
        rest = path[len(PATH) :].strip("/")
        name, _, last = rest.rpartition("/")
        place = self._places[exchange.url] = Place(path, rest, name, last, query_of(exchange))
        return place

    async def _served(self, exchange: Exchange, endpoint: str, place: Place, work: Work) -> None:
        visit = self._desk.open(exchange.headers, endpoint, place.path, exchange.started_at)
        try:
            visit.enter()
            await work(visit)
        except InferenceError as error:
            visit.failed(error)
            exchange.respond(error.status, errors.head(error) + visit.fail_head(), errors.body(error))
        finally:
            visit.close()

    async def _predict(self, exchange: Exchange, visit: Visit, place: Place) -> None:
        form, wanted = self._asked(exchange, place.rest, place, visit)
        answer = await self._predictions.predict(visit, wanted, form)
        bundle = answer.bundle
        told = {"id": visit.id, "model": bundle.model, "version": bundle.version, **words(answer.outputs)}
        self._respond(exchange, visit, answer, told)

    async def _invoke(self, exchange: Exchange, visit: Visit, place: Place) -> None:
        """As MLflow's scoring server answers: predictions alone, and whatever the model says beside them."""
        form, wanted = self._asked(exchange, place.name, place, visit)
        answer = await self._predictions.predict(visit, wanted, form)
        self._respond(exchange, visit, answer, words(answer.outputs))

    def _respond(self, exchange: Exchange, visit: Visit, answer: Answer, told: Mapping[str, Any]) -> None:
        said = b"x-prediction-id: %b\r\nx-penstock-version: %d\r\n" % (visit.id.encode(), answer.bundle.version)
        exchange.respond(200, visit.head(JSON) + said, msgspec.json.encode(told))

    def _asked(
        self, exchange: Exchange, name: str, place: Place, visit: Visit
    ) -> tuple[Callable[[Bundle], Frame], Wanted]:
        """How to read the rows, and of which version. Raises BadInput, Refused."""
        most, headers = self._most_rows, exchange.headers
        known = self._quick.get(name)
        if known is not None and (frame := known[1].frame(exchange.body, most)) is not None:
            wanted = _wanted(place.query, headers, name, {})
            visit.about(wanted.name)
            return partial(self._of_that, name, known[0], frame, exchange.body), wanted
        if headers.get(b"content-type", b"").partition(b";")[0].strip().lower() == b"text/csv":
            wanted = _wanted(place.query, headers, name, {})
            visit.about(wanted.name)
            csv = exchange.body
            return lambda bundle: read_csv(bundle.signature, csv, most), wanted
        body = parsed(exchange.body)
        for field in body:
            if field not in MORE and not (field == "params" and not body[field]):
                raise BadInput(f"Unknown field '{field[:80]}'", param=field[:80], code="unknown_field")
        user = body.get("user")
        if user is not None and not isinstance(user, str):
            raise BadInput("Invalid 'user': expected a text", param="user", code="invalid_type")
        wanted = _wanted(place.query, headers, name, body)
        visit.about(wanted.name, user)
        return lambda bundle: self._read(name, bundle, body), wanted

    def _of_that(self, name: str, signature: Signature, frame: Frame, body: bytes, bundle: Bundle) -> Frame:
        """What was read for one signature, if the version that is to answer has it."""
        return frame if bundle.signature is signature else self._read(name, bundle, parsed(body))

    def _read(self, name: str, bundle: Bundle, body: Mapping[str, Any]) -> Frame:
        """The way of all, and the quick one of the next body for this name, if the version that answers now has one."""
        signature = bundle.signature
        if (quick := quick_of(signature)) is not None:
            self._quick[name] = signature, quick
        return read_body(signature, body, self._most_rows)

    def _told(self, exchange: Exchange, place: Place) -> Any:
        """What a GET learns: the models, one of them, or whether it is well."""
        if exchange.method not in {b"GET", b"HEAD"}:
            raise NotAllowed(
                "Use POST for predictions and GET for what a model takes", headers=(("allow", "GET, POST"),)
            )
        caller = self._desk.caller(exchange.headers)
        library = self._predictions.library
        rest = place.rest
        if not rest:
            return {"object": "list", "data": [{"id": one} for one in library.names() if caller.may_use(one)]}
        asked = place.name if place.name and place.last in ASKED_OF_MLFLOW else rest
        wanted = _wanted(place.query, exchange.headers, asked, {})
        if not caller.may_use(wanted.name):
            raise ModelNotFound(f"The model '{wanted.name}' does not exist", param="model")
        bundle = self._predictions.find(wanted)
        if asked != rest:
            return {"status": "ok", "model": bundle.model, "version": bundle.version}
        return described(bundle, library.versions(bundle.model))


def described(bundle: Bundle, versions: tuple[int, ...]) -> dict[str, Any]:
    """What a model takes and gives."""
    signature = bundle.signature
    return {
        "model": bundle.model,
        "version": bundle.version,
        "versions": list(versions),
        "runtime": bundle.runtime,
        "digest": bundle.digest,
        "inputs": [msgspec.to_builtins(column) for column in signature.inputs],
        "outputs": [msgspec.to_builtins(column) for column in signature.outputs],
    }


def _wanted(query: Mapping[str, str], headers: Mapping[bytes, bytes], name: str, body: Mapping[str, Any]) -> Wanted:
    """`name@alias`, `?version=`, `?alias=`, the same in the body, `x-penstock-version`, `x-penstock-alias`: the first that is there."""
    said = query.get("version") or _header(headers, b"x-penstock-version")
    version: int | None = None
    if said:
        version = version_of(said, "version")
    elif (given := body.get("version")) is not None:
        if type(given) is not int or given < 1:
            raise BadInput("Invalid 'version': expected its number", param="version", code="invalid_version")
        version = given
    alias = query.get("alias") or _header(headers, b"x-penstock-alias") or body.get("alias")
    if alias is not None and not isinstance(alias, str):
        raise BadInput("Invalid 'alias': expected a text", param="alias", code="invalid_type")
    if version is not None and "@" in name:
        raise BadInput("A version and an alias at once: name one of them", param="version", code="invalid_version")
    return Wanted(name, version, alias or None)


def _header(headers: Mapping[bytes, bytes], name: bytes) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode("latin-1")
