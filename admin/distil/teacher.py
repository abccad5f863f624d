"""What there is to learn from: the recorded answers of a model, newest first. Blocks: for a thread."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec
from sqlalchemy import Connection, select

from gateway.tables import request_contents
from inference.distil.labels import Example, example
from inference.distil.recipe import Recipe
from inference.errors import BadRequest

AT_ONCE: Final = 500
FEWEST: Final = 50
MOST_LABELS: Final = 200


class Teaching(msgspec.Struct, frozen=True):
    """`digest`: of texts and labels, in order: the data's own name. `skipped` examples had labels that are too rare."""

    texts: Sequence[str]
    labels: Sequence[str | float]
    digest: str
    skipped: int


def examples(tx: Connection, route: str, recipe: Recipe, most: int, since: float | None) -> list[Example]:
    """Up to `most`, of as many recorded requests as it takes."""
    columns, found, before = request_contents.c, list[Example](), None
    while len(found) < most:
        query = select(columns.id, columns.request, columns.answer).order_by(columns.id.desc()).limit(AT_ONCE)
        query = query.where(columns.answer.is_not(None), columns.request.contains(route, autoescape=True))
        if before is not None:
            query = query.where(columns.id < before)
        if since is not None:
            query = query.where(columns.at >= since)
        rows = tx.execute(query).all()
        if not rows:
            break
        before = rows[-1].id
        some = (example(row.request, row.answer, route, recipe.kind, recipe.field) for row in rows)
        found += [one for one in some if one is not None]
    return found[:most]


def teaching(found: Sequence[Example], route: str, recipe: Recipe) -> Teaching:
    """Raises BadRequest where there is too little, or what was answered are no labels."""
    kept = list(found)
    if recipe.kind == "classifier":
        counts = Counter(one.label for one in found)
        common = {label for label, count in counts.items() if count >= recipe.least_of_a_label}
        kept = [one for one in found if one.label in common]
        if found and (len(common) < 2 or len(common) > MOST_LABELS or len(kept) < len(found) / 2):
            raise BadRequest(
                f"The answers of '{route}' are no labels: {len(counts)} different ones among {len(found)}, "
                f"{len(common)} of which came {recipe.least_of_a_label} times or more",
                code="no_labels",
            )
    if len(kept) < FEWEST:
        raise BadRequest(
            f"There are {len(kept)} recorded answers of '{route}' to learn from, and it takes {FEWEST}: switch recording on by "
            "`records.content.enabled`, or `record_content` in the metadata of a key",
            code="too_few_answers",
        )
    kept.reverse()  # oldest first
    digest = hashlib.sha256(msgspec.json.encode([(one.text, one.label) for one in kept])).hexdigest()
    return Teaching([one.text for one in kept], [one.label for one in kept], digest, len(found) - len(kept))
