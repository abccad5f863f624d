"""/openapi.json has every path that is served, and no other."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from fastapi.routing import APIRoute

from admin.app import Api, Steering, create_app
from admin.feedback import Feedback, SearchIds
from admin.rest.documentation import DocumentedApi
from admin.rollouts.service import Levers, Rollouts
from admin.settings import load
from admin.wiring import House
from gateway import keys
from gateway.database import connect
from gateway.refresh import Refresher
from gateway.secret_box import SecretBox
from gateway.snapshot import Current
from gateway.snapshot_store import SnapshotStore
from tests.fixtures.control import ADMIN_KEY, resolve
from tests.fixtures.server import Json, Server

METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE"}
NO_KEY = "Health"


@pytest.fixture
def app(box: SecretBox, tmp_path: Path) -> Iterator[DocumentedApi]:
    """The application as the process has it; nothing of it is called here."""
    nothing = cast("Any", None)
    engine = connect(f"sqlite:///{tmp_path / 'document.db'}")
    app = create_app(
        engine=engine,
        box=box,
        refresher=Refresher(SnapshotStore(engine, box, resolve), Current()),
        admin_key_digest=keys.digest(ADMIN_KEY.encode()),
        version="0.0.test",
        api=Api(
            nothing, nothing, nothing, nothing, nothing, nothing, Feedback(engine, SearchIds(b""), nothing), nothing
        ),
        rolling=Steering(Rollouts(Levers({}), lambda: 0.0), nothing),
    )
    yield cast("DocumentedApi", app)
    app.router.routes.clear()
    engine.dispose()


def operations(document: Json) -> set[tuple[str, str]]:
    return {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}


def routed(routes: Iterable[object]) -> Iterator[tuple[str, str]]:
    for route in routes:
        if isinstance(route, APIRoute):
            yield from ((method, route.path_format) for method in METHODS & (route.methods or set()))
        else:
            yield from routed(getattr(getattr(route, "original_router", route), "routes", ()))


def test_every_route_of_the_application_is_documented(app: DocumentedApi) -> None:
    """Of the admin plane, and files, uploads and batches, which are read by hand."""
    found = set(routed(app.routes)) - {("GET", "/docs")}
    assert len(found) > 70
    assert {path for _, path in found} >= {
        "/v1/files",
        "/v1/uploads",
        "/v1/batches",
        "/v1/vector_stores",
        "/admin/v1/keys",
    }
    assert found - operations(app.openapi()) == set()


@pytest.mark.timeout(60)
async def test_every_hot_path_is_documented(app: DocumentedApi, tmp_path: Path) -> None:
    """Those of the gateway's own listener, with their methods; below a prefix there is at least one path."""
    loaded = load({"--data-dir": str(tmp_path)}, {})
    house = House(loaded, ADMIN_KEY, "0.0.test")
    house.prepare()
    documented = operations(app.openapi())
    try:
        house.open()
        exact, prefixes = house.listener.hot
        await house.close()
    finally:
        house.dispose()
    assert len(exact) > 15
    for path, route in exact.items():
        methods = {method for method, other in documented if other == path.decode()}
        assert methods, f"{path.decode()} is not documented"
        assert not route.method or methods == {route.method.decode()}
    for prefix in prefixes:
        assert any(path.startswith(prefix.decode()) for _, path in documented), f"nothing below {prefix.decode()}"


def test_every_documented_path_is_served_to_none_without_a_key(server: Server) -> None:
    """On the real process: 401, whatever else may be wrong, in the shape of the path. Only health needs none."""
    document = server.http.get("/openapi.json").json()
    assert len(operations(document)) > 110
    for method, path in sorted(operations(document)):
        operation = document["paths"][path][method.lower()]
        answer = server.http.request(method, path.replace("{", "").replace("}", ""))
        if operation["tags"] == [NO_KEY]:
            assert answer.status_code == 200, path
            continue
        assert answer.status_code == 401, (method, path, answer.text)
        if operation["tags"] == ["Pass-through"]:  # each in its provider's own shape: tests/native
            continue
        error = answer.json()["error"]
        if operation["tags"] == ["Inference protocol"]:  # whose errors are texts
            assert isinstance(error, str)
            continue
        assert set(error) == (
            {"type", "message"} if operation["tags"] == ["Messages"] else {"message", "type", "param", "code"}
        )
        assert operation["summary"]
