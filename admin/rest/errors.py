"""Every error of the admin plane in OpenAI's shape, whoever raised it."""

from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from admin.rest.complaints import complaint
from gateway.errors import GatewayError, MethodNotAllowed, NotFound, Overloaded, error_body
from inference.errors import InferenceError
from retrieval.errors import RetrievalError

log = structlog.get_logger(__name__)


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The shape of every error."""

    error: ErrorDetail


_REF = "#/components/schemas/{model}"
_MEANINGS = {
    400: "The request is not valid; `param` names the field.",
    401: "The admin key, token or login is missing or wrong.",
    403: "The role may not do this, or not to this object.",
    404: "There is no such object.",
    413: "What was sent is too large.",
    409: "It conflicts with what there is, or the Idempotency-Key stands for another request.",
}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`: what it may answer besides success. `default` stands for 405, 413, 500 and 503."""
    # By reference: given the model, FastAPI builds a validator for each of 300 answers, which no route uses.
    content = {"application/json": {"schema": {"$ref": _REF.format(model=ErrorBody.__name__)}}}
    described: dict[int | str, dict[str, Any]] = {
        status: {"description": _MEANINGS[status], "content": content} for status in (400, 401, 403, *statuses)
    }
    return described | {"default": {"description": "Anything else that went wrong.", "content": content}}


def schemas() -> dict[str, Any]:
    """What `documented` refers to, for the document's components."""
    body = ErrorBody.model_json_schema(ref_template=_REF, mode="serialization")
    return {**body.pop("$defs"), ErrorBody.__name__: body}


def install(app: FastAPI) -> None:
    app.add_exception_handler(GatewayError, _gateway_error)
    app.add_exception_handler(RetrievalError, _retrieval_error)
    app.add_exception_handler(InferenceError, _inference_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    for kind in (OperationalError, InterfaceError, PoolTimeout):
        app.add_exception_handler(kind, _database_error)


def rendered(error: GatewayError) -> Response:
    return Response(error.body(), error.status, dict(error.headers), "application/json")


async def _gateway_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)
    return rendered(error)


async def _retrieval_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RetrievalError)
    body = error_body(error.message, error.type, error.param, error.code)
    return Response(body, error.status, dict(error.headers), "application/json")


async def _inference_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, InferenceError)
    body = error_body(error.message, error.type, error.param, error.code)
    return Response(body, error.status, dict(error.headers), "application/json")


async def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return rendered(complaint(error.errors()))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    match error.status_code:
        case 404:
            return rendered(NotFound(f"There is no route {request.url.path!r}."))
        case 405:
            allowed = (error.headers or {}).get("Allow", "")
            headers = (("allow", allowed),) if allowed else ()
            return rendered(MethodNotAllowed(f"{request.method} is not for this route: {allowed}.", headers=headers))
        case status:
            body = error_body(
                str(error.detail), "invalid_request_error" if status < 500 else "internal_error", None, None
            )
            return Response(body, status, error.headers, "application/json")


async def _database_error(request: Request, error: Exception) -> Response:
    log.warning("admin.database_unavailable", type=type(error).__name__, path=request.url.path)
    unavailable = Overloaded(
        "The database does not answer right now; requests of clients go on with what is known. Try again.",
        code="database_unavailable",
        headers=(("retry-after", "1"),),
    )
    return rendered(unavailable)
