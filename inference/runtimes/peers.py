"""Models that other servers serve, by the Open Inference Protocol or as TorchServe does it: with our keys, budgets, captures and rollouts.

The artefact is a few words: which of the configured servers, and what the model is called there. What runs there under that name is that
server's affair, so a version says which of its versions is meant wherever the server has versions.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, final, get_args
from urllib.parse import quote

import httpx
import msgspec
import numpy as np
from numpy.typing import NDArray

from inference.errors import ArtefactRefused, BadRequest, RunFailed, TimedOut, Unavailable
from inference.registry.artefacts import verified
from inference.runtimes.arrays import DTYPES, texts
from inference.signature import Column, DataType, Signature

Protocol = Literal["oip", "torchserve"]
MOST_SAID: Final = 300  # characters of what a server complains of
PREDICTIONS: Final = "predictions"


class Peer(msgspec.Struct, frozen=True):
    """A server. `url` has no path but its own prefix; `token` is sent as a bearer. `timeout_s`: of one call."""

    name: str
    url: str
    protocol: Protocol = "oip"
    token: str | None = None
    timeout_s: float = 5.0


class Named(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An artefact: a model of a peer."""

    peer: str
    model: str
    version: str | None = None


class _Tensor(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    data: list[Any] = []


class _Answer(msgspec.Struct):
    outputs: list[_Tensor]


class _Metadata(msgspec.Struct):
    inputs: list[_Tensor] = []
    outputs: list[_Tensor] = []


_named: Final = msgspec.json.Decoder(Named).decode
_answer: Final = msgspec.json.Decoder(_Answer).decode
_metadata: Final = msgspec.json.Decoder(_Metadata).decode


def named(data: bytes) -> Named:
    """Raises ArtefactRefused."""
    try:
        return _named(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ArtefactRefused(
            f"A model of another server is a JSON object with `peer`, `model` and perhaps `version`: {error}",
            param="artifact",
            code="artefact_invalid",
        ) from None


def require(peers: Mapping[str, Peer], name: str) -> Peer:
    """Raises Unavailable."""
    found = peers.get(name)
    if found is None:
        known = ", ".join(sorted(peers)) or "none"
        raise Unavailable(f"The configuration has no `registry.peers.{name}` (it has: {known})", code="peer_unknown")
    return found


def restore(path: Path, digest: str, signature: Signature, peers: Mapping[str, Peer]) -> "PeerModel":
    """Raises Unavailable."""
    said = named(verified(path, digest))
    return PeerModel(require(peers, said.peer), said, signature.inputs)


@final
class PeerModel:
    """`inference.ports.Runnable`. One connection, which is kept."""

    def __init__(self, peer: Peer, said: Named, inputs: Sequence[Column]) -> None:
        self._peer = peer
        self._inputs = inputs
        model = quote(said.model, safe="")
        version = None if said.version is None else quote(said.version, safe="")
        if peer.protocol == "oip":
            self._place = f"/v2/models/{model}" if version is None else f"/v2/models/{model}/versions/{version}"
        else:
            self._place = f"/predictions/{model}" if version is None else f"/predictions/{model}/{version}"
        headers = {} if peer.token is None else {"authorization": f"Bearer {peer.token}"}
        self._client = httpx.Client(base_url=peer.url, headers=headers, timeout=peer.timeout_s, trust_env=False)

    def said(self) -> tuple[tuple[Column, ...], frozenset[str]]:
        """What the server says that the model takes, if it says so, and which outputs are a value a row. Raises InferenceError."""
        if self._peer.protocol != "oip":
            return (), frozenset()
        try:
            found = _metadata(self._sent("GET", self._place))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._odd(f"metadata that cannot be read: {error}") from None
        return self._columns(found.inputs), frozenset(each.name for each in found.outputs if len(each.shape) == 1)

    def _columns(self, found: Sequence[_Tensor]) -> tuple[Column, ...]:
        for each in found:
            if each.datatype not in get_args(DataType) or each.datatype == "FP16":
                raise ArtefactRefused(f"'{each.name}' is {each.datatype}, which JSON has no numbers for")
        return tuple(Column(each.name, each.datatype, tuple(each.shape) or (-1,)) for each in found)  # type: ignore[arg-type]

    def run(self, columns: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """Raises InferenceError."""
        given = [(each, columns[each.name]) for each in self._inputs if each.name in columns]
        try:
            return self._tensors(given) if self._peer.protocol == "oip" else self._rows(given)
        except (msgspec.MsgspecError, ValueError, TypeError) as error:  # ValueError: no UTF-8, no such shape
            raise self._odd(f"an answer that cannot be read: {error}") from None

    def close(self) -> None:
        self._client.close()

    def _tensors(self, given: Sequence[tuple[Column, NDArray[Any]]]) -> Mapping[str, NDArray[Any]]:
        inputs = [
            {"name": each.name, "datatype": each.datatype, "shape": array.shape, "data": _plain(array)}
            for each, array in given
        ]
        asked = {"inputs": inputs, "parameters": {"binary_data_output": False}}
        outputs = _answer(self._sent("POST", f"{self._place}/infer", asked)).outputs
        return {each.name: _array(each) for each in outputs}

    def _rows(self, given: Sequence[tuple[Column, NDArray[Any]]]) -> Mapping[str, NDArray[Any]]:
        """TorchServe leaves it to a handler what its body is. Its envelope `json` has instances and predictions, by row."""
        values = [array.tolist() for _, array in given]
        if len(given) == 1:
            rows = values[0]
        else:
            names = [each.name for each, _ in given]
            rows = [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]
        answer = msgspec.json.decode(self._sent("POST", self._place, {"instances": rows}))
        found = answer.get(PREDICTIONS) if isinstance(answer, dict) else answer
        if not isinstance(found, list) or len(found) != len(rows):
            raise self._odd(f"no prediction for each of {len(rows)} rows: its handler wants `service_envelope=json`")
        if found and all(isinstance(each, dict) for each in found):
            return {name: texts(np.asarray([each[name] for each in found])) for name in found[0]}
        return {PREDICTIONS: texts(np.asarray(found))}

    def _sent(self, method: str, place: str, body: Any = None) -> bytes:
        """Asked twice where a connection that was kept had been closed meanwhile: an inference changes nothing there."""
        content = None if body is None else msgspec.json.encode(body)
        headers = {"content-type": "application/json"}
        try:
            try:
                answer = self._client.request(method, place, content=content, headers=headers)
            except httpx.RemoteProtocolError:
                answer = self._client.request(method, place, content=content, headers=headers)
        except httpx.TimeoutException as error:
            raise TimedOut(f"{self._who} did not answer within {self._peer.timeout_s:g} s") from error
        except httpx.HTTPError as error:
            raise Unavailable(f"{self._who} cannot be reached: {error}", code="peer_unavailable") from error
        self._require(answer)
        return answer.content

    def _require(self, answer: httpx.Response) -> None:
        status = answer.status_code
        if status == 200:
            return
        said = f"{self._who} answered {status}: {answer.text[:MOST_SAID]}"
        match status:
            case 400 | 422:
                raise BadRequest(said, code="invalid_input")
            case 401 | 403:
                raise Unavailable(said, code="peer_credentials")
            case 404:
                raise Unavailable(said, code="peer_model_missing")
            case 429 | 503:
                raise Unavailable(said, code="peer_unavailable", headers=(("retry-after", "1"),))
            case _:
                raise RunFailed(said)

    def _odd(self, what: str) -> RunFailed:
        return RunFailed(f"{self._who} gave {what}"[: 2 * MOST_SAID])

    @property
    def _who(self) -> str:
        return f"The server '{self._peer.name}'"


def _plain(array: NDArray[Any]) -> list[Any]:
    """In row-major order. JSON has no NaN: null stands for it, which a server may refuse."""
    flat: list[Any] = array.reshape(-1).tolist()
    if array.dtype.kind != "f":
        return flat
    return [None if math.isnan(value) else value for value in flat]


def _array(tensor: _Tensor) -> NDArray[Any]:
    dtype = DTYPES.get(tensor.datatype)  # type: ignore[call-overload]  # any word, from outside
    if dtype is None:
        raise ValueError(f"'{tensor.name}' is {tensor.datatype[:40]}")
    if dtype.kind == "O":
        room = np.empty(len(tensor.data), np.object_)
        room[:] = tensor.data
        return room.reshape(tensor.shape)
    return np.asarray(tensor.data, dtype).reshape(tensor.shape)
