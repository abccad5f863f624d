"""Distilling, top to bottom: recorded answers → vectors → a model in a process of its own → held against held-out texts → registered."""

import asyncio
from pathlib import Path
from typing import Any, Final, final

import msgspec
from sqlalchemy import Engine

from admin.distil import teacher
from admin.distil.student import EMBEDDING, Vectors
from admin.distil.teacher import Teaching
from gateway.database import reading
from inference.distil.process import learnt
from inference.distil.recipe import FACTS, Learnt, Lesson, Recipe, Student
from inference.errors import Conflict
from inference.registry.records import NewVersion
from inference.registry.registrar import Offer, Registrar

AT_ONCE: Final = 64
SAMPLE: Final = 64


class Distilled(msgspec.Struct, frozen=True):
    """A version that can be written down, and how good it is."""

    version: NewVersion
    learnt: Learnt
    rows: int
    skipped: int


@final
class Distillery:
    """One per process. `vectors` embeds texts."""

    def __init__(self, engine: Engine, registrar: Registrar, vectors: Vectors) -> None:
        self._engine = engine
        self._registrar = registrar
        self._vectors = vectors

    async def distil(self, route: str, recipe: Recipe, most: int, since: float | None) -> Distilled:
        """Raises InferenceError: BadRequest for what cannot be learnt from, Conflict for a model that is not good enough."""
        found = await asyncio.to_thread(self._found, route, recipe, most, since)
        given = teacher.teaching(found, route, recipe)
        rows = await self._rows(given.texts)
        with self._registrar.artefacts.aside() as folder:
            made = await asyncio.to_thread(self._taught, given, rows, recipe, folder)
            _require(made, recipe)
            offer = _offer(route, given, rows, recipe, made, folder)
            version = await asyncio.to_thread(self._registrar.examined, offer, folder)
        return Distilled(version, made, len(given.texts), given.skipped)

    def _found(self, route: str, recipe: Recipe, most: int, since: float | None) -> list[Any]:
        with reading(self._engine) as tx:
            return list(teacher.examples(tx, route, recipe, most, since))

    async def _rows(self, texts: Any) -> Any:
        """A piece at a time: others embed, too."""
        import numpy as np  # noqa: PLC0415 — for those who distil

        return np.concatenate([await self._vectors(texts[at : at + AT_ONCE]) for at in range(0, len(texts), AT_ONCE)])

    @staticmethod
    def _taught(given: Teaching, rows: Any, recipe: Recipe, folder: Path) -> Learnt:
        import numpy as np  # noqa: PLC0415 — as above

        vectors = folder / "vectors.npy"
        np.save(vectors, rows)
        numbers: dict[str, int] = {}
        groups = [numbers.setdefault(text, len(numbers)) for text in given.texts]
        labels: Any = list(given.labels)
        return learnt(Lesson(str(vectors), labels, groups, recipe, str(folder / "model.skops")), folder)


def _require(made: Learnt, recipe: Recipe) -> None:
    metrics = made.metrics
    told = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    if made.threshold is None or metrics["agreement"] < recipe.agreement:
        raise Conflict(
            f"Nothing is registered: on held-out texts it does not reach an agreement of {recipe.agreement:g} ({told})",
            code="quality_gate",
        )
    if metrics["coverage"] < recipe.coverage:
        raise Conflict(
            f"Nothing is registered: it would be sure enough of too few texts, fewer than {recipe.coverage:g} ({told})",
            code="quality_gate",
        )


def _offer(route: str, given: Teaching, rows: Any, recipe: Recipe, made: Learnt, folder: Path) -> Offer:
    student = Student(route, recipe.kind, EMBEDDING, made.threshold or 0.0, recipe.field)
    return Offer(
        runtime="sklearn",
        artefact=folder / "model.skops",
        filename=f"distilled-{route.replace('/', '-')}.skops",
        example=rows[:SAMPLE].tolist(),
        facts={FACTS: msgspec.to_builtins(student)},
        lineage={
            "data": {"revision": f"sha256:{given.digest}", "source": f"answers of {route}", "rows": len(given.texts)},
            "parameters": msgspec.to_builtins(recipe),
            "preprocessing": {"embedding": EMBEDDING, "text": "the last message", "redacted": True},
            "seed": recipe.seed,
            "metrics": dict(made.metrics),
        },
    )
