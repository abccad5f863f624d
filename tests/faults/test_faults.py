"""Every fault of the table, in every kind of call: the client's answer, the bill, the breaker. `make faults` prints it."""

from collections import Counter

import pytest

from tests.faults.course import Result, play
from tests.faults.table import MODES, Case, cases
from tests.fixtures.upstream import Upstream

CASES = tuple(cases())


@pytest.fixture(scope="module")
def results(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> dict[Case, Result]:
    """All cases, played at once: most of their time is waiting."""
    played = play(upstream, tmp_path_factory.mktemp("faults"), CASES)
    return {result.case: result for result in played}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_fault_has_its_declared_effect(results: dict[Case, Result], case: Case) -> None:
    """Status, code, attempts, text once and whole or an error in the stream, bill, health."""
    assert results[case].complaints == []


def test_the_table_is_whole() -> None:
    """Sixteen faults and more, each in every kind of call in which it makes sense."""
    found = Counter(mode for mode in MODES for name in {c.fault.name for c in CASES if c.fault.mode == mode})
    assert found["chat"] >= 16
    assert found["stream"] >= 16
    assert found["embeddings"] >= 14
    assert len({str(case) for case in CASES}) == len(CASES)
