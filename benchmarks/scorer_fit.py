"""The benchmark's model, fitted and saved by whoever is going to serve it, in its environment: a pickle is no exchange format.

python benchmarks/scorer_fit.py joblib|mlflow TARGET
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler


def fitted() -> Pipeline:
    data = load_breast_cancer()
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(
        np.asarray(data.data, np.float32), data.target
    )


def main(kind: str, target: Path) -> None:
    if kind == "mlflow":
        import mlflow.sklearn  # noqa: PLC0415 — in its own environment alone

        mlflow.sklearn.save_model(fitted(), str(target), serialization_format="cloudpickle")
        return
    import joblib  # noqa: PLC0415 — as above

    joblib.dump(fitted(), target)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
