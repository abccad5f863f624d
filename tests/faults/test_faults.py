"""Every fault of the table, in every kind of call: the client's answer, the bill, the breaker. `make faults` prints it."""

from collections import Counter

import pytest

from tests.faults.course import play
from tests.faults.doors import DOORS
from tests.faults.table import Case, cases
from tests.faults.verdict import Result
from tests.fixtures.upstream import scripted_upstream

CASES = tuple(cases())


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """All cases, played at once: most of their time is waiting."""
    with scripted_upstream(tmp_path_factory.mktemp("upstream")) as upstream:
        played = play(upstream, tmp_path_factory.mktemp("faults"), CASES)
    return {str(result.case): result for result in played}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_fault_has_its_declared_effect(results: dict[str, Result], case: Case) -> None:
    """Status, code, attempts, text once and whole or an error in the stream, bill, health."""
    assert results[str(case)].complaints == []


def test_the_table_is_whole() -> None:
    """Sixteen faults and more, each in every kind of call in which it makes sense."""
    found = Counter(case.fault.door.name for case in {(c.fault.door.name, c.fault.name): c for c in CASES}.values())
    for door in DOORS:
        assert found[door.name] >= (14 if door.api == "embeddings" else 16), door
    assert {(door.api, door.native, door.stream) for door in DOORS} >= {
        (api, native, stream)
        for api in ("responses", "messages")
        for native in (False, True)
        for stream in (False, True)
    }
    assert len({str(case) for case in CASES}) == len(CASES)
