"""What a user sees of a training run."""

from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Reporter(Protocol):
    """Is told of each step, each validation and each thing worth a line."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def started(self, step: int, steps: int) -> None: ...

    def stepped(self, step: int, rate: float) -> None: ...

    def validated(self, row: Mapping[str, float]) -> None: ...

    def say(self, text: str) -> None: ...


class Silent:
    """Says nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def started(self, step: int, steps: int) -> None:
        return None

    def stepped(self, step: int, rate: float) -> None:
        return None

    def validated(self, row: Mapping[str, float]) -> None:
        return None

    def say(self, text: str) -> None:
        return None


class Terminal:
    """A bar with rate and remaining time, and a line for each validation, on stderr.

    Where stderr is no terminal there is no bar, only lines.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]:.1f} steps/s"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            refresh_per_second=2,
            disable=not self.console.is_terminal,
        )
        self._task = self._bar.add_task("training", total=None, rate=0.0)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def started(self, step: int, steps: int) -> None:
        self._bar.update(self._task, completed=step, total=steps)

    def stepped(self, step: int, rate: float) -> None:
        self._bar.update(self._task, completed=step, rate=rate)

    def validated(self, row: Mapping[str, float]) -> None:
        parts = [f"step {row['step']:>7.0f}", f"lr {row['learning_rate']:.2e}"]
        for name, unit in (("energy", "meV/atom"), ("forces", "meV/Å")):
            if (value := row.get(f"{name}_mae")) is not None:
                parts.append(f"{name} MAE {1e3 * value:.4g} {unit}")
        parts.append(f"{row['steps_per_second']:.1f} steps/s")
        self.say("  ".join(parts))

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)
