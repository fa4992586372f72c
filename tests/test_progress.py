"""Progress: what a snapshot says, on a terminal and in a log."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console

from pipeline import progress
from pipeline.progress import Clock, ProgressReport, Snapshot, Steps, counting

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


def test_steps_count_what_this_run_did(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 4.0, 5.0])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(ticks))
    seen: list[Snapshot] = []
    steps = Steps(100, seen.append, done=40, step="BatchNorm")  # 0
    steps.advance(20)  # 4
    steps.reach(100)  # 5
    assert steps.done == 100
    assert seen == [
        Snapshot(60, 100, 20, 4.0, step="BatchNorm"),
        Snapshot(100, 100, 60, 5.0, step="BatchNorm"),
    ]
    # 20 in 4 s are 5 a second, and 40 are left. The 40 of before count for neither.
    assert (seen[0].rate, seen[0].seconds_left) == (5, 8)


def test_steps_need_nobody_to_tell() -> None:
    steps = Steps(3)
    steps.advance()
    assert steps.done == 1


def test_the_counts_of_the_store_become_snapshots(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 2.0])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(ticks))
    seen: list[Snapshot] = []
    counting(seen.append)(6, 18)
    assert seen == [Snapshot(6, 18, 6, 2.0)]
    assert (seen[0].rate, seen[0].seconds_left) == (3, 4)


def test_work_that_is_over_at_once_shows_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=120)
    with ProgressReport("predict", "images", console, after=1.0) as report:
        report.update(HALF_WAY)
        assert text.getvalue() == ""
        now = 1.5
        report.update(HALF_WAY)
    assert "500/1000" in text.getvalue()


@pytest.mark.parametrize("after", [0.0, 1.0])
def test_results_in_a_pipe_do_not_come_out_beside_the_bar(
    capsys: pytest.CaptureFixture[str], after: float
) -> None:
    text = io.StringIO()  # the terminal of the bar; standard output is a pipe
    console = Console(file=text, force_terminal=True, width=120)
    with ProgressReport("pretrain", "images", console, after=after) as report:
        report.update(HALF_WAY)
        print("epoch 1")  # noqa: T201
    assert capsys.readouterr().out == "epoch 1\n"
    assert "epoch" not in text.getvalue()
