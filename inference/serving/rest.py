"""`/v1/predict/{model}`, and below it what MLflow's scoring server answers: `…/invocations`, `…/ping`, `…/health`, `…/version`."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, final

import msgspec

from inference.errors import InferenceError, ModelNotFound
from inference.ports import Bundle
from inference.serving import errors
from inference.serving.desk import Desk, Visit
from inference.serving.errors import BadInput, NotAllowed
from inference.serving.exchange import JSON, Exchange, parsed, path_of, query_of, version_of
from inference.serving.frame import Frame
from inference.serving.outputs import words
from inference.serving.reading import FORMS, read_body, read_csv
from inference.serving.service import Answer, Predictions, Wanted

PATH: Final = "/v1/predict"
ENDPOINT: Final = "predict"
INVOCATIONS: Final = "invocations"
ASKED_OF_MLFLOW: Final = frozenset({"ping", "health", "version"})
MORE: Final = frozenset({*FORMS, "version", "alias", "user"})
JSON_HEAD: Final = b"content-type: application/json\r\n"

Work = Callable[[Visit], Awaitable[None]]


@final
class Rest:
    """One per process. `most_rows`: of one request."""

    def __init__(self, predictions: Predictions, desk: Desk, most_rows: int) -> None:
        self._predictions = predictions
        self._desk = desk
        self._most_rows = most_rows

    async def serve(self, exchange: Exchange) -> None:
        rest = path_of(exchange)[len(PATH) :].strip("/")
        name, _, last = rest.rpartition("/")
        if exchange.method == b"POST" and rest:
            if name and last == INVOCATIONS:
                await self._served(exchange, INVOCATIONS, lambda visit: self._invoke(exchange, visit, name))
            else:
                await self._served(exchange, ENDPOINT, lambda visit: self._predict(exchange, visit, rest))
            return
        try:
            exchange.respond(200, JSON_HEAD, msgspec.json.encode(self._told(exchange, rest, name, last)))
        except InferenceError as error:
            exchange.respond(error.status, errors.head(error), errors.body(error))

    async def _served(self, exchange: Exchange, endpoint: str, work: Work) -> None:
        visit = self._desk.open(exchange.headers, endpoint, path_of(exchange), exchange.started_at)
        try:
            visit.enter()
            await work(visit)
        except InferenceError as error:
            visit.failed(error)
            exchange.respond(error.status, errors.head(error) + visit.fail_head(), errors.body(error))
        finally:
            visit.close()

    async def _predict(self, exchange: Exchange, visit: Visit, name: str) -> None:
        form, wanted = self._asked(exchange, name, visit)
        answer = await self._predictions.predict(visit, wanted, form)
        bundle = answer.bundle
        told = {"id": visit.id, "model": bundle.model, "version": bundle.version, **words(answer.outputs)}
        self._respond(exchange, visit, answer, told)

    async def _invoke(self, exchange: Exchange, visit: Visit, name: str) -> None:
        """As MLflow's scoring server answers: predictions alone, and whatever the model says beside them."""
        form, wanted = self._asked(exchange, name, visit)
        answer = await self._predictions.predict(visit, wanted, form)
        self._respond(exchange, visit, answer, words(answer.outputs))

    def _respond(self, exchange: Exchange, visit: Visit, answer: Answer, told: Mapping[str, Any]) -> None:
        said = b"x-prediction-id: %b\r\nx-penstock-version: %d\r\n" % (visit.id.encode(), answer.bundle.version)
        exchange.respond(200, visit.head(JSON) + said, msgspec.json.encode(told))

    def _asked(self, exchange: Exchange, name: str, visit: Visit) -> tuple[Callable[[Bundle], Frame], Wanted]:
        """How to read the rows, and of which version. Raises BadInput, Refused."""
        most = self._most_rows
        if exchange.headers.get(b"content-type", b"").partition(b";")[0].strip().lower() == b"text/csv":
            wanted = _wanted(exchange, name, {})
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
        wanted = _wanted(exchange, name, body)
        visit.about(wanted.name, user)
        return lambda bundle: read_body(bundle.signature, body, most), wanted

    def _told(self, exchange: Exchange, rest: str, name: str, last: str) -> Any:
        """What a GET learns: the models, one of them, or whether it is well."""
        if exchange.method not in {b"GET", b"HEAD"}:
            raise NotAllowed(
                "Use POST for predictions and GET for what a model takes", headers=(("allow", "GET, POST"),)
            )
        caller = self._desk.caller(exchange.headers)
        library = self._predictions.library
        if not rest:
            return {"object": "list", "data": [{"id": one} for one in library.names() if caller.may_use(one)]}
        asked = name if name and last in ASKED_OF_MLFLOW else rest
        wanted = _wanted(exchange, asked, {})
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


def _wanted(exchange: Exchange, name: str, body: Mapping[str, Any]) -> Wanted:
    """`name@alias`, `?version=`, `?alias=`, the same in the body, `x-penstock-version`, `x-penstock-alias`: the first that is there."""
    query, headers = query_of(exchange), exchange.headers
    said = query.get("version") or headers.get(b"x-penstock-version", b"").decode("latin-1")
    version: int | None = None
    if said:
        version = version_of(said, "version")
    elif (given := body.get("version")) is not None:
        if type(given) is not int or given < 1:
            raise BadInput("Invalid 'version': expected its number", param="version", code="invalid_version")
        version = given
    alias = query.get("alias") or headers.get(b"x-penstock-alias", b"").decode("latin-1") or body.get("alias")
    if alias is not None and not isinstance(alias, str):
        raise BadInput("Invalid 'alias': expected a text", param="alias", code="invalid_type")
    if version is not None and "@" in name:
        raise BadInput("A version and an alias at once: name one of them", param="version", code="invalid_version")
    return Wanted(name, version, alias or None)
