"""Adds documents, removes them and writes indexes down, over and over, until somebody kills it: `FOLDER COLLECTION SEED`.

What is acknowledged is a line in FOLDER/said, written when the transaction is over: `+ NAME SEED COUNT` or `- NAME`, and
`? NAME` before a removal begins.
"""

import os
import random
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gateway.database import connect
from retrieval import collection_store, document_store
from retrieval.index.resident import Sizes
from retrieval.index.residents import Residents
from tests.fixtures.retrieval import attach, fill, of, unit

DIMENSIONS = 8
SIZES = Sizes(100, 100 * DIMENSIONS)  # a hundred rows are written down, with a graph


def vectors(seed: int, count: int) -> NDArray[np.float32]:
    return unit(np.random.default_rng(seed).standard_normal((count, DIMENSIONS)).astype(np.float32))


def residents(folder: Path) -> Residents:
    return Residents(of(connect(url(folder))), folder / "retrieval", 1 << 26, SIZES)


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'penstock.db'}"


def main(arguments: Sequence[str]) -> int:
    folder, collection_id, seed = Path(arguments[0]), arguments[1], int(arguments[2])
    chance, database = random.Random(seed), of(connect(url(folder)))
    index = residents(folder)
    said = os.open(folder / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    collection = database.read(lambda tx: collection_store.by_id(tx, collection_id))
    assert collection is not None
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    number = 0
    while True:
        known = database.read(lambda tx: document_store.described(tx, collection_id, 0))
        name, count = f"doc{seed}x{number}", chance.randrange(20, 160)
        number += 1
        document = attach(database, collection, name)
        fill(database, document, [f"{name} {n}" for n in range(count)], vectors(seed * 1000 + number, count))
        os.write(said, f"+ {name} {seed * 1000 + number} {count}\n".encode())
        if len(known) > 4:
            picked = chance.choice(known).id
            victim = database.read(partial(document_store.by_id, id_=picked))
            if victim is not None:
                os.write(said, f"? {victim.source_id}\n".encode())
                with database.writing() as tx:
                    document_store.remove(tx, victim)
                os.write(said, f"- {victim.source_id}\n".encode())
        index.maintain(collection_id)


if __name__ == "__main__":
    main(sys.argv[1:])
