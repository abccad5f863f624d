"""Feedback as it comes in: JSON, JSON lines, CSV, Parquet and CloudEvents, each row checked by itself. Pure."""

import base64
import binascii
import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from inference.feedback.word import JUDGE, Word

MAX_LABEL_BYTES: Final = 16_384
MAX_COMMENT: Final = 10_000
FIELDS: Final = frozenset(("id", "label", "score", "comment", "source"))

Rows: TypeAlias = Iterator[tuple[int, "Word | Wrong"]]  # each with its number, from 1

_ID: Final = re.compile(r"[\x21-\x7e]{1,200}")


class Wrong(Exception):
    """`param` names the field."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


def word(value: object, source: str | None = None) -> Word:
    """One object. Raises Wrong."""
    if not isinstance(value, Mapping):
        raise Wrong("Feedback is an object with `id` and a `label`, a `score` or a `comment`")
    unknown = sorted(str(name) for name in value.keys() - FIELDS)
    if unknown:
        raise Wrong(f"Unknown parameter: '{unknown[0]}'", unknown[0])
    id_ = value.get("id")
    if not isinstance(id_, str) or not _ID.fullmatch(id_):
        raise Wrong("'id' is that of an answer, a prediction or a search: its `x-request-id`, or the id in it", "id")
    who = _text(value, "source", 100) or source or "user"
    if who.startswith(JUDGE):
        raise Wrong(f"'source' begins with '{JUDGE}' for judges of rollouts alone", "source")
    said = Word(
        id_,
        who,
        _label(value.get("label")),
        _score(value.get("score")),
        _text(value, "comment", MAX_COMMENT),
    )
    if said.label is None and said.score is None and said.comment is None:
        raise Wrong("Feedback says something: 'label', 'score' or 'comment'", "label")
    return said


def event(envelope: Mapping[str, Any]) -> Word:
    """A CloudEvent 1.0 in structured mode. Its source is who says it, unless the data names another. Raises Wrong."""
    if envelope.get("specversion") != "1.0":
        raise Wrong("'specversion' is 1.0", "specversion")
    for name in ("id", "source", "type"):
        if not isinstance(envelope.get(name), str) or not envelope[name]:
            raise Wrong(f"A CloudEvent has '{name}', a text", name)
    data = envelope.get("data")
    if data is None and "data_base64" in envelope:
        data = _decoded(envelope["data_base64"])
    return word(data, envelope["source"][:100])


def json_lines(body: bytes) -> Rows:
    for number, line in enumerate(body.splitlines(), 1):
        if line.strip():
            yield number, _row(lambda given: word(_json(given)), line)


def json_rows(values: object) -> Rows:
    """An array, or an object with `data`."""
    if isinstance(values, Mapping):
        values = values.get("data")
    if not isinstance(values, list):
        raise Wrong("An array of feedback, or an object whose `data` is one", "data")
    for number, value in enumerate(values, 1):
        yield number, _row(word, value)


def events(values: object) -> Rows:
    """CloudEvents in batch mode."""
    if not isinstance(values, list):
        raise Wrong("A batch of CloudEvents is an array")
    for number, value in enumerate(values, 1):
        yield number, _row(event, value if isinstance(value, Mapping) else {})


def comma_separated(body: bytes) -> Rows:
    """A header names the columns; an empty cell is nothing said. Numbers, true and false of a label are what they look like."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Wrong("CSV is UTF-8") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    if not reader.fieldnames or "id" not in reader.fieldnames:
        raise Wrong("The first line of CSV names the columns: id, and label, score, comment or source", "id")
    try:
        for number, cells in enumerate(reader, 2):
            yield number, _row(lambda given: word(_typed(given)), cells)
    except csv.Error as error:
        raise Wrong(f"Not CSV: {error}") from None


def parquet(body: bytes) -> Rows:
    """Columns by the same names. Raises ImportError without pyarrow, Wrong."""
    import pyarrow.parquet  # noqa: PLC0415 — for those who send it

    try:
        table = pyarrow.parquet.read_table(io.BytesIO(body))
        rows = table.to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise Wrong(f"Not Parquet: {error}") from None
    for number, row in enumerate(rows, 1):
        said = {name: value for name, value in row.items() if value is not None}
        yield number, _row(word, said)


def _row(read: Callable[[Any], Word], given: object) -> "Word | Wrong":
    try:
        return read(given)
    except Wrong as wrong:
        return wrong


def _json(line: bytes) -> object:
    try:
        return msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Wrong(f"Not JSON: {error}") from None


def _decoded(text: object) -> object:
    try:
        return _json(base64.b64decode(str(text), validate=True))
    except binascii.Error:
        raise Wrong("'data_base64' is not base64", "data_base64") from None


def _typed(cells: Mapping[str | None, Any]) -> dict[str, Any]:
    if None in cells:
        raise Wrong("More cells than the header has columns")
    said = {name: value for name, value in cells.items() if name is not None and value not in {None, ""}}
    if "score" in said:
        try:
            said["score"] = float(said["score"])
        except ValueError:
            raise Wrong(f"'score' is a number, not {said['score'][:50]!r}", "score") from None
    if "label" in said:
        said["label"] = _scalar(said["label"])
    return said


def _scalar(text: str) -> object:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    finite = not isinstance(found, float) or math.isfinite(found)
    return found if isinstance(found, (bool, int, float, list)) and finite else text


def _label(value: object) -> object:
    if value is None:
        return None
    if isinstance(value, Mapping):
        raise Wrong("'label' is a text, a number, a boolean, or an array of them: one per row", "label")
    try:
        size = len(msgspec.json.encode(value))
        finite = "NaN" not in json.dumps(value) and "Infinity" not in json.dumps(value)
    except (TypeError, ValueError, RecursionError, UnicodeEncodeError, OverflowError, msgspec.MsgspecError):
        raise Wrong("'label' cannot be stored", "label") from None
    if size > MAX_LABEL_BYTES:
        raise Wrong(f"'label' has at most {MAX_LABEL_BYTES:,} bytes", "label")
    if not finite or "\\u0000" in json.dumps(value):
        raise Wrong("'label' cannot be stored", "label")
    return value


def _score(value: object) -> float | None:
    if value is None:
        return None
    if not isinstance(value, (int, float)):
        raise Wrong("'score' is a number", "score")
    try:
        score = float(value)
    except OverflowError:
        score = math.inf
    if not math.isfinite(score):
        raise Wrong("'score' is a finite number", "score")
    return score


def _text(value: Mapping[str, Any], name: str, most: int) -> str | None:
    text = value.get(name)
    if text is None:
        return None
    if not isinstance(text, str) or len(text) > most:
        raise Wrong(f"'{name}' is a text of at most {most:,} characters", name)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Wrong(f"'{name}' cannot be stored", name) from None
    if "\x00" in text:
        raise Wrong(f"'{name}' holds a NUL character", name)
    return text
