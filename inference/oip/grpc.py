"""The protocol over gRPC, on a port of its own: the same calls, keys and accounts as over HTTP. Keys travel as metadata."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol, final

import grpc
import grpc.aio
import numpy as np
import structlog
from numpy.typing import NDArray

from inference.errors import InferenceError, ModelNotFound
from inference.oip.proto import METHODS, SERVICE, messages
from inference.oip.repository import Repository
from inference.oip.rest import ENDPOINT, EXTENSIONS, metadata, wanted_of
from inference.oip.tensors import Tensor, frame_of, raw_of, text_of
from inference.ports import Bundle
from inference.serving.desk import Caller, Desk, Visit
from inference.serving.errors import BadInput, Refused
from inference.serving.frame import Frame
from inference.serving.service import Answer, Predictions
from inference.signature import Column

log = structlog.stdlib.get_logger(__name__)

CODES: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
CONTENTS: Final = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
GRACE_S: Final = 5.0


class Context(Protocol):
    """What is used of gRPC's own."""

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]] | None: ...

    async def abort(self, code: Any, details: str, trailing_metadata: Sequence[tuple[str, str]]) -> None: ...


Handler = Callable[[Any, Context], Awaitable[Any]]


@final
class Server:
    """Lives on the event loop that it was started on."""

    def __init__(
        self, predictions: Predictions, desk: Desk, repository: Repository, *, most_rows: int, most_bytes: int
    ) -> None:
        self._predictions = predictions
        self._desk = desk
        self._repository = repository
        self._most_rows = most_rows
        self._most_bytes = most_bytes
        self._made = messages()
        self._version = ""
        self._server: grpc.aio.Server | None = None

    async def start(self, address: str, version: str) -> int:
        """Listens, and returns the port."""
        self._version = version
        bounds = [("grpc.max_receive_message_length", self._most_bytes), ("grpc.max_send_message_length", -1)]
        server = self._server = grpc.aio.server(options=bounds)
        handlers: Mapping[str, Handler] = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._infer,
            "RepositoryIndex": self._index,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
        }
        methods = {
            name: grpc.unary_unary_rpc_method_handler(
                _guarded(handlers[name]),
                request_deserializer=self._made.classes[f"{name}Request"].FromString,
                response_serializer=self._made.classes[f"{name}Response"].SerializeToString,
            )
            for name in METHODS
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
        port = server.add_insecure_port(address)
        await server.start()
        return int(port)

    async def close(self) -> None:
        if self._server is not None:
            await self._server.stop(GRACE_S)

    async def _live(self, _: Any, __: Context) -> Any:
        return self._made("ServerLiveResponse", live=True)

    async def _ready(self, _: Any, __: Context) -> Any:
        return self._made("ServerReadyResponse", ready=True)

    async def _metadata(self, _: Any, context: Context) -> Any:
        self._desk.caller(_headers(context))
        return self._made("ServerMetadataResponse", name="penstock", version=self._version, extensions=list(EXTENSIONS))

    async def _model_ready(self, request: Any, context: Context) -> Any:
        bundle = self._bundle(request, context)
        return self._made("ModelReadyResponse", ready=self._predictions.fleet.state(bundle) == "ready")

    async def _model_metadata(self, request: Any, context: Context) -> Any:
        bundle = self._bundle(request, context)
        wanted = wanted_of(request.name, request.version)
        told = metadata(bundle, self._predictions.library.versions(bundle.model), wanted.version)
        return self._made("ModelMetadataResponse", **told)

    async def _index(self, request: Any, context: Context) -> Any:
        self._admin(context)
        return self._made("RepositoryIndexResponse", models=self._repository.index(ready=request.ready))

    async def _load(self, request: Any, context: Context) -> Any:
        self._admin(context)
        await self._repository.load(request.model_name, {"parameters": dict(request.parameters)})
        return self._made("RepositoryModelLoadResponse")

    async def _unload(self, request: Any, context: Context) -> Any:
        self._admin(context)
        await self._repository.unload(request.model_name)
        return self._made("RepositoryModelUnloadResponse")

    async def _infer(self, request: Any, context: Context) -> Any:
        headers = _headers(context)
        visit = self._desk.open(headers, ENDPOINT, f"/v2/models/{request.model_name}/infer", time.monotonic())
        try:
            visit.enter()
            return await self._answer(request, visit)
        except InferenceError as error:
            visit.failed(error)
            raise
        finally:
            visit.close()

    async def _answer(self, request: Any, visit: Visit) -> Any:
        wanted = wanted_of(request.model_name, request.model_version)
        user = request.parameters["user"].string_param if "user" in request.parameters else None
        visit.about(wanted.name, user)
        tensors, most = _tensors(request), self._most_rows

        def frame(bundle: Bundle) -> Frame:
            _asked(request, bundle.signature.outputs)
            return frame_of(bundle.signature, tensors, most)

        return self._told(request, visit, await self._predictions.predict(visit, wanted, frame))

    def _told(self, request: Any, visit: Visit, answer: Answer) -> Any:
        bundle, outputs, raw = answer.bundle, [], []
        shown = [
            (one, answer.outputs[one.name])
            for one in _asked(request, bundle.signature.outputs)
            if one.name in answer.outputs
        ]
        typed = not request.raw_input_contents and all(column.datatype in CONTENTS for column, _ in shown)
        for column, array in shown:
            output = self._made(
                "InferOutputTensor", name=column.name, datatype=column.datatype, shape=list(array.shape)
            )
            if typed:
                getattr(output.contents, CONTENTS[column.datatype]).extend(_values(column, array))
            else:
                raw.append(raw_of(array, column.datatype))
            outputs.append(output)
        response = self._made(
            "ModelInferResponse",
            model_name=bundle.model,
            model_version=str(bundle.version),
            id=request.id,
            outputs=outputs,
            raw_output_contents=raw,
        )
        response.parameters["prediction_id"].string_param = visit.id
        return response

    def _bundle(self, request: Any, context: Context) -> Bundle:
        wanted = wanted_of(request.name, request.version)
        if not self._desk.caller(_headers(context)).may_use(wanted.name):
            raise ModelNotFound(f"The model '{wanted.name}' does not exist", param="model")
        return self._predictions.find(wanted)

    def _admin(self, context: Context) -> Caller:
        caller = self._desk.caller(_headers(context))
        if not caller.admin:
            raise Refused(403, "The model repository is for the admin key", "permission_error", "permission_denied")
        return caller


def _guarded(handler: Handler) -> Handler:
    """Errors as statuses of gRPC; nothing else gets out."""

    async def guarded(request: Any, context: Context) -> Any:
        try:
            return await handler(request, context)
        except InferenceError as error:
            code, message = CODES.get(error.status, grpc.StatusCode.INTERNAL), error.message
            trailing = (("x-penstock-code", error.code or error.type), *error.headers)
        except Exception:
            log.exception("grpc.failed")
            code, message, trailing = grpc.StatusCode.INTERNAL, "Something went wrong on our side", ()
        await context.abort(code, message, trailing)
        return None

    return guarded


def _headers(context: Context) -> dict[bytes, bytes]:
    found = {}
    for name, value in context.invocation_metadata() or ():
        found[name.lower().encode("latin-1")] = (
            value if isinstance(value, bytes) else value.encode("latin-1", "replace")
        )
    return found


def _tensors(request: Any) -> list[Tensor]:
    """Raises BadInput."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        why = f"{len(raw)} raw contents for {len(request.inputs)} inputs"
        raise BadInput(f"Invalid 'raw_input_contents': {why}", param="raw_input_contents", code="invalid_shape")
    made = []
    for number, one in enumerate(request.inputs):
        place = f"inputs[{number}]"
        shape = list(one.shape)
        if "shared_memory_region" in one.parameters:
            raise BadInput(f"Invalid '{place}': shared memory is not served", param=place, code="unsupported")
        if raw:
            if one.HasField("contents"):
                raise BadInput(
                    f"Invalid '{place}': contents and raw contents at once", param=place, code="invalid_type"
                )
            made.append(Tensor(one.name, one.datatype, shape, place, None, raw[number]))
            continue
        made.append(Tensor(one.name, one.datatype, shape, place, _contents(one, place)))
    return made


def _contents(one: Any, place: str) -> list[Any]:
    field = CONTENTS.get(one.datatype)
    for name in CONTENTS.values():
        if name != field and len(getattr(one.contents, name)):
            why = f"{name} are not for the type {one.datatype[:40]}"
            raise BadInput(f"Invalid '{place}.contents': {why}", param=f"{place}.contents", code="invalid_type")
    values = list(getattr(one.contents, field)) if field is not None else []
    if field == "bytes_contents":
        return [text_of(value, f"{place}.contents") for value in values]
    if one.datatype == "FP32":  # a double again, of the same value: nothing was lost, and nothing is now
        return [float(value) for value in values]
    return values


def _asked(request: Any, columns: Sequence[Column]) -> list[Column]:
    """Raises BadInput."""
    if not request.outputs:
        return list(columns)
    known = {column.name: column for column in columns}
    for number, one in enumerate(request.outputs):
        place = f"outputs[{number}]"
        if one.name not in known:
            why = f"unexpected output '{one.name[:80]}': the model has {', '.join(known)}"
            raise BadInput(f"Invalid '{place}': {why}", param=place, code="unknown_output")
        if "classification" in one.parameters:
            raise BadInput(f"Invalid '{place}': classification is not served", param=place, code="unsupported")
    return [known[one.name] for one in request.outputs]


def _values(column: Column, array: NDArray[Any]) -> Any:
    flat = np.asarray(array).reshape(-1).tolist()
    if column.datatype != "BYTES":
        return flat
    return [value if isinstance(value, bytes) else str(value).encode() for value in flat]
