"""Progress of a job: a bar with rate and ETA on a terminal, plain log lines otherwise."""

import logging
import sys
import time
from collections.abc import Callable
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from w2w.shown import Terminal, is_quiet, terminal

log = logging.getLogger("w2w")

_LINE_EVERY_S = 10.0
Result = TypeVar("Result")


class Progress:
    """A context that counts finished items out of ``total``."""

    def __init__(self, title: str, total: int, unit: str = "rows"):
        self._title, self._total, self._unit = title, total, unit
        self._start = self._last_line = time.monotonic()
        self._bar: Bar | None = None

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty() and not is_quiet():
            self._bar = Bar(
                SpinnerColumn(),
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TextColumn("eta"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[rejects]}"),
                console=Terminal(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task(self._title, total=self._total, rate="", rejects="")
            self._bar.start()
        return self

    def update(self, done: int, rejected: int) -> None:
        now = time.monotonic()
        rate = done / max(1e-9, now - self._start)
        if self._bar:
            shown = f"[red]{rejected:,} rejected" if rejected else ""
            self._bar.update(self._task, completed=done, rate=f"{rate:,.1f} {self._unit}/s", rejects=shown)
        elif now - self._last_line >= _LINE_EVERY_S:
            self._last_line = now
            eta = (self._total - done) / rate if rate else float("inf")
            log.info(
                "%s: %d of %d %s, %.1f/s, about %.0f s left, %d rejected",
                self._title, done, self._total, self._unit, rate, eta, rejected,
            )  # fmt: skip

    def __exit__(self, *exception) -> None:
        if self._bar:
            self._bar.stop()


class Steps:
    """Output of several jobs in a row: one line with its duration per step on standard output; ``log`` shows only warnings."""

    def __init__(self):
        log.setLevel(logging.WARNING)
        self._console = terminal(width=None, soft_wrap=True)

    def step(self, name: str, run: Callable[[], Result], said: Callable[[Result], str]) -> Result:
        began = time.monotonic()
        result = run()
        line = f"{name:<16} {said(result)}"
        self._console.print(f"{line:<100} {time.monotonic() - began:6.1f} s")
        return result

    def say(self, text: str) -> None:
        self._console.print(text)
