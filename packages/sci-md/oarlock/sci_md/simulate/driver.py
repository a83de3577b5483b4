"""Dynamics with progress, frames, a table of energies, and resuming."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import write
from ase.md.md import MolecularDynamics
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from oarlock.sci_md.interrupts import deferred
from oarlock.sci_md.simulate.ensembles import Ensemble
from oarlock.sci_md.simulate.records import Log, Records
from oarlock.sci_md.simulate.trajectory import Trajectory
from oarlock.sci_md.simulate.velocities import thermal_velocities
from oarlock.sci_md.units import BOLTZMANN, FEMTOSECOND, GIGAPASCAL


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Run:
    """Args:
    trajectory: the frames.
    log: temperature, energies, volume and pressure of every logged step.
    steps: done by this call; 0 where the folder's run had ended before.
    """

    trajectory: Trajectory
    log: Log
    steps: int


def run(
    atoms: Atoms,
    ensemble: Ensemble,
    *,
    steps: int,
    timestep: float,
    temperature: float | None = None,
    frames_every: int = 10,
    log_every: int = 10,
    save_every: int = 1000,
    folder: str | Path | None = None,
    seed: int = 0,
    hottest: float = 50_000.0,
    watch: Callable[[int, Atoms], None] | None = None,
    progress: bool = True,
) -> Run:
    """Moves the atoms, in place, by `steps` steps in all.

    Called again with a folder that holds an unfinished run of the same settings, it goes on where that
    was saved, on the trajectory that an unbroken run would have had. Ctrl-C ends after the step, saved.

    Args:
        atoms: with a calculator. The calculator is not part of the settings that are compared.
        timestep: fs.
        temperature: K, of velocities drawn at the start; None keeps those the atoms have.
        frames_every: steps between two frames.
        log_every: steps between two rows of the log.
        save_every: steps between two checkpoints.
        folder: for the files (`records`); None keeps all in memory.
        hottest: K; above it, atoms fly apart and the run ends.
        watch: called after every step with its number and the atoms; may raise to end the run.

    Raises:
        ValueError: no calculator, numbers that cannot be, a folder of another run; what the calculator
            raises, or a temperature above `hottest`: the message says the step, and a folder has the
            atoms then as ``failed.extxyz``.
    """
    _check(atoms, steps, timestep, frames_every, log_every, save_every)
    records = Records(
        None if folder is None else Path(folder),
        {
            "ensemble": ensemble.settings(),
            "timestep": timestep,
            "temperature": temperature,
            "frames_every": frames_every,
            "log_every": log_every,
            "seed": seed,
            "atoms": atoms.get_chemical_formula(),
        },
    )
    try:
        random = np.random.default_rng(seed)
        start = _begin(atoms, records, temperature, random)
        dynamics = ensemble.dynamics(atoms, timestep, random)
        if records.checkpoint is not None:
            names = [name for name in records.checkpoint if name.startswith("state:")]
            ensemble.restore(dynamics, {name[6:]: records.checkpoint[name] for name in names})
        dynamics.nsteps = start
        atoms.get_forces()  # what cannot be computed is refused before anything is written
        records.open()

        def save(step: int) -> None:
            records.save(step, atoms, random, ensemble.state(dynamics))

        if records.checkpoint is None:
            records.add_frame(atoms)
            records.add_row(_row(0, atoms, ensemble, dynamics))
            save(0)
        with deferred() as interrupted, _bar(start, steps, shown=progress) as advance:
            for step in range(start + 1, steps + 1):
                _step(dynamics, step, records.folder)
                heat = _temperature(atoms, ensemble)
                if not heat <= hottest:
                    _give_up(atoms, records.folder, step, f"the temperature is {heat:.3g} K")
                if step % frames_every == 0:
                    records.add_frame(atoms)
                if step % log_every == 0:
                    records.add_row(_row(step, atoms, ensemble, dynamics))
                if watch is not None:
                    watch(step, atoms)
                if step % save_every == 0 or step == steps or interrupted():
                    save(step)
                if interrupted():
                    raise KeyboardInterrupt
                advance()
    finally:
        records.close()
    return Run(
        trajectory=Trajectory.from_frames(records.frames, frames_every * timestep),
        log=Log(rows=np.array(records.rows)),
        steps=max(steps - start, 0),
    )


def _check(
    atoms: Atoms, steps: int, timestep: float, frames_every: int, log_every: int, save_every: int
) -> None:
    if atoms.calc is None:
        raise ValueError("atoms have no calculator: set atoms.calc first")
    for name, value in (
        ("steps", steps),
        ("timestep", timestep),
        ("frames_every", frames_every),
        ("log_every", log_every),
        ("save_every", save_every),
    ):
        if not value > 0:
            raise ValueError(f"{name}={value} has to be positive")


def _begin(
    atoms: Atoms, records: Records, temperature: float | None, random: np.random.Generator
) -> int:
    """The state to begin with; returns its step."""
    checkpoint = records.checkpoint
    if checkpoint is None:
        if temperature is not None:
            thermal_velocities(atoms, temperature, seed=int(random.integers(2**31)))
        return 0
    atoms.set_cell(checkpoint["cell"])
    atoms.set_positions(checkpoint["positions"], apply_constraint=False)
    atoms.set_momenta(checkpoint["momenta"], apply_constraint=False)
    random.bit_generator.state = json.loads(str(checkpoint["random"]))
    return int(checkpoint["step"])


def _step(dynamics: MolecularDynamics, step: int, folder: Path | None) -> None:
    try:
        dynamics.run(1)
    except ValueError as error:
        _give_up(dynamics.atoms, folder, step, str(error))


def _give_up(atoms: Atoms, folder: Path | None, step: int, why: str) -> None:
    where = ""
    if folder is not None:
        bare = atoms.copy()
        bare.set_constraint()
        write(folder / "failed.extxyz", bare, format="extxyz")
        where = f"; the atoms are in {folder / 'failed.extxyz'}"
    raise ValueError(f"step {step}: {why}{where}")


def _temperature(atoms: Atoms, ensemble: Ensemble) -> float:
    degrees = max(ensemble.degrees(atoms), 1)
    return float(2.0 * atoms.get_kinetic_energy() / (degrees * BOLTZMANN))


def _row(step: int, atoms: Atoms, ensemble: Ensemble, dynamics: MolecularDynamics) -> list[float]:
    potential, kinetic = atoms.get_potential_energy(), atoms.get_kinetic_energy()
    volume = pressure = float("nan")
    if atoms.pbc.all():
        volume = atoms.get_volume()
        stress = atoms.calc.results.get("stress")
        if stress is not None:
            of_forces = -np.asarray(stress)[:3].mean()
            pressure = (of_forces + 2.0 * kinetic / (3.0 * volume)) / GIGAPASCAL
    return [
        step,
        step * dynamics.dt / FEMTOSECOND,
        _temperature(atoms, ensemble),
        potential,
        kinetic,
        ensemble.conserved(dynamics),
        volume,
        pressure,
    ]


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.3g} steps/s")


@contextmanager
def _bar(start: int, steps: int, *, shown: bool) -> Iterator[Callable[[], None]]:
    if not shown:
        yield lambda: None
        return
    columns = (
        TextColumn("dynamics"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        task = progress.add_task("", total=steps, completed=start)
        yield lambda: progress.advance(task)
