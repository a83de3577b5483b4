"""What a run leaves on disk: settings, frames, a table of energies, and where to go on.

``run.json`` says what runs; ``frames.traj`` (ASE's format) grows; ``log.csv`` grows; ``checkpoint.npz``
is replaced whole. Frames and rows after the checkpoint are dropped when a run goes on.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import Trajectory as AseTrajectory
from ase.io.ulm import InvalidULMFileError as UlmError

COLUMNS = (
    "step",
    "time_fs",
    "temperature_K",
    "potential_eV",
    "kinetic_eV",
    "conserved_eV",
    "volume_A3",
    "pressure_GPa",
)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Log:
    """Args: columns of equal length, named by `COLUMNS`; NaN where a quantity does not exist."""

    rows: np.ndarray  # [rows, columns]

    def __getitem__(self, column: str) -> np.ndarray:
        if column not in COLUMNS:
            raise ValueError(f"column={column!r} has to be one of {', '.join(COLUMNS)}")
        return self.rows[:, COLUMNS.index(column)]

    @classmethod
    def read(cls, path: str | Path) -> "Log":
        with Path(path).open() as file:
            if tuple(file.readline().strip().split(",")) != COLUMNS:
                raise ValueError(f"{path} is no log of a run: its first line is another")
            rows = [[float(value) for value in line.split(",")] for line in file if line.strip()]
        return cls(rows=np.array(rows).reshape(-1, len(COLUMNS)))


class Records:
    """A folder, or memory where `folder` is None. Nothing is written before `open`.

    Raises:
        ValueError: the folder holds a run of other settings, or a damaged checkpoint.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.frames: list[Atoms] = []
        self.rows: list[list[float]] = []
        self.checkpoint: dict[str, Any] | None = None
        self._extra = False  # whether there are frames after the checkpoint
        self._frames_file: Any = None
        self._log_file: Any = None
        self._settings = json.dumps(settings)
        if folder is None:
            return
        if (folder / "run.json").is_file():
            before = json.loads((folder / "run.json").read_text())
            _compare(before, json.loads(self._settings), folder)
            self.checkpoint = _read_checkpoint(folder / "checkpoint.npz")
            if self.checkpoint is not None:
                self._read_back()
        elif folder.exists() and any(folder.iterdir()):
            raise ValueError(f"folder={str(folder)!r} holds other files: name an empty or new one")

    def _read_back(self) -> None:
        """Frames and rows as of the checkpoint."""
        assert self.folder is not None and self.checkpoint is not None
        kept = int(self.checkpoint["frames"])
        try:
            with AseTrajectory(self.folder / "frames.traj") as file:
                self.frames = [file[index] for index in range(kept)]
                self._extra = len(file) > kept
        except (OSError, IndexError, UlmError) as error:
            raise ValueError(
                f"{self.folder / 'frames.traj'} is damaged ({error}): delete the folder to start anew"
            ) from error
        rows = Log.read(self.folder / "log.csv").rows
        self.rows = rows[: int(self.checkpoint["rows"])].tolist()

    def open(self) -> None:
        """Makes the folder, or cuts its growing files back to the checkpoint."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        _write_whole(self.folder / "run.json", self._settings.encode())
        path = self.folder / "frames.traj"
        if self._extra:
            unfinished = path.with_name("frames.part")
            with AseTrajectory(unfinished, "w") as file:
                for frame in self.frames:
                    file.write(frame)
            unfinished.replace(path)
        self._frames_file = AseTrajectory(path, "a" if self.frames else "w")
        lines = [",".join(COLUMNS), *map(_line, self.rows)]
        _write_whole(self.folder / "log.csv", "".join(f"{line}\n" for line in lines).encode())
        self._log_file = (self.folder / "log.csv").open("a")

    def add_frame(self, atoms: Atoms) -> None:
        frame = atoms.copy()
        frame.set_constraint()
        results = {
            name: np.array(value) if np.ndim(value) else float(value)
            for name, value in atoms.calc.results.items()
            if name in ("energy", "free_energy", "forces", "stress")
        }
        frame.calc = SinglePointCalculator(frame, **results)
        self.frames.append(frame)
        if self._frames_file is not None:
            self._frames_file.write(frame)

    def add_row(self, row: list[float]) -> None:
        self.rows.append(row)
        if self._log_file is not None:
            self._log_file.write(_line(row) + "\n")
            self._log_file.flush()  # so that it can be watched

    def save(
        self, step: int, atoms: Atoms, random: np.random.Generator, state: Mapping[str, Any]
    ) -> None:
        """What was added so far, and the checkpoint that includes it."""
        if self.folder is None:
            return
        path = self.folder / "checkpoint.npz"
        unfinished = path.with_name("checkpoint.part")
        with unfinished.open("wb") as file:
            np.savez(
                file,
                step=step,
                frames=len(self.frames),
                rows=len(self.rows),
                positions=atoms.positions,
                momenta=atoms.get_momenta(),
                cell=atoms.cell.array,
                random=json.dumps(random.bit_generator.state),
                **{f"state:{name}": value for name, value in state.items()},
            )
        unfinished.replace(path)

    def close(self) -> None:
        for file in (self._frames_file, self._log_file):
            if file is not None:
                file.close()


def _compare(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    differing = [
        f"{name} {before.get(name)}, not {now.get(name)}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    if differing:
        raise ValueError(
            f"folder={str(folder)!r} holds a run with {'; '.join(differing)}: use another folder"
        )


def _read_checkpoint(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        with np.load(path) as file:
            return {name: file[name] for name in file.files}
    except (OSError, EOFError, ValueError, BadZipFile) as error:
        raise ValueError(f"{path} is damaged ({error}): delete the folder to start anew") from error


def _line(row: list[float]) -> str:
    return ",".join(f"{value:.12g}" for value in row)


def _write_whole(path: Path, content: bytes) -> None:
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_bytes(content)
    unfinished.replace(path)
