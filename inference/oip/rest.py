"""`/v2/**`: the protocol over HTTP, with its extensions for binary tensors and for the model repository.

Errors are `{"error": "…"}`, as its clients read them; the status, and `x-penstock-code`, say the rest.
"""

import asyncio
import gzip
import zlib
from collections.abc import Callable
from typing import Any, Final, final

import msgspec

from inference.errors import InferenceError, ModelNotFound, TooLarge
from inference.oip.messages import LENGTH_HEADER, answer, read, selected, wanted
from inference.oip.repository import Repository
from inference.oip.tensors import frame_of
from inference.ports import Bundle
from inference.serving.desk import Desk, Visit
from inference.serving.errors import BadInput, NotAllowed, Refused
from inference.serving.exchange import JSON, Exchange, path_of
from inference.serving.frame import Frame
from inference.serving.service import Predictions, Wanted

ENDPOINT: Final = "oip_infer"
ROOT: Final = "/v2"
MODELS: Final = "/v2/models/"
REPOSITORY: Final = "/v2/repository/models/"
EXTENSIONS: Final = ("binary_tensor_data", "model_repository", "model_repository(unload_dependents)")
PLATFORMS: Final = {"onnx": "onnxruntime_onnx"}
JSON_HEAD: Final = b"content-type: application/json\r\n"
BINARY: Final = b"application/octet-stream"


@final
class Rest:
    """`draining` tells that the server is about to end."""

    def __init__(
        self,
        predictions: Predictions,
        desk: Desk,
        *,
        repository: Repository,
        most_rows: int,
        most_bytes: int,
        version: str,
        draining: Callable[[], bool],
    ) -> None:
        self._predictions = predictions
        self._desk = desk
        self._repository = repository
        self._most_rows = most_rows
        self._most_bytes = most_bytes
        self._version = version
        self._draining = draining

    async def serve(self, exchange: Exchange) -> None:
        path = path_of(exchange).rstrip("/")
        try:
            if path.startswith(MODELS) and path.endswith("/infer"):
                _only(exchange, b"POST")
                await self._infer(exchange, path)
            else:
                exchange.respond(200, JSON_HEAD, msgspec.json.encode(await self._told(exchange, path)))
        except InferenceError as error:
            _fail(exchange, error)

    async def _infer(self, exchange: Exchange, path: str) -> None:
        visit = self._desk.open(exchange.headers, ENDPOINT, path, exchange.started_at)
        try:
            visit.enter()
            await self._answer(exchange, visit, path)
        except InferenceError as error:
            visit.failed(error)
            _fail(exchange, error, visit.fail_head())
        finally:
            visit.close()

    async def _answer(self, exchange: Exchange, visit: Visit, path: str) -> None:
        model, _ = _named(path)
        visit.about(model.name)
        headers = exchange.headers
        body = _unpacked(exchange.body, headers.get(b"content-encoding", b""), self._most_bytes)
        asked, tensors = read(body, headers.get(LENGTH_HEADER))
        user = asked.parameters.get("user")
        if isinstance(user, str):
            visit.about(model.name, user)
        most = self._most_rows

        def frame(bundle: Bundle) -> Frame:
            wanted(asked, bundle.signature.outputs)  # a name that is not there is refused before anything runs
            return frame_of(bundle.signature, tensors, most)

        told = await self._predictions.predict(visit, model, frame)
        bundle = told.bundle
        fields: dict[str, Any] = {"model_name": bundle.model, "model_version": str(bundle.version)}
        if asked.id is not None:
            fields["id"] = asked.id
        fields["parameters"] = {"prediction_id": visit.id}
        out, length = answer(fields, selected(told.outputs, wanted(asked, bundle.signature.outputs)))
        head = visit.head(JSON if length is None else BINARY) + b"x-prediction-id: %b\r\n" % visit.id.encode()
        if length is not None:
            head += b"%b: %d\r\n" % (LENGTH_HEADER, length)
        exchange.respond(200, head, out)

    async def _told(self, exchange: Exchange, path: str) -> Any:
        """Everything that is not a prediction. Raises InferenceError."""
        match path:
            case "/v2/health/live":
                _only(exchange, b"GET")
                return {"live": True}
            case "/v2/health/ready":
                _only(exchange, b"GET")
                if self._draining():
                    raise Refused(503, "The server is about to end", "overloaded", "draining")
                return {"ready": True}
        caller = self._desk.caller(exchange.headers)
        if path.startswith("/v2/repository/"):
            _only(exchange, b"POST")
            if not caller.admin:
                raise Refused(403, "The model repository is for the admin key", "permission_error", "permission_denied")
            return await self._managed(exchange, path)
        _only(exchange, b"GET")
        if path == ROOT:
            return {"name": "penstock", "version": self._version, "extensions": list(EXTENSIONS)}
        if not path.startswith(MODELS):
            raise Refused(404, f"There is nothing at {path[:200]}", "invalid_request_error", "not_found")
        model, ready = _named(path)
        bundle = self._predictions.find(model) if caller.may_use(model.name) else None
        if bundle is None:
            raise ModelNotFound(f"The model '{model.name}' does not exist", param="model")
        if ready:
            state = self._predictions.fleet.state(bundle)
            if state != "ready":
                raise Refused(
                    503, f"Version {bundle.version} of '{bundle.model}' is {state}", "overloaded", "model_not_ready"
                )
            return {"name": bundle.model, "ready": True}
        return metadata(bundle, self._predictions.library.versions(bundle.model), model.version)

    async def _managed(self, exchange: Exchange, path: str) -> Any:
        body = exchange.body
        try:
            asked = msgspec.json.decode(body, type=dict[str, Any]) if body.strip() else {}
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise BadInput(f"The request is not JSON: {error}", code="invalid_json") from None
        if path == "/v2/repository/index":
            return self._repository.index(ready=asked.get("ready") is True)
        name, _, action = path.removeprefix(REPOSITORY).rpartition("/")
        if path.startswith(REPOSITORY) and name and action in {"load", "unload"}:
            work = self._repository.load(name, asked) if action == "load" else self._repository.unload(name)
            await _task(work)
            return {}
        raise Refused(404, f"There is nothing at {path[:200]}", "invalid_request_error", "not_found")


def metadata(bundle: Bundle, versions: tuple[int, ...], version: int | None) -> dict[str, Any]:
    """A model as the protocol describes it; of one version, only that."""
    signature = bundle.signature
    return {
        "name": bundle.model,
        "versions": [str(one) for one in (versions if version is None else (version,))],
        "platform": PLATFORMS.get(bundle.runtime, bundle.runtime),
        "inputs": [_tensor(column) for column in signature.inputs],
        "outputs": [_tensor(column) for column in signature.outputs],
    }


def _tensor(column: Any) -> dict[str, Any]:
    return {"name": column.name, "datatype": column.datatype, "shape": list(column.shape)}


def _named(path: str) -> tuple[Wanted, bool]:
    """`{name}[/versions/{version or alias}][/infer|/ready]`, and whether it ends with `ready`. Raises BadInput."""
    rest = path.removeprefix(MODELS)
    ready = rest.endswith("/ready")
    rest = rest.removesuffix("/ready").removesuffix("/infer")
    name, joint, version = rest.rpartition("/versions/")
    return wanted_of(name, version) if joint else wanted_of(rest, ""), ready


def wanted_of(name: str, version: str) -> Wanted:
    """`version` as the protocol's clients write it: a number, nothing, or here an alias."""
    if not version:
        return Wanted(name)
    if version.isascii() and version.isdigit() and len(version) < 10:
        return Wanted(name, int(version))
    return Wanted(name, alias=version)


def _unpacked(body: bytes, encoding: bytes, most: int) -> bytes:
    """Tritonclient can compress. Raises BadInput, TooLarge."""
    kind = encoding.strip().lower()
    if not kind or kind == b"identity":
        return body
    if kind not in {b"gzip", b"deflate"}:
        raise BadInput("Invalid 'content-encoding': gzip and deflate are read", param="content-encoding")
    unpacker = zlib.decompressobj(wbits=31 if kind == b"gzip" else 15)
    try:
        made = unpacker.decompress(body, most)
    except (zlib.error, gzip.BadGzipFile):
        raise BadInput("The body is not what its content-encoding says", param="content-encoding") from None
    if unpacker.unconsumed_tail:
        raise TooLarge(f"The body has more than {most} bytes once it is unpacked")
    return made


def _only(exchange: Exchange, method: bytes) -> None:
    if exchange.method != method and not (method == b"GET" and exchange.method == b"HEAD"):
        allowed = method.decode()
        raise NotAllowed(f"Use {allowed} here", headers=(("allow", allowed),))


def _fail(exchange: Exchange, error: InferenceError, more: bytes = b"") -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in error.headers)
    head = (
        JSON_HEAD
        + lines.encode("latin-1", "replace")
        + b"x-penstock-code: %b\r\n" % (error.code or error.type).encode()
    )
    exchange.respond(error.status, head + more, msgspec.json.encode({"error": error.message}))


async def _task(work: Any) -> None:
    """What uses tasks of asyncio runs in one: a request's own coroutine is none."""
    await asyncio.get_running_loop().create_task(work)
