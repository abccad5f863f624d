"""Who supervises: one process of several, and the next one after its death."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from sqlalchemy import Engine, text

from admin.fleet.desk import Desk
from gateway.database import connect
from gateway.secret_box import SecretBox
from inference.fleet import process
from inference.fleet.engine import Tools
from inference.fleet.probe import Probe
from inference.fleet.settings import EngineSpec
from inference.fleet.states import Condition, Declared, Offer
from inference.fleet.supervisor import Supervisor
from tests.fixtures.server import Server
from tests.fleet.conftest import PATIENCE_S, Fleet, engine

if TYPE_CHECKING:
    from gateway.refresh import Refresher


def alive(pid: int) -> bool:
    found = process.stat(pid)
    return found is not None and found.state not in "ZX"


@pytest.mark.parametrize("declared", [True, False])
def test_engines_outlive_a_killed_server_and_are_adopted_or_ended(tmp_path: Path, *, declared: bool) -> None:
    """kill -9: the process goes on. The next server takes it over as it is, or ends it if nobody declares it any more."""
    server = Server({"engines": [engine("kept"), engine("other")]}, tmp_path).start()
    fleet = Fleet(server)
    pid = fleet.ready("kept")["replicas"][0]["pid"]
    server.kill()
    assert alive(pid)
    again = Server({"engines": [engine("kept")] if declared else [engine("other")]}, tmp_path).start()
    try:
        fleet = Fleet(again)
        if declared:
            assert fleet.adopted("kept") == [pid]
            fleet.ready("kept")
            assert fleet.said("kept")[2] == str(pid)
        else:
            deadline = time.monotonic() + PATIENCE_S
            while alive(pid):
                assert time.monotonic() < deadline, again.output
                time.sleep(0.1)
            fleet.gone("kept")
    finally:
        again.stop()
    assert not alive(pid), "a server that ends takes its engines with it"


def test_one_of_several_workers_supervises(tmp_path: Path) -> None:
    """Each engine has one process, whichever worker answers; and all of them serve it."""
    server = Server({"server": {"workers": 2}, "engines": [engine("shared")]}, tmp_path).start()
    try:
        fleet = Fleet(server)
        pid = str(fleet.ready("shared")["replicas"][0]["pid"])
        assert {fleet.said("shared")[2] for _ in range(6)} == {pid}
        assert len(list((server.data / "engines" / "shared").glob("*.json"))) == 1
    finally:
        server.stop()
    assert not alive(int(pid))


def test_what_is_to_be_kept_outlives_an_orderly_end(tmp_path: Path) -> None:
    """`on_exit: keep`: SIGTERM ends the server, the process goes on, and the next server has it ready at once."""
    config = {"engines": [engine("kept", on_exit="keep"), engine("other")]}
    server = Server(config, tmp_path).start()
    fleet = Fleet(server)
    pids = {name: fleet.ready(name)["replicas"][0]["pid"] for name in ("kept", "other")}
    server.stop()
    try:
        assert (alive(pids["kept"]), alive(pids["other"])) == (True, False)
        again = Server({"engines": [engine("kept")]}, tmp_path).start()
        try:
            assert Fleet(again).adopted("kept") == [pids["kept"]]
        finally:
            again.stop()
        assert not alive(pids["kept"])
    finally:
        end(pids["kept"])


def test_another_machine_takes_over_from_a_dead_one(
    new_postgres: Callable[[str], str], migrated_postgres: str, tmp_path: Path
) -> None:
    """Two processes on one PostgreSQL, each with a folder of its own: one runs engines, and after its SIGKILL the other does."""
    environ = {"PENSTOCK_DATABASE_URL": new_postgres(migrated_postgres), "PENSTOCK_SECRET_KEY": "s" * 40}
    servers = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        servers.append(Server({"engines": [engine("moved")]}, folder, environ=environ).start())
    first, second = servers
    pid = 0
    try:
        pid = Fleet(first).ready("moved")["replicas"][0]["pid"]
        assert list((second.data / "engines").glob("moved/*.json")) == []
        first.kill()
        fleet = Fleet(second)
        fleet.until("moved", lambda state: state["ready"] == 1 and state["replicas"][0]["pid"] != pid)
        assert len(list((second.data / "engines").glob("moved/*.json"))) == 1
        deadline = time.monotonic() + PATIENCE_S
        while fleet.ask("moved").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        end(pid)  # its machine is this one, too: there nobody would be left to ask
        for server in servers:
            server.stop()


async def test_the_lead_is_held_by_a_connection_and_looked_after(
    new_postgres: Callable[[str], str], migrated_postgres: str
) -> None:
    """One of two has it; who loses the connection loses the lead if another is quicker, and gets it back when that one goes."""
    engine_ = connect(new_postgres(migrated_postgres))
    one, other = (
        Desk(engine_, SecretBox(lambda: b"k" * 32), str, cast("Refresher", None), name) for name in ("one", "other")
    )
    assert (await one.lead(), await other.lead(), await one.lead()) == (True, False, True)
    cut_off(engine_)
    assert (await other.lead(), await one.lead()) == (True, False)
    cut_off(engine_)
    assert await other.lead()  # nobody was quicker
    await other.close()
    assert await one.lead()
    await one.close()
    engine_.dispose()


async def test_who_loses_the_lead_ends_what_it_runs(tmp_path: Path) -> None:
    """Another machine runs it now. With the lead back it is run here again."""
    desk = Flag()
    tools = Tools(tmp_path, Probe(), desk.publish, desk.drained, str, {"PATH": os.defpath})
    supervisor = Supervisor(tmp_path, desk, tools)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(supervisor.run())
        first = await desk.process(supervisor)
        desk.leads = False
        await until(lambda: not alive(first) and not supervisor.conditions)
        told = len(desk.offers)
        await asyncio.sleep(0.5)
        assert len(desk.offers) == told
        desk.leads = True
        assert await desk.process(supervisor) != first
        running.cancel()
    await supervisor.close()


class Flag:
    """A desk that says whether it leads, and remembers what it is told."""

    def __init__(self) -> None:
        self.leads = True
        self.offers: list[Offer | None] = []
        self.spec = EngineSpec.model_validate(engine("alone"))

    async def lead(self) -> bool:
        return self.leads

    async def declared(self) -> dict[str, Declared]:
        return {"alone": Declared(self.spec)}

    async def publish(self, name: str, offer: Offer | None) -> int:
        del name
        self.offers.append(offer)
        return len(self.offers)

    async def drained(self, name: str, slot: int, revision: int) -> bool:
        del name, slot, revision
        return True

    async def say(self, states: Mapping[str, Condition]) -> None: ...

    async def published(self) -> tuple[str, ...]:
        return ()

    async def process(self, supervisor: Supervisor) -> int:
        """The pid of the engine, once it is ready."""
        await until(lambda: bool(supervisor.conditions) and supervisor.conditions["alone"].ready == 1)
        return supervisor.conditions["alone"].replicas[0].pid


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 — what is awaited happens in other processes
            await asyncio.sleep(0.05)


def cut_off(engine_: Engine) -> None:
    """Ends the connections that hold the lead, and waits until they are gone: their locks go with them."""
    query = (
        "SELECT pg_terminate_backend(pid, 20000) FROM pg_locks WHERE locktype = 'advisory'"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    with engine_.connect() as tx:
        tx.execute(text(query))


def end(pid: int) -> None:
    if pid and alive(pid):
        os.kill(pid, signal.SIGKILL)
