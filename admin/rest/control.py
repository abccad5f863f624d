"""How a route works on the control state: off the event loop, in one transaction, seen at once, and never twice."""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request, Response
from pydantic import BaseModel
from sqlalchemy import Connection, Engine

from admin import audit, idempotency
from admin.idempotency import Answer
from admin.rbac import Principal
from admin.rest.gate import PREFIX, principal_of
from gateway.database import changing, newest_revision, reading
from gateway.errors import BadRequest
from gateway.refresh import Refresher
from gateway.secret_box import SecretBox

R = TypeVar("R")
V = TypeVar("V", bound=BaseModel)

_KEY = re.compile(r"[\x21-\x7e]{1,255}")


def permitted(request: Request) -> Principal:
    """Who asks, if the route is for their role. Raises AccessDenied before anything of the body is looked at."""
    principal = principal_of(request.scope)
    principal.require(request.method, request.scope["route"].path.removeprefix(PREFIX))
    return principal


Asker = Annotated[Principal, Depends(permitted)]


async def nothing_waits() -> None:
    """Where nothing is recorded elsewhere first."""


class Control:
    """Given to the routes. What an answer says is in force in this process when it is sent, whoever changed it.

    `enforcing`: whether the data plane holds budgets and limits. Where it does not, none is accepted.
    """

    def __init__(
        self,
        engine: Engine,
        box: SecretBox,
        refresher: Refresher,
        *,
        enforcing: bool,
        shown: Callable[[], Awaitable[None]] = nothing_waits,
    ) -> None:
        """`shown` waits until what this process has done is in the records."""
        self.box = box
        self._shown = shown
        self._enforcing = enforcing
        self.refresher = refresher
        self._engine = engine

    def require_enforcing(self, param: str | None) -> None:
        """Money must not be pretended. Raises BadRequest."""
        if not self._enforcing:
            raise BadRequest(
                f"{param or 'budgets and limits'}: not enforced by this server, and so not accepted.",
                param=param,
                code="unsupported_value",
            )

    async def read(self, work: Callable[[Connection], R]) -> R:
        """Who is told that a version went back, or is gone, must not meet it in the next answer: what is read here is waited for."""
        revision = 0

        def transaction() -> R:
            nonlocal revision
            with reading(self._engine) as tx:
                revision = newest_revision(tx)
                return work(tx)

        try:
            return await asyncio.to_thread(transaction)
        finally:
            if revision > self.refresher.revision:
                await self.refresher.refresh_now()

    async def read_records(self, work: Callable[[Connection], R]) -> R:
        """As `read`, of requests and what they cost: whoever has an answer finds its record."""
        await self._shown()
        return await self.read(work)

    async def change(
        self,
        asker: Principal,
        action: str,
        subject: str,
        work: Callable[[Connection], V],
        before: Callable[[Connection], BaseModel] | None = None,
    ) -> V:
        """`work` returns the object as it is shown from now on, `before` as it was until now."""

        def transaction() -> V:
            with changing(self._engine) as tx:
                old = None if before is None else before(tx)
                result = work(tx)
                _record(tx, asker, action, subject, old, result)
                return result

        result = await asyncio.to_thread(transaction)
        await self.refresher.refresh_now()
        return result

    async def delete(
        self,
        asker: Principal,
        action: str,
        subject: str,
        work: Callable[[Connection], None],
        before: Callable[[Connection], BaseModel],
    ) -> None:
        def transaction() -> None:
            with changing(self._engine) as tx:
                old = before(tx)
                work(tx)
                _record(tx, asker, action, subject, old, None)

        await asyncio.to_thread(transaction)
        await self.refresher.refresh_now()

    async def create(
        self,
        request: Request,
        asker: Principal,
        action: str,
        work: Callable[[Connection], tuple[str, BaseModel]],
        status: int = 201,
        before: Callable[[Connection], BaseModel] | None = None,
        body: bytes | None = None,
    ) -> Response:
        """`work` returns the new object's id and what to answer. Honours Idempotency-Key, each caller's own.

        `body`: JSON that says what was asked, where the request itself was a form that is read already.
        """
        given = request.headers.get("idempotency-key")
        if given is not None and not _KEY.fullmatch(given):
            raise BadRequest("Idempotency-Key: 1 to 255 visible ASCII characters.", param="Idempotency-Key")
        # One caller's answer, with the secret in it, is nothing to another who happens to send the same key.
        key = None if given is None else hashlib.sha256(f"{asker.actor}\n{given}".encode()).hexdigest()
        asked = idempotency.fingerprint(
            request.method, request.url.path, await request.body() if body is None else body
        )

        def transaction() -> Answer:
            with changing(self._engine) as tx:
                kept = None if key is None else idempotency.recall(tx, key, asked, self.box)
                if kept is not None:
                    return kept
                old = None if before is None else before(tx)
                subject, made = work(tx)
                _record(tx, asker, action, subject, old, made)
                answer = Answer(status, made.model_dump_json().encode())
                if key is not None:
                    idempotency.keep(tx, key, asked, answer, self.box)
                return answer

        answer = await asyncio.to_thread(transaction)
        await self.refresher.refresh_now()
        headers = {"idempotent-replayed": "true"} if answer.replayed else {}
        return Response(answer.body, answer.status, headers, "application/json")


def _record(
    tx: Connection, asker: Principal, action: str, subject: str, old: BaseModel | None, new: BaseModel | None
) -> None:
    before, after = (None if each is None else each.model_dump(mode="json") for each in (old, new))
    known: dict[str, Any] = after or before or {}
    audit.record(
        tx,
        action,
        subject,
        actor=asker.actor,
        org_id=subject if action.startswith("org.") else known.get("org_id"),
        before=before,
        after=after,
    )
