"""Shows running experiments: bars with remaining time on a terminal, plain lines elsewhere."""

import time

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from oarlock.accept.experiment import Experiment
from oarlock.accept.runner import Outcome

_QUIET_S = 30.0  # between two plain lines about progress


class Display:
    """A `runner.Watcher` on a console; used in a `with` statement."""

    def __init__(self, console: Console):
        self.console = console
        self.bars = Progress(
            TextColumn("{task.fields[id]}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.description}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
            refresh_per_second=2,  # leaves the processors to what is measured
            speed_estimate_period=600,
        )
        self._task: TaskID | None = None
        self._id = ""
        self._said = 0.0

    def __enter__(self) -> "Display":
        self.bars.start()
        return self

    def __exit__(self, *_) -> None:
        self.bars.stop()

    def _line(self, text: str, style: str = "") -> None:
        self.console.print(escape(text), style=style, highlight=False, soft_wrap=True)

    def begin(self, one: Experiment) -> None:
        self._id = one.id
        self._said = time.monotonic()
        if self.bars.disable:
            self._line(f"{one.id}: {one.title}")
        else:
            self._task = self.bars.add_task(escape(one.title), total=None, id=one.id)

    def progress(self, done: float, total: float, text: str) -> None:
        if self._task is not None:
            self.bars.update(self._task, completed=done, total=total, description=escape(text))
        elif time.monotonic() - self._said > _QUIET_S:
            self._said = time.monotonic()
            share = f"{done / total:.0%}" if total else f"{done:g}"
            self._line(f"{self._id}: {share} {text}".rstrip())

    def log(self, text: str) -> None:
        self._line(f"{self._id}: {text}", style="dim")

    def end(self, outcome: Outcome) -> None:
        if self._task is not None:
            self.bars.remove_task(self._task)
            self._task = None
        line = f"{self._id}: {outcome.state} after {outcome.seconds:.1f} s"
        if outcome.state == "done":
            self._line(line, style="dim")
        else:
            why = outcome.message.split("\n", 1)[0]  # the rest is in the summary
            self._line(f"{line}: {why}" if why else line, style="red")
