"""Where documents meet the gateway: files come from its shelf, and vectors are made by its models, on the account of who asks."""

import asyncio
import base64
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import msgspec
from sqlalchemy import Engine

from admin.known_vectors import KnownVectors, made_by, recalled
from embedding import bundled
from gateway.authentication import ADMIN, Authenticator
from gateway.batches.carrier import LineExchange, header
from gateway.bills import PART_OF
from gateway.catalog import Deployment, Roles
from gateway.database import appending, bare, reading
from gateway.drive import driven
from gateway.errors import GatewayError
from gateway.exchange import Exchange
from gateway.files import store as files
from gateway.files.shelf import Shelf
from gateway.files.whose import TENANT
from gateway.grounding.ports import Booking
from gateway.keys import Key
from gateway.providers import EMBEDDED
from gateway.snapshot import Current, Snapshot
from retrieval.access import EVERY, PLAIN, Account, Caller
from retrieval.database import Database
from retrieval.errors import Forbidden, NotFound, Refused, Unavailable
from retrieval.index.settings import EngineSettings
from retrieval.ports import Ranker, Role, Source, Writer
from retrieval.quotas import Bounds
from retrieval.tenancy import bound

if TYPE_CHECKING:  # NumPy comes with the first vector
    import numpy as np
    from numpy.typing import NDArray

    from retrieval.sampling import Asked
    from retrieval.service import Retrieval

PATH: Final = b"/v1/embeddings"
TAG: Final = b"retrieval"
LABELS: Final = "access_labels"
INPUT_TYPE: Final = "input_type"
MAX_DEPUTIES: Final = 1024
Handler = Callable[[Exchange], Coroutine[Any, Any, None]]

_roles: Final = msgspec.json.Decoder(Roles)
_AGAIN: Final = frozenset({408, 409, 429, 500, 502, 503, 504})


def database_of(engine: Engine) -> Database:
    return Database(partial(reading, engine), partial(appending, engine), partial(bare, engine))


def caller_of(key: Key) -> Caller:
    """Who asks, with the labels and the tenant that an admin has written into the key's metadata. The admin key holds every label."""
    if key is ADMIN:
        return Caller(key.id, labels=frozenset({EVERY}))
    given = key.metadata.get(LABELS)
    labels = (
        frozenset(each for each in given if isinstance(each, str)) if isinstance(given, (list, tuple)) else frozenset()
    )
    return Caller(key.id, key.team_id, key.org_id, labels, tenant=bound(key.metadata.get(TENANT)))


def on_account(caller: Caller, booking: Booking) -> Caller:
    """The same, whose calls of models are booked as parts of a request."""
    account = Account(tuple(booking.tags), booking.trace, booking.granted, booking.whole)
    return msgspec.structs.replace(caller, account=account)


def may_use(current: Current, model: str, payer: str) -> bool:
    """Whether the key may call the model. False for one that is not there."""
    found = current.snapshot.catalog.find(model)
    if found is None or payer == ADMIN.id:
        return found is not None
    key = next((key for key in current.snapshot.keys.values() if key.id == payer), None)
    return key is not None and key.may_use(model, found[0].admitted_by)


@final
class ShelfSources:
    """`retrieval.ports.Sources` on the files that clients keep."""

    def __init__(self, engine: Engine, shelf: Shelf) -> None:
        self._engine = engine
        self._shelf = shelf

    def find(self, caller: Caller, ids: Sequence[str]) -> Mapping[str, Source]:
        bound = {} if caller.tenant is None else {TENANT: caller.tenant}
        key = Key(caller.key_id, caller.key_id, team_id=caller.team_id, org_id=caller.org_id, metadata=bound)
        with reading(self._engine) as tx:
            return {file.id: self._source(file) for file in files.some(tx, key, ids)}

    def open(self, id_: str) -> Source | None:
        with reading(self._engine) as tx:
            file = files.by_id(tx, id_)
        return None if file is None else self._source(file)

    def _source(self, file: files.File) -> Source:
        return Source(file.id, file.filename, file.bytes, self._shelf.path("files", file.id))


class _Vector(msgspec.Struct):
    index: int
    embedding: str | list[float]


class _Answer(msgspec.Struct):
    data: list[_Vector]


class _Error(msgspec.Struct):
    message: str = ""
    type: str = "upstream_error"
    code: str | None = None


class _Refusal(msgspec.Struct):
    error: _Error


class Calls:
    """Calls on the account of a key: they take the way of any client's, so they are held, limited, settled and recorded like any other."""

    def __init__(self, authenticator: Authenticator, carried: Callable[[], Mapping[bytes, bytes]] = dict) -> None:
        """`carried`: headers of whatever a call is a part of."""
        self._authenticator = authenticator
        self._deputies: OrderedDict[tuple[str, bool], bytes] = OrderedDict()
        self._carried = carried

    async def answer(
        self,
        handler: Handler,
        path: bytes,
        payer: str,
        fields: Mapping[str, object],
        what: str,
        *,
        aside: bool = False,
        account: Account | None = None,
    ) -> bytes:
        """The body of a 200. Cancelled: so is the call. Raises Refused, whose message begins with `what`."""
        return (await self.whole(handler, path, payer, fields, what, aside=aside, account=account))[1]

    async def whole(
        self,
        handler: Handler,
        path: bytes,
        payer: str,
        fields: Mapping[str, object],
        what: str,
        *,
        aside: bool = False,
        account: Account | None = None,
    ) -> tuple[bytes, bytes]:
        """The same with the head."""
        account = account or PLAIN
        found: list[tuple[int, bytes, bytes]] = []
        tags = b",".join((TAG, *(tag.encode("latin-1", "replace") for tag in account.tags)))
        body, secret = msgspec.json.encode(fields), self._deputy(payer, admitted=account.granted)
        exchange = LineExchange(
            path, secret, body, time.monotonic(), lambda *answer: found.append(answer), tags, aside=aside
        )
        trace = {} if account.trace is None else {b"traceparent": account.trace.encode("latin-1")}
        whole = {} if account.whole is None else {PART_OF: account.whole.encode("latin-1")}
        exchange.headers = {**exchange.headers, **trace, **whole, **self._carried()}
        await driven(handler(exchange))
        if not found:
            raise Refused(502, f"{what}: the model broke off its answer", "upstream_error", None, again=True)
        status, head, answer = found[0]
        if status != 200:
            raise _refused(status, head, answer, what)
        return head, answer

    def key(self, snapshot: Snapshot, payer: str, account: Account | None) -> Key | None:
        """Who pays, as calls have it. None for one that may call nothing any more."""
        secret = self._deputy(payer, admitted=(account or PLAIN).granted)
        try:
            return self._authenticator.caller(snapshot, {b"authorization": b"Bearer " + secret})
        except GatewayError:
            return None

    def close(self) -> None:
        while self._deputies:
            self._authenticator.dismiss(self._deputies.popitem()[1])

    def _deputy(self, payer: str, *, admitted: bool) -> bytes:
        """Kept, as to find a key by its id takes a look at all of them."""
        place = payer, admitted
        secret = self._deputies.get(place)
        if secret is None:
            secret = self._deputies[place] = self._authenticator.deputy(payer, admitted=admitted)
            if len(self._deputies) > MAX_DEPUTIES:
                self._authenticator.dismiss(self._deputies.popitem(last=False)[1])
        else:
            self._deputies.move_to_end(place)
        return secret


@final
class GatewayEmbedder:
    """`retrieval.ports.Embedder`. `usual` names the model of collections that name none."""

    def __init__(
        self,
        current: Current,
        calls: Calls,
        handler: Handler,
        usual: Callable[[], str | None],
        known: KnownVectors,
    ) -> None:
        self._known = known
        self._current = current
        self._calls = calls
        self._handler = handler
        self._usual = usual

    async def embed(
        self,
        texts: Sequence[str],
        model: str,
        payer: str,
        *,
        aside: bool,
        account: Account | None = None,
        dimensions: int | None = None,
        role: Role,
        prompts: str | None,
    ) -> "NDArray[np.float32]":
        """Asks only for what is not known. Raises Refused."""
        told: dict[str, str] = {}
        if prompts is not None:
            texts, told = self._told(texts, model, role, _roles.decode(prompts))
        snapshot = self._current.snapshot
        key, found = self._calls.key(snapshot, payer, account), snapshot.catalog.find(model)
        fields: dict[str, object] = {"model": model, "encoding_format": "base64", **told}
        if dimensions is not None:
            fields["dimensions"] = dimensions

        async def ask(some: Sequence[str]) -> "tuple[NDArray[np.float32], bool]":
            head, answer = await self._calls.whole(
                self._handler, PATH, payer, {**fields, "input": some}, "Embedding", aside=aside, account=account
            )
            vectors = await asyncio.to_thread(_vectors, answer) if len(some) > 1 else _vectors(answer)
            return vectors, found is not None and made_by(head, model, found[0]) and isfinite(vectors.sum())

        known = None if key is None else self._known.of_providers(snapshot, key, model, dimensions)
        if key is None or known is None:
            return (await ask(list(texts)))[0]
        return await recalled(known, key.tenant, texts, ask, told.get(INPUT_TYPE, ""))

    def prompts(self, model: str) -> str | None:
        found = self._current.snapshot.catalog.find(model)
        roles = None if found is None else found[0].roles
        return None if roles is None else msgspec.json.encode(roles).decode()

    def _told(self, texts: Sequence[str], model: str, role: Role, roles: Roles) -> tuple[Sequence[str], dict[str, str]]:
        """As the vectors that these are compared with were told, whatever the model's settings are by now. Raises Refused."""
        type_ = roles.type_of(role)
        if type_ is None:
            return [roles.prefix(role) + text for text in texts], {}
        found = self._current.snapshot.catalog.find(model)
        now = None if found is None else found[0].roles
        if now is not None and now.query_type is None:
            raise Refused(
                409,
                f"The model '{model}' has prefixes by now, and the vector store was made with input types: it has to be embedded anew",
                "invalid_request_error",
                "prompts_changed",
            )
        return texts, {INPUT_TYPE: type_}

    def window(self, model: str) -> int | None:
        return min(
            (bundled.MINILM.max_tokens for one in self._deployments(model) if one.provider == EMBEDDED), default=None
        )

    def require(self, model: str, payer: str) -> None:
        """Raises NotFound, Forbidden."""
        if self._current.snapshot.catalog.find(model) is None:
            raise NotFound(f"The model '{model}' does not exist", param="embedding_model", code="model_not_found")
        if not may_use(self._current, model, payer):
            raise Forbidden(
                f"This key may not use the model '{model}', which embeds the vector store",
                param="embedding_model",
                code="model_access_denied",
            )

    def default(self) -> str | None:
        return self._usual()

    def _deployments(self, model: str) -> Sequence[Deployment]:
        found = self._current.snapshot.catalog.find(model)
        return () if found is None else found[0].deployments


@final
class LateRetrieval:
    """The plane, made when somebody first has documents: NumPy is a fifth of a second and 20 MB that a gateway does not need."""

    def __init__(self, make: Callable[[], "Retrieval"]) -> None:
        self._make = make
        self._made: asyncio.Task[Retrieval] | None = None

    async def get(self) -> "Retrieval":
        """Raises Unavailable where what it needs is not installed."""
        if self._made is None or (self._made.done() and (self._made.cancelled() or self._made.exception() is not None)):
            self._made = asyncio.get_running_loop().create_task(asyncio.to_thread(self._make))
        return await asyncio.shield(self._made)

    @property
    def made(self) -> "Retrieval | None":
        """None before somebody has asked for it."""
        if self._made is not None and self._made.done() and not self._made.cancelled() and not self._made.exception():
            return self._made.result()
        return None

    async def close(self) -> None:
        if (made := self.made) is not None:
            await made.close()


def make(
    engine: Engine,
    folder: Path,
    shelf: Shelf,
    embedder: GatewayEmbedder,
    changed: Callable[[str], None],
    memory_bytes: int,
    searched: Callable[[str, float, str], None],
    engines: EngineSettings,
    bounds: Bounds,
    ranker: Ranker | None = None,
    writer: Writer | None = None,
    asked: "Asked | None" = None,
) -> "Retrieval":
    """Blocks for the imports. Raises Unavailable."""
    try:
        from retrieval.reading import Documents  # noqa: PLC0415 — as said above
        from retrieval.service import Retrieval  # noqa: PLC0415 — as said above
    except ImportError as error:
        raise Unavailable(f"Vector stores need {error.name}: install the extra `embedded` or `retrieval`") from error
    return Retrieval(
        database_of(engine),
        folder,
        ShelfSources(engine, shelf),
        Documents(),
        embedder,
        changed=changed,
        memory_bytes=memory_bytes,
        searched=searched,
        engines=engines,
        bounds=bounds,
        ranker=ranker,
        writer=writer,
        asked=asked,
    )


def _vectors(answer: bytes) -> "NDArray[np.float32]":
    """In the order of the texts. Raises Refused."""
    import numpy as np  # noqa: PLC0415 — as said above

    try:
        rows = sorted(msgspec.json.decode(answer, type=_Answer).data, key=lambda each: each.index)
        vectors = [
            np.frombuffer(base64.b64decode(each.embedding), "<f4")
            if isinstance(each.embedding, str)
            else np.array(each.embedding, np.float32)
            for each in rows
        ]
        return np.stack(vectors)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Refused(502, f"The embedding model answered with no vectors: {error}", "upstream_error", None) from error


def _refused(status: int, head: bytes, answer: bytes, what: str) -> Refused:
    try:
        error = msgspec.json.decode(answer, type=_Refusal).error
    except msgspec.MsgspecError:
        error = _Error(f"the model answered with {status}")
    told = header(head, b"retry-after")
    wait_s = float(told) if told is not None and told.isdigit() else None
    headers = [(name, value) for name in ("retry-after", "x-should-retry") if (value := header(head, name.encode()))]
    return Refused(
        status,
        f"{what}: {error.message}",
        error.type,
        error.code,
        again=status in _AGAIN,
        wait_s=wait_s,
        headers=tuple(headers),
    )
