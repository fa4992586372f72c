"""Progress of long work: how far, how fast, how long still, and where the time goes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
)

SECONDS_BETWEEN_LINES = 30.0
"""Where the output is no terminal (a log file), one line in this time keeps logs readable."""


@dataclass(frozen=True)
class Snapshot:
    """The state of a piece of long work at one moment."""

    done: int
    """Units finished, those of earlier, interrupted runs included."""

    total: int
    """Units in all."""

    fresh: int
    """Units finished in this run; the rate counts these alone."""

    seconds: float
    """Seconds since this run began."""

    shares: Mapping[str, float] = field(default_factory=dict)
    """Fraction of this run's time that went to each part of the work."""

    work_left: float | None = None
    """Work still to go, in units of that done in this run; `None` where all units are alike."""

    step: str = ""
    """What is done at present, where the work has several steps that count for themselves."""

    @property
    def rate(self) -> float:
        """Units a second."""
        return self.fresh / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Seconds still to go at the present rate; `None` before there is a rate."""
        if self.work_left is not None:
            return self.work_left * self.seconds
        return (self.total - self.done) / self.rate if self.rate > 0 else None

    def shares_text(self) -> str:
        """The shares as `reading 3 %, forward 95 %, writing 2 %`."""
        return ", ".join(f"{name} {100 * share:.0f} %" for name, share in self.shares.items())


OnProgress = Callable[[Snapshot], None]
"""What long work calls to tell how far it is."""


class Steps:
    """Counts units of work that are all alike, and tells how far it is after each call.

    Args:
        total: units in all.
        on_progress: who is told; nobody where not given.
        done: units that an earlier, interrupted run finished.
        step: what is done, where the work has several steps that count for themselves.
    """

    def __init__(
        self, total: int, on_progress: OnProgress | None = None, *, done: int = 0, step: str = ""
    ) -> None:
        self._total = total
        self._on_progress = on_progress
        self._before = self._done = done
        self._step = step
        self._begun = time.perf_counter()

    @property
    def done(self) -> int:
        """Units that are done."""
        return self._done

    def advance(self, units: int = 1) -> None:
        """So many more units are done."""
        self.reach(self._done + units)

    def reach(self, done: int) -> None:
        """So many units are done in all."""
        self._done = done
        if self._on_progress is not None:
            seconds = time.perf_counter() - self._begun
            fresh = done - self._before
            self._on_progress(Snapshot(done, self._total, fresh, seconds, step=self._step))


def counting(on_progress: OnProgress) -> Callable[[int, int], None]:
    """The callback (done, of) of `cache`, which knows of no snapshots; its time begins now."""
    begun = time.perf_counter()
    return lambda done, of: on_progress(Snapshot(done, of, done, time.perf_counter() - begun))


class Clock:
    """Adds up the time that one thread spends on each part of the work."""

    def __init__(self) -> None:
        self._parts = {"reading": 0.0, "forward": 0.0, "writing": 0.0}
        self._begun = time.perf_counter()
        self._ended: float | None = None

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time inside the block for a part."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._parts[name] += time.perf_counter() - begun

    def start(self) -> None:
        """Begin to count."""
        self._begun = time.perf_counter()

    def stop(self) -> None:
        """Count no further."""
        self._ended = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since the start, to the stop if there was one."""
        return (self._ended or time.perf_counter()) - self._begun

    def shares(self) -> dict[str, float]:
        """Each part's fraction of the time counted."""
        total = sum(self._parts.values())
        return {name: seconds / total if total else 0.0 for name, seconds in self._parts.items()}


class ProgressReport:
    """Shows snapshots as a bar on a terminal, and as a line now and then in a log.

    Use it as a context manager; `update` is the callback that a stage takes.

    Args:
        label: what is going on.
        unit: what is counted, in the plural.
        console: where to write; standard error by default, so that results can be piped.
        after: seconds before a bar is shown at all, for work that is often over at once.
    """

    def __init__(
        self, label: str, unit: str, console: Console | None = None, *, after: float = 0.0
    ) -> None:
        self._label = label
        self._unit = unit
        self._console = console or Console(file=sys.stderr)
        self._after = after
        self._begun = self._last_line = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[detail]}"),
            console=self._console,
            transient=True,
            # Else what goes to a file or a pipe meanwhile would come out beside the bar.
            redirect_stdout=sys.stdout.isatty(),
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(label, total=None, detail="")

    def __enter__(self) -> Self:
        """Start to show."""
        self._begun = time.monotonic()
        if self._after == 0:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Clear the bar, so that a table or a message follows on a clean line."""
        self._bar.stop()

    def update(self, snapshot: Snapshot) -> None:
        """Show a new state."""
        detail = self._detail(snapshot)
        label = f"{self._label}, {snapshot.step}" if snapshot.step else self._label
        self._bar.update(
            self._task,
            description=label, completed=snapshot.done, total=snapshot.total, detail=detail,
        )  # fmt: skip
        now = time.monotonic()
        if not self._bar.live.is_started and now - self._begun >= self._after:
            self._bar.start()
        if not self._console.is_terminal and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._console.print(
                f"{label}: {snapshot.done:,} of {snapshot.total:,} {self._unit}, {detail}",
                highlight=False,
                soft_wrap=True,
            )

    def _detail(self, snapshot: Snapshot) -> str:
        """Rate, time left and shares."""
        parts = [f"{snapshot.rate:,.0f} {self._unit}/s"]
        if snapshot.seconds_left is not None:
            # rich's own estimate would count the rows of an earlier, interrupted run as fast ones.
            parts.append(f"{timedelta(seconds=round(snapshot.seconds_left))} left")
        if snapshot.shares:
            parts.append(snapshot.shares_text())
        return ", ".join(parts)
