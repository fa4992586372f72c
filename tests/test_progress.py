"""Progress: what a snapshot says, on a terminal and in a log."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console

from pipeline import progress
from pipeline.progress import Clock, ProgressReport, Snapshot

HALF_WAY = Snapshot(
    done=500, total=1000, fresh=100, seconds=20.0, shares={"reading": 0.05, "forward": 0.95}
)


def test_rate_and_time_left_count_this_run_alone() -> None:
    # 100 images in 20 s are 5 a second; 500 are left: 100 s. The 400 of before count for neither.
    assert HALF_WAY.rate == 5
    assert HALF_WAY.seconds_left == 100
    assert HALF_WAY.shares_text() == "reading 5 %, forward 95 %"
    assert Snapshot(0, 10, 0, 0.0).seconds_left is None


def test_time_left_counts_work_where_units_differ() -> None:
    # Twenty seconds went into a quarter of the work, so sixty are left, however many units.
    assert dataclasses.replace(HALF_WAY, work_left=3.0).seconds_left == 60


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    with ProgressReport("extract", "images", Console(file=text)) as report:
        report.update(HALF_WAY)
        assert text.getvalue() == ""
        monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
        report.update(HALF_WAY)
    assert text.getvalue() == (
        "extract: 500 of 1,000 images, 5 images/s, 0:01:40 left, reading 5 %, forward 95 %\n"
    )


def test_a_terminal_gets_a_bar() -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=120)
    with ProgressReport("extract", "images", console) as report:
        report.update(HALF_WAY)
    assert "500/1000" in text.getvalue()
    assert "0:01:40 left" in text.getvalue()


def test_the_clock_splits_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 1.0, 4.0, 4.0, 5.0, 8.0])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(ticks))
    clock = Clock()  # 0
    with clock.part("reading"):  # 1 to 4
        pass
    with clock.part("forward"):  # 4 to 5
        pass
    clock.stop()  # 8
    assert clock.seconds == 8
    assert clock.shares() == {"reading": 0.75, "forward": 0.25, "writing": 0.0}
