"""The arithmetic and the pages of the benchmark, on made-up measurements."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import dialogue, report
from benchmarks.report import Machine, Measurement, Report, SoakPoint, StartUp

MACHINE = Machine("2026-01-01", "abc", "a cpu", 2, "6.1", "3.11.7", 0.5)
NGINX = Measurement(1, "nginx", "plain", 32, 1000, 0, 20.0, 40_000.0, 0.5, 2.0)
PENSTOCK = replace(NGINX, target="penstock", cpu_us=50.0, per_second=15_000.0)


@pytest.fixture
def result() -> Report:
    second = (replace(NGINX, round=2, cpu_us=30.0), replace(PENSTOCK, round=2, cpu_us=60.0))
    third = (replace(NGINX, round=3, cpu_us=20.0), replace(PENSTOCK, round=3, cpu_us=44.0))
    start = StartUp((0.9, 1.0, 1.1), (0.5, 0.6, 0.7))
    idle = {"nginx": 15.0, "penstock": 60.0}
    return Report("make bench", MACHINE, start, idle, (NGINX, PENSTOCK, *second, *third), (SoakPoint(0, 61.0),))


def test_a_ratio_is_taken_within_its_round(result: Report) -> None:
    """The median of 2.5, 2.0 and 2.2, not the ratio of the medians."""
    (row,) = report.rows(result.measurements)
    assert row.ratios == (2.5, 2.0, 2.2)
    assert row.ratio == 2.2


def test_bounds_that_are_met_are_not_complained_of(result: Report) -> None:
    """A good run says so in its last line."""
    assert report.missed(result) == []
    assert report.render(result).endswith("Every bound is met.")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"measurements": (NGINX, replace(PENSTOCK, cpu_us=71.0))}, "3.55 times nginx"),
        ({"measurements": (NGINX, replace(PENSTOCK, errors=2))}, "2 errors"),
        ({"start": StartUp((1.6, 1.6), (0.5,))}, "ready after 1.60 s"),
        ({"idle_mib": {"nginx": 15.0, "penstock": 81.0}}, "memory of 81 MiB"),
    ],
)
def test_a_bound_that_is_missed_is_named(result: Report, change: dict[str, object], words: str) -> None:
    """Cost, errors, start and memory each have a bound of their own."""
    (missed,) = report.missed(replace(result, **change))  # type: ignore[arg-type]  # one field at a time, by name
    assert words in missed


def test_the_section_of_a_page_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    """What people wrote around the figures stays."""
    page = tmp_path / "RESULTS.md"
    page.write_text("# Results\n\nBefore.\n")
    report.write_section(page, "old figures")
    page.write_text(page.read_text() + "\nAfter.\n")
    report.write_section(page, "new figures")
    text = page.read_text()
    assert text.startswith("# Results\n\nBefore.\n")
    assert text.endswith("\nAfter.\n")
    assert "new figures" in text
    assert "old figures" not in text


def test_the_claims_are_the_measured_medians(result: Report) -> None:
    """The README says what the last run said."""
    paced = tuple(replace(each, load="paced", cpu_us=each.cpu_us / 2) for each in result.measurements)
    text = report.claims(replace(result, measurements=(*result.measurements, *paced)))
    assert "costs 50 µs of CPU" in text
    assert "2.2 times what nginx" in text
    assert "25 µs, 2.2 times nginx's" in text
    assert "1.0 s after the start" in text
    assert "60 MiB" in text


def test_every_measurement_is_a_line_of_json(result: Report, tmp_path: Path) -> None:
    """Six measurements and one summary, each readable by itself."""
    out = tmp_path / "out" / "overhead.jsonl"
    report.append_lines(out, result)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == 7
    assert lines[0]["cpu_us"] == 20.0
    assert all(line["machine"]["cores"] == 2 for line in lines)


def test_the_dialogue_has_the_sizes_that_the_pages_claim() -> None:
    """640 bytes of answer; 50 chunks, the usage and the end."""
    assert len(dialogue.answer()) == 640
    events = dialogue.events()
    assert len(events) == dialogue.CHUNKS + 2
    assert events[-1] == b"data: [DONE]\n\n"
