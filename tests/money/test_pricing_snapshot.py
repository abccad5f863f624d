"""Which price is in force: the deployment's, else its model's, else the map's, else what the terms say; factors apply to all of them."""

from pathlib import Path

import pytest

from admin import migrate
from gateway.catalog import Deployment
from gateway.database import changing, connect
from gateway.price_map import PriceMap
from gateway.pricing import cost
from gateway.secret_box import SecretBox
from gateway.seeding import Seed, seed
from gateway.settings import ModelSpec, PricingSection
from gateway.snapshot_store import SnapshotStore
from gateway.usage import usage

URL = "http://127.0.0.1:1/v1"


def deployed(folder: Path, model: dict[str, object], root: PricingSection | None = None) -> Deployment:
    """The one deployment of a model, as a request sees it."""
    engine = connect(f"sqlite:///{folder / 'penstock.db'}")
    box = SecretBox(lambda: b"0" * 32)
    try:
        migrate.prepare(engine)
        with changing(engine) as tx:
            seed(tx, "file", [Seed(ModelSpec.model_validate({"name": "m", **model}), "file x:1")], box)
        store = SnapshotStore(
            engine, box, lambda text: text, price_of=PriceMap().find, pricing=root or PricingSection()
        )
        return store.load().snapshot.catalog.models["m"].deployments[0]
    finally:
        engine.dispose()


def nanousd(deployment: Deployment) -> int | None:
    return None if deployment.price is None else cost(usage(1000, 1000), deployment.price)


@pytest.mark.parametrize(
    ("deployment", "model", "expected"),
    [
        ({"model": "gpt-4o"}, {}, 12_500_000),
        ({"model": "gpt-4o", "price": {"input": 1, "output": 1}}, {"price": {"input": 9}}, 2_000_000),
        ({"model": "gpt-4o"}, {"price": {"input": 1, "output": 2}}, 3_000_000),
        ({"model": "gpt-4o", "price": {"discount": 0.1}}, {"price": {"markup": 0.2}}, 13_500_000),
        ({"model": "own"}, {}, None),
        ({"model": "own", "price": {"discount": 0.1}}, {}, None),
        ({"model": "own"}, {"pricing": {"unknown": "hold", "hold_usd": 0.01}}, 10_000_000),
        ({"model": "own", "provider": "embedded", "base_url": None}, {"pricing": {"unknown": "deny"}}, 0),
    ],
)
def test_the_nearest_price_is_in_force(
    tmp_path: Path, deployment: dict[str, object], model: dict[str, object], expected: int | None
) -> None:
    """A thousand tokens each way; None is an unknown price, which is not zero."""
    made = deployed(tmp_path, {"deployments": [{"id": "d", "base_url": URL, **deployment}], **model})
    assert nanousd(made) == expected


def test_the_roots_policy_holds_where_a_model_has_none(tmp_path: Path) -> None:
    """The terms travel with the deployment, so that a call can be refused before it is sent."""
    deny = PricingSection(unknown="deny")
    made = deployed(tmp_path, {"deployments": [{"id": "d", "base_url": URL, "model": "own"}]}, deny)
    assert (made.price, made.terms.unknown) == (None, "deny")


def test_sizes_come_from_the_map_unless_they_are_stated(tmp_path: Path) -> None:
    """What is held for a client that names no limit."""
    made = deployed(
        tmp_path, {"deployments": [{"id": "d", "base_url": URL, "model": "gpt-4o", "max_output_tokens": 100}]}
    )
    assert (made.max_input_tokens, made.max_output_tokens) == (128_000, 100)
