"""The process that trains: `python -m inference.distil.worker`, the lesson on its input, what was learnt on its output.

scikit-learn is imported here and nowhere in the server. Bound like the process that looks at artefacts.
"""

import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from inference.distil.recipe import Learnt, Lesson
from inference.runtimes.limits import Limits
from inference.runtimes.worker import bind


def main() -> None:
    bind(msgspec.json.decode(sys.argv[1], type=Limits))
    learnt = learn(msgspec.json.decode(sys.stdin.buffer.read(), type=Lesson))
    sys.stdout.buffer.write(msgspec.json.encode(learnt))
    sys.stdout.buffer.flush()


def learn(lesson: Lesson) -> Learnt:
    """Writes the model as skops. Texts that are the same are all learnt from, or all held out."""
    import numpy as np  # noqa: PLC0415 — after the limits stand
    import skops.io  # noqa: PLC0415 — as above
    from sklearn.linear_model import LogisticRegression, Ridge  # noqa: PLC0415 — as above
    from sklearn.model_selection import GroupShuffleSplit  # noqa: PLC0415 — as above

    recipe = lesson.recipe
    rows = np.load(lesson.vectors).astype(np.float32)
    labels = np.array(lesson.labels, dtype=object if recipe.kind == "classifier" else np.float64)
    split = GroupShuffleSplit(n_splits=1, test_size=recipe.held_out, random_state=recipe.seed)
    train, test = next(split.split(rows, labels, np.array(lesson.groups)))
    if recipe.kind == "classifier":
        model = LogisticRegression(C=10.0, max_iter=1000, random_state=recipe.seed).fit(
            rows[train], labels[train].astype(str)
        )
        learnt = _classifier(model, rows[test], labels[test].astype(str), recipe.agreement)
    else:
        model = Ridge(alpha=1.0, random_state=recipe.seed).fit(rows[train], labels[train])
        learnt = _regressor(model, rows[test], labels[test])
    skops.io.dump(model, lesson.model)
    sizes = {"rows_train": float(len(train)), "rows_held_out": float(len(test))}
    return Learnt(learnt.threshold, {**learnt.metrics, **sizes})


def _classifier(model: Any, rows: Any, labels: Any, wanted: float) -> Learnt:
    shares = model.predict_proba(rows)
    sure = shares.max(axis=1)
    right = model.classes_[shares.argmax(axis=1)] == labels
    threshold = _threshold(sure.tolist(), right.tolist(), wanted)
    kept = sure >= (1.1 if threshold is None else threshold)
    return Learnt(
        threshold,
        {
            "accuracy": float(right.mean()),
            "coverage": float(kept.mean()),
            "agreement": float(right[kept].mean()) if kept.any() else 0.0,
            "labels": float(len(model.classes_)),
        },
    )


def _regressor(model: Any, rows: Any, labels: Any) -> Learnt:
    """It is not sure of anything, so it answers always: `agreement` is the part of the variance that it explains."""
    off = model.predict(rows) - labels
    spread = float(((labels - labels.mean()) ** 2).mean())
    explained = 1 - float((off**2).mean()) / spread if spread else 0.0
    return Learnt(0.0, {"agreement": explained, "mae": float(abs(off).mean()), "coverage": 1.0})


def _threshold(sure: Sequence[float], right: Sequence[bool], wanted: float) -> float | None:
    """The least probability from which on so many are right."""
    found, good = None, 0
    ordered = sorted(zip(sure, right, strict=True), reverse=True)
    for number, (share, correct) in enumerate(ordered, 1):
        good += correct
        last = number == len(ordered) or ordered[number][0] < share  # equals stay together
        if last and good / number >= wanted:
            found = share
    return found


if __name__ == "__main__":
    main()
