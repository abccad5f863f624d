"""Another process with the same database: changes documents as it is told, or one of them over and over.

`python -m tests.kill.changing URL FOLDER COLLECTION` reads lines of JSON, `[what, document, …]`, and says `done` when the change is
committed. `churn` goes on until it is killed: the document's passages are of a next version, of which FOLDER/said speaks once it is
there, and indexes are written down every few versions.
"""

import json
import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from gateway.database import connect
from retrieval import document_store
from retrieval.database import Database
from retrieval.document_store import Document
from retrieval.index.resident import Sizes
from retrieval.index.residents import Residents
from tests.fixtures.retrieval import fill, of

SIZES = Sizes(written_from=8)
PIECES = 6  # passages of a document


def main(url: str, folder: str, collection_id: str) -> None:
    database = of(connect(url))
    print("listening", flush=True)
    for line in sys.stdin:
        what, id_, *more = json.loads(line)
        document = database.read(lambda tx, id_=id_: document_store.by_id(tx, id_))  # type: ignore[misc]
        assert document is not None
        if what == "churn":
            churn(database, Path(folder), collection_id, document)
        change(database, document, what, more)
        print("done", flush=True)


def change(database: Database, document: Document, what: str, more: Sequence[object]) -> None:
    match what, more:
        case "remove", []:
            database.write(lambda tx: document_store.remove(tx, document))
        case "relabel", [list(labels)]:
            database.write(lambda tx: document_store.relabel(tx, document, labels))
        case "describe", [dict(attributes)]:
            database.write(lambda tx: document_store.describe(tx, document, attributes))
        case "fill", [list(texts)]:
            fill(database, document, texts)


def churn(database: Database, folder: Path, collection_id: str, document: Document) -> None:
    residents = Residents(database, folder / "retrieval", 1 << 26, SIZES)
    with (folder / "said").open("w") as said:
        for version in count(1):
            fill(database, document, version_of(document.source_id, version))
            said.write(f"{version}\n")
            said.flush()
            if version % 3 == 0:
                residents.maintain(collection_id)


def version_of(name: str, version: int) -> list[str]:
    return [f"{name} {version} {piece}" for piece in range(PIECES)]


if __name__ == "__main__":
    main(*sys.argv[1:])
