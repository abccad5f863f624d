"""Which requests a deployment is for, region by region, tag by tag."""

import random

import pytest

from gateway.catalog import When
from gateway.routing.conditions import admits
from gateway.routing.plan import plan
from tests.fixtures.routing import asked, deployment, loads, model

ANYBODY = deployment("anybody")
EU = deployment("eu", region="eu")
BATCH = deployment("batch", when=When(tags=frozenset({"batch", "night"})))
TRIAL = deployment("trial", when=When(metadata=(("tier", ("free", "trial")), ("beta", (True,)))))
ONLY_EU = deployment("only-eu", when=When(region="eu"))


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (asked(), {"anybody", "eu"}),
        (asked(tags=["batch", "x"]), {"anybody", "eu", "batch"}),
        (asked(tags=["x"]), {"anybody", "eu"}),
        (asked(metadata={"tier": "trial", "beta": True}), {"anybody", "eu", "trial"}),
        (asked(metadata={"tier": ["gold", "free"], "beta": True}), {"anybody", "eu", "trial"}),
        (asked(metadata={"tier": "trial", "beta": 1}), {"anybody", "eu"}),
        (asked(metadata={"tier": "trial"}), {"anybody", "eu"}),
        (asked(regions=("eu",)), {"eu", "only-eu"}),
        (asked(headers={"x-penstock-region": "eu"}), {"eu", "only-eu"}),
        (asked(regions=("eu",), tags=["batch"]), {"eu", "only-eu"}),
        (asked(regions=("eu",), headers={"x-penstock-region": "us"}), set()),
        (asked(headers={"x-penstock-region": "mars"}), set()),
    ],
)
def test_a_request_goes_where_it_is_meant_to(request_: object, expected: set[str]) -> None:
    """What is bound to a region goes to no place that does not say that it lies there."""
    of = model(ANYBODY, EU, BATCH, TRIAL, ONLY_EU)
    made = plan(of, loads(), request_, random.random)  # type: ignore[arg-type]
    assert {one.id for one in made.order} == expected
    assert {one.id for one in of.deployments if admits(one, request_)} == expected  # type: ignore[arg-type]
