"""A swap under load: no request is lost, each is answered by one version, and after the acknowledgement by the new one."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fixtures.server import Server
from tests.fixtures.swaps import Answer, Load, point, promote, register, require_whole

pytestmark = pytest.mark.timeout(240)

FACTORS = (1.0, 3.0)
LAG_S = 10.0  # of a replica, on a machine that has other things to do; a quarter of a second on one that has not


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server({}, tmp_path_factory.mktemp("swaps")).start()
    yield started
    alive = started.running()
    started.stop()
    assert alive, started.output


def test_a_swap_under_load_loses_no_request(server: Server) -> None:
    """The alias goes there and back four times, and through a promotion: who asks after the acknowledgement gets the new version."""
    register(server, "swapped", *FACTORS)
    swaps: list[tuple[float, float, int]] = []  # sent, acknowledged, version

    def swap(version: int) -> None:
        sent = time.monotonic()
        point(server, "swapped", version)
        swaps.append((sent, time.monotonic(), version))
        load.await_more()

    with Load(server, "swapped").running() as load:
        load.await_more(version=1)
        for version in (2, 1, 2, 1):
            swap(version)
        sent = time.monotonic()
        promote(server, "swapped", 1, 2)
        swaps.append((sent, time.monotonic(), 2))
        load.await_more()
        swap(1)

    require_whole(load.answers, FACTORS)
    assert {one.version for one in load.answers} == {1, 2}
    ends = [*(sent for sent, _, _ in swaps[1:]), float("inf")]
    for (_, acknowledged, version), end in zip(swaps, ends, strict=True):
        between = [one for one in load.answers if one.begun >= acknowledged and one.ended <= end]
        assert between
        assert {one.version for one in between} == {version}


def test_replicas_swap_each_at_once_and_soon_after_each_other(
    new_postgres: Callable[[str], str], migrated_postgres: str, tmp_path: Path
) -> None:
    """Two processes on one PostgreSQL and one folder of artefacts. The one that was told is first; the other follows with its next look."""
    environ = {"PENSTOCK_DATABASE_URL": new_postgres(migrated_postgres), "PENSTOCK_SECRET_KEY": "s" * 40}
    config = {"registry": {"directory": str(tmp_path / "artefacts")}}
    with ExitStack() as stack:
        replicas = []
        for name in ("told", "other"):
            folder = tmp_path / name
            folder.mkdir()
            replicas.append(Server(config, folder, environ=environ).start())
            stack.callback(replicas[-1].stop)
        told = replicas[0]
        register(told, "shared", *FACTORS)
        loads = [stack.enter_context(Load(each, "shared", clients=2).running()) for each in replicas]
        for load in loads:
            load.await_more(version=1)
        lags = []
        for version in (2, 1, 2):
            before = [len(load.answers) for load in loads]
            if version == 2:
                promote(told, "shared", 1, 2)
            else:
                point(told, "shared", version)
            acknowledged = time.monotonic()
            for load in loads:
                load.await_more(version=version)
            here, there = (load.answers[start:] for load, start in zip(loads, before, strict=True))
            assert {one.version for one in here if one.begun >= acknowledged} == {version}
            lags.append(lag(there, version, acknowledged))
        alive = [each.running() for each in replicas]
    assert alive == [True, True]
    for load in loads:
        require_whole([one for one in load.answers if one.status], FACTORS)
    print(f"the other replica followed within {[round(each, 2) for each in lags]} s of the acknowledgement")
    assert max(lags) < LAG_S


def lag(answers: list[Answer], version: int, acknowledged: float) -> float:
    """How long the old version still took requests; with the first answer of the new one it takes none any more."""
    first = min(one.ended for one in answers if one.version == version)
    late = [one for one in answers if one.version != version and one.begun >= first]
    assert not late, late[:3]
    old = [one.begun for one in answers if one.version != version]
    return max(0.0, max(old, default=acknowledged) - acknowledged)
