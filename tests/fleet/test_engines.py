"""Engines as processes under the real server: started, watched, replaced, woken and ended."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fixtures.server import Json
from tests.fleet.conftest import RUN, Fleet, Load, engine


def test_an_engine_of_the_file_answers_with_its_variables_and_gpus(fleet: Fleet) -> None:
    """Declared, started on a free port, ready after an answer of its own, offered under its name; it sees no key of ours."""
    state = fleet.ready("first")
    assert state["state"] == "ready"
    assert fleet.said("first")[0] == "first"
    env = fleet.told("first")["env"]
    assert env["TOKEN"] == "from the environment"
    assert env["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert "PENSTOCK_ADMIN_KEY" not in env
    assert fleet.show("first")["env"] == {"TOKEN": "set"}
    state = fleet.until("first", lambda state: state["rss_mb"] > 1 and bool(state["gpus"]))
    assert [(gpu["name"], gpu["memory_used_mb"], gpu["utilisation"]) for gpu in state["gpus"]] == [
        ("Tiny H1", 1024, 37)
    ]
    metrics = fleet.server.http.get("/metrics").text
    assert 'penstock_engine_state{engine="first",state="ready"} 1.0' in metrics
    assert 'penstock_engine_processes{engine="first",phase="ready"} 1.0' in metrics


def test_an_engine_that_answers_yields_to_one_that_starts(fleet: Fleet) -> None:
    """Where cores are short, one that spins for work leaves nothing to its successor otherwise. Threads and children yield with it."""

    def nicer(pid: int) -> set[int]:
        found = set()
        for one in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(ProcessLookupError):  # it had only one answer to give
                found.add(os.getpriority(os.PRIO_PROCESS, int(one.name)) - os.getpriority(os.PRIO_PROCESS, 0))
        return found

    up = subprocess.run([sys.executable, "-c", "import os; os.nice(1); os.nice(-1)"], check=False, capture_output=True)
    drained = 4 if up.returncode else 0  # CAP_SYS_NICE is not everybody's

    fleet.create(engine("polite", "--slow-start", "1.5", nice=3))
    starting = fleet.until("polite", lambda state: bool(state["replicas"]))["replicas"][0]
    assert (starting["phase"], nicer(starting["pid"])) == ("starting", {0})
    pid = fleet.ready("polite")["replicas"][0]["pid"]
    assert pid == starting["pid"]
    assert nicer(pid) == {3}
    group = Path(f"/proc/{pid}/autogroup")
    if group.exists():
        assert group.read_text().endswith("nice 3\n")
    fleet.patch("polite", nice=4)
    fleet.until("polite", lambda state: nicer(pid) == {4} and state["restarts"] == 0)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(fleet.ask, "polite", "take 6")
        while fleet.told("polite")["state"].get("said") != "take 6":
            assert not running.done()
        fleet.delete("polite")
        while nicer(pid) != {drained}:
            assert not running.done()
        assert running.result().status_code == 200


def test_replicas_are_replaced_one_by_one_without_a_failed_request(fleet: Fleet) -> None:
    """A changed declaration: a new process is ready before an old one goes, and calls that run there end there."""
    fleet.create(engine("rolled", "--version", "1", replicas=2))
    before = {one["pid"] for one in fleet.ready("rolled", 2)["replicas"]}
    with Load(fleet, "rolled") as load:
        load.await_answers(10)
        fleet.patch("rolled", args=["--host", "{host}", "--port", "{port}", "--version", "2"])
        after = fleet.until(
            "rolled",
            lambda state: (
                state["ready"] == len(state["replicas"]) == 2 and not before & {one["pid"] for one in state["replicas"]}
            ),
        )
        load.await_answers(10)
    assert load.failures == []
    assert load.answers[0][1] == "1"
    assert load.answers[-1][1] == "2"
    assert after["restarts"] == 0, "nobody died"
    fleet.delete("rolled")
    fleet.gone("rolled")


def test_a_crash_under_load_is_mended(fleet: Fleet) -> None:
    """One of two dies while clients ask: it comes back as another process, and everybody is answered again."""
    fleet.create(engine("mended", replicas=2))
    pids = {one["pid"] for one in fleet.ready("mended", 2)["replicas"]}
    with Load(fleet, "mended") as load:
        load.await_answers(5)
        fleet.tell("mended", "/crash")
        fleet.until("mended", lambda state: state["restarts"] >= 2 and state["ready"] == 2)
        deadline = time.monotonic() + 30
        while True:  # calls that those who died had, or that were on their way to them, end first
            load.failures.clear()
            load.await_answers(20)
            if not load.failures:
                break
            assert time.monotonic() < deadline, load.failures
    state = fleet.state("mended")
    assert not pids & {one["pid"] for one in state["replicas"]}
    assert "ended with status 3" in state["last_error"]
    fleet.delete("mended")


def test_what_dies_at_once_is_crashed_with_its_last_words(fleet: Fleet) -> None:
    """After so many starts it is left alone, calls are told at once, and `start` tries again."""
    fleet.create(engine("doomed", "--die", "7", restart={"base_s": 0.05, "max_s": 0.1, "attempts": 3}))
    state = fleet.until("doomed", lambda state: state["state"] == "crashed")
    assert state["failures"] == 3
    assert "status 7" in state["last_error"]
    assert "no memory left on device" in state["error_lines"][-1]
    fleet.gone("doomed")
    fleet.patch("doomed", args=["--host", "{host}", "--port", "{port}"])
    fleet.ready("doomed")
    assert fleet.said("doomed")[0] == "doomed"
    fleet.delete("doomed")


def test_what_answers_health_and_generates_nothing_is_not_ready(fleet: Fleet) -> None:
    """A page that says `ok` is no answer."""
    fleet.create(engine("mute", "--mute", ready={"within_s": 2.5}, restart={"attempts": 1}, wake={"wait_s": 0.2}))
    fleet.until("mute", lambda state: bool(state["replicas"]))
    answer = fleet.ask("mute")
    assert (answer.status_code, answer.json()["error"]["type"]) == (503, "overloaded")
    state = fleet.until("mute", lambda state: state["state"] == "crashed")
    assert "not ready within 2.5 s" in state["last_error"]
    fleet.delete("mute")


def test_what_hangs_is_ended_and_begun_anew(fleet: Fleet) -> None:
    """No answer to three looks in a row."""
    fleet.create(engine("hung", check_s=0.5))
    pid = fleet.ready("hung")["replicas"][0]["pid"]
    fleet.tell("hung", "/hang")
    state = fleet.until("hung", lambda state: state["restarts"] == 1 and state["ready"] == 1)
    assert "does not answer any more" in state["last_error"]
    assert state["replicas"][0]["pid"] != pid
    fleet.delete("hung")


def test_what_outgrows_its_memory_is_replaced_without_a_failed_request(fleet: Fleet) -> None:
    """A leak ends with a new process that is ready first."""
    fleet.create(engine("leaky", "--leak", "60", max_rss_mb=4096))
    pid = fleet.ready("leaky")["replicas"][0]["pid"]
    fleet.until("leaky", lambda state: state["rss_mb"] > 60)
    with Load(fleet, "leaky", clients=2) as load:
        fleet.patch("leaky", max_rss_mb=50)
        fleet.until("leaky", lambda state: pid not in [one["pid"] for one in state["replicas"]] and state["ready"] > 0)
    assert load.failures == []
    fleet.delete("leaky")


def test_an_idle_engine_stops_and_a_request_brings_it_back(fleet: Fleet) -> None:
    """Scale to zero: no process while nobody asks; whoever asks waits for one."""
    fleet.create(engine("rare", "--slow-start", "0.5", idle={"after_s": 1}))
    fleet.ready("rare")
    fleet.until("rare", lambda state: state["state"] == "asleep" and not state["replicas"])
    listed = fleet.server.http.get("/v1/models", headers={"authorization": f"Bearer {fleet.server.key}"}).json()
    assert "rare" in [model["id"] for model in listed["data"]]
    assert fleet.said("rare")[0] == "rare"
    fleet.delete("rare")


def test_a_queue_before_a_sleeping_engine_is_bounded_in_length_and_time(fleet: Fleet) -> None:
    """One may wait, for a moment: the second is told at once, the first when its time is over, both with `retry-after`."""
    fleet.create(engine("slow", "--slow-start", "600", wake={"queue": 1, "wait_s": 3}))
    fleet.until("slow", lambda state: len(state["replicas"]) == 1)
    answers: list[tuple[int, str, bool]] = []

    def ask() -> None:
        answer = fleet.ask("slow")
        answers.append((answer.status_code, answer.json()["error"]["code"], "retry-after" in answer.headers))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(answers) == [(503, "engine_not_ready", True), (503, "engine_queue_full", True)]
    fleet.delete("slow")


def test_a_drain_waits_for_what_runs(fleet: Fleet) -> None:
    """`stop` while a call is being answered: it is answered to its end, and later ones are refused."""
    fleet.create(engine("drained"))
    fleet.ready("drained")
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(fleet.ask("drained", "take 4").status_code))
    thread.start()
    time.sleep(0.5)  # it is on its way; if it is not, the test proves less but does not fail
    assert fleet.act("drained", "stop").status_code == 200
    fleet.until("drained", lambda state: state["state"] in ("draining", "stopped"))
    thread.join(60)
    assert answers in ([200], [404])
    fleet.until("drained", lambda state: state["state"] == "stopped" and not state["replicas"])
    fleet.gone("drained")
    assert fleet.act("drained", "start").status_code == 200
    fleet.ready("drained")
    assert fleet.said("drained")
    fleet.delete("drained")


def test_vllm_sleeps_wakes_and_takes_adapters_while_it_runs(fleet: Fleet) -> None:
    """Its arguments as vLLM wants them; put to sleep by hand it keeps its process, and a request wakes it; adapters are models."""
    fleet.create(
        {
            **engine("deep"),
            "kind": "vllm",
            "program": RUN,
            "model": "tiny",
            "args": [],
            "sleep_mode": True,
            "lora": [{"name": "deep-legal", "path": "/adapters/legal"}],
        }
    )
    pid = fleet.ready("deep")["replicas"][0]["pid"]
    told = fleet.told("deep")
    assert "--enable-sleep-mode" in told["argv"]
    assert told["env"]["VLLM_SERVER_DEV_MODE"] == "1"
    assert told["state"]["loras"] == {"deep-legal": "/adapters/legal"}
    assert fleet.said("deep-legal")[0] == "deep-legal"
    fleet.patch("deep", lora=[{"name": "deep-poetry", "path": "/adapters/poetry"}])
    fleet.until("deep", lambda _: fleet.ask("deep-poetry").status_code == 200)
    assert fleet.told("deep")["state"]["loras"] == {"deep-poetry": "/adapters/poetry"}
    assert fleet.act("deep", "sleep").status_code == 200
    fleet.until("deep", lambda state: state["state"] == "asleep")
    assert fleet.told("deep")["state"]["asleep"]
    assert fleet.said("deep")[2] == str(pid), "the same process"
    assert fleet.act("deep", "restart").status_code == 200
    fleet.until(
        "deep", lambda state: [one["pid"] for one in state["replicas"]] not in ([pid], []) and state["ready"] == 1
    )
    fleet.delete("deep")


def test_only_programs_that_the_file_allows_are_started_over_rest(fleet: Fleet) -> None:
    """Neither another program nor a variable that could make one of it; and what cannot be is a 400 that names the field."""
    for changes, param in (
        ({"program": ["/bin/sh"]}, "program"),
        ({"env": {"LD_PRELOAD": "/tmp/evil.so"}}, "env"),
        ({"kind": "vllm", "program": None}, None),
        ({"program": None}, None),
        ({"replicas": 0}, "replicas"),
        ({"lora": [{"name": "a", "path": "b"}]}, None),
        ({"unknown": 1}, "unknown"),
    ):
        body = {name: value for name, value in {**engine("evil"), **changes}.items() if value is not None}
        answer = fleet.server.admin.post("/engines", json=body)
        assert answer.status_code == 400, answer.text
        if param is not None:
            assert answer.json()["error"]["param"] == param
    assert fleet.server.admin.get("/engines/evil").status_code == 404
    assert fleet.act("evil", "restart").status_code == 404
    assert fleet.act("first", "explode").status_code == 400
    assert fleet.act("first", "sleep").status_code == 400
    assert fleet.server.admin.patch("/engines/first", json={"program": ["/bin/sh"]}).status_code == 400
    assert fleet.server.admin.post("/engines", json=engine("first")).status_code == 409


def test_actions_are_in_the_audit_log(fleet: Fleet) -> None:
    """Who restarted what."""
    pid = fleet.ready("first")["replicas"][0]["pid"]
    fleet.act("first", "restart")
    fleet.until(
        "first", lambda state: [one["pid"] for one in state["replicas"]] not in ([pid], []) and state["ready"] == 1
    )
    actions = [row["action"] for row in fleet.server.admin.get("/audit", params={"limit": 20}).json()["data"]]
    assert "engine.restart" in actions


def test_recreate_ends_the_old_process_before_the_new_one_starts(fleet: Fleet) -> None:
    """Where there is room for one only: never two at a time, and calls wait meanwhile instead of failing."""
    fleet.create(engine("single", "--version", "1", replace="recreate"))
    before = fleet.ready("single")["replicas"][0]["pid"]
    most = 0

    def replaced(state: Json) -> bool:
        nonlocal most
        most = max(most, len([one for one in state["replicas"] if one["pid"]]))
        return bool(state["ready"] == 1 and state["replicas"][0]["pid"] != before)

    with Load(fleet, "single", clients=1) as load:
        load.await_answers(3)
        fleet.patch("single", args=["--host", "{host}", "--port", "{port}", "--version", "2"])
        fleet.until("single", replaced)
        load.await_answers(3)
    assert most == 1
    assert load.failures == []
    assert (load.answers[0][1], load.answers[-1][1]) == ("1", "2")
    fleet.delete("single")
    fleet.gone("single")
