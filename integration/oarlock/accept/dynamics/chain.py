"""The steps from labels to a trajectory, each of which fails loudly."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.io import write

from oarlock.accept import data
from oarlock.accept.dynamics import deepmd_input, elements
from oarlock.native.paddle import accelerate
from oarlock.sci_md import lammps
from oarlock.sci_md.calculator import OarlockCalculator
from oarlock.sci_md.data import Dataset, read
from oarlock.sci_md.data import write as write_structures
from oarlock.sci_md.evaluate import EagerEvaluator, Evaluator, FrozenEvaluator, NativeDeepPotential
from oarlock.sci_md.evaluate import freeze as freeze_program
from oarlock.sci_md.labels import TightBinding, generate, packed, rattled
from oarlock.sci_md.potentials import DeepPotential, Potential, build, config_from_dict, save
from oarlock.sci_md.simulate import Trajectory, energy_drift, radial_distribution
from oarlock.sci_md.structure import Structure
from oarlock.sci_md.training import Trainer, TrainingSettings, predict

BAR = 1.602176634e6  #: bar in eV/Å³
WATER_FRAMES = ("data_0", "data_1", "data_2", "data_3")


@dataclass(frozen=True, kw_only=True, slots=True)
class System:
    """A material with labelled structures, and how it is run.

    Args:
        name: of the potential's file.
        elements: with the most neighbours of each, `sel`, as DeePMD-kit wants to know them.
        cutoff: Å.
        timestep: ps.
        temperature: K, of the dynamics.
        held_out: structures that nothing is trained on.
        pair: elements whose radial distribution is read off.
        training: settings, but for the number of steps.
    """

    name: str
    elements: tuple[str, ...]
    sel: tuple[int, ...]
    cutoff: float
    timestep: float
    temperature: float
    held_out: int
    pair: tuple[str, str]
    training: Mapping[str, Any]

    @property
    def file(self) -> str:
        return f"{self.name}.safetensors"


#: DeePMD-kit's example; the reference is of 330 K.
WATER = System(
    name="water",
    elements=("O", "H"),
    sel=(46, 92),
    cutoff=6.0,
    timestep=0.5e-3,
    temperature=330.0,
    held_out=40,
    pair=("O", "O"),
    training={
        "batch": 1,
        "loss": {
            "energy": {"start": 0.02, "limit": 1.0},
            "forces": {"start": 1000.0, "limit": 1.0},
            "normalise": "deepmd",
        },
        "learning_rate": {"start": 2e-3, "stop": 1e-6},
    },
)
#: Of mlearn, whose labels are from density-functional theory.
MOLYBDENUM = System(
    name="molybdenum",
    elements=("Mo",),
    sel=(96,),
    cutoff=5.0,
    timestep=1e-3,
    temperature=300.0,
    held_out=20,
    pair=("Mo", "Mo"),
    training={
        "batch": 4,
        "ema": 0.99,
        "loss": {"energy": 10.0, "forces": 1.0},
        "learning_rate": {"kind": "cosine", "start": 5e-3, "stop": 5e-5, "warm_up": 50},
    },
)
SMOOTH = 0.5  #: Å, where Deep Potentials begin to fall


def structures(frames: int | None) -> list[Structure]:
    """The frames of DeePMD-kit's water, or so many of the first."""
    accelerate(threads=1)
    archive = data.path("md/deepmd_water", "water_data.zip")
    found = [
        one for frame in WATER_FRAMES for one in read(archive / frame, need=("energy", "forces"))
    ]
    return found[:frames]


def molybdenum() -> list[Structure]:
    """Training structures of mlearn, mixed; the first is of dynamics at the temperature of ours."""
    accelerate(threads=1)
    found = elements.structures("Mo", "training")
    order = list(np.random.default_rng(7).permutation(len(found)))
    first = of_reference(MOLYBDENUM, found)[0]
    order.sort(key=lambda index: index != first)
    return [found[index] for index in order]


def of_reference(system: System, given: Sequence[Structure]) -> list[int]:
    """Which structures are frames of dynamics at the system's temperature."""
    if system is WATER:
        return list(range(len(given)))
    words = ("(AIMD-NVT: ", f" at {system.temperature:.0f} K)")
    return [index for index, one in enumerate(given) if all(word in one.name for word in words)]


def label(folder: Path, *, seed: int) -> float:
    """Labels two shaken dimers of water with GFN2-xTB.

    Returns:
        the largest difference of a force from differences of energies, eV/Å.
    """
    start = packed(molecule("H2O"), count=2, density=0.03, box=False, seed=seed)
    shaken = rattled(start, count=2, deviation=0.05, seed=seed)
    method = TightBinding(method="GFN2-xTB", accuracy=0.01)
    labelled = generate(shaken, method, cache=folder / "labels", progress=False)
    if labelled.failures:
        raise RuntimeError(str(labelled))
    one, step = labelled.structures[0], 1e-3
    assert one.forces is not None
    worst = 0.0
    for axis in range(3):
        energies = []
        for sign in (1, -1):
            positions = one.positions.copy()
            positions[0, axis] += sign * step
            moved = Structure(numbers=one.numbers, positions=positions, cell=one.cell, pbc=one.pbc)
            (found,) = generate([moved], method, cache=folder / "labels", progress=False).structures
            energies.append(found.energy or 0.0)
        slope = -(energies[0] - energies[1]) / (2 * step)
        worst = max(worst, abs(slope - one.forces[0, axis]))
    return worst


def train(
    folder: Path,
    system: System,
    given: Sequence[Structure],
    config: Mapping[str, Any],
    steps: int,
    *,
    seed: int,
) -> tuple[Potential, dict[str, float]]:
    """A potential in float64, and its errors on structures held out."""
    import paddle

    config = {**config, "elements": system.elements, "cutoff": system.cutoff, "dtype": "float64"}
    paddle.seed(seed)
    potential = build(config_from_dict(config))
    held = min(system.held_out, len(given) // 4)
    sets = [
        Dataset(part, elements=system.elements, cutoff=system.cutoff)
        for part in (given[:-held], given[-held:])
    ]
    settings = TrainingSettings.read(
        {
            **system.training,
            "steps": steps,
            "seed": seed,
            "validate_every": 1000,
            "plots": False,
        },
        where="the experiment",
    )
    Trainer(potential, sets[0], settings, validation=sets[1], folder=folder).run()
    found = predict(potential, sets[1])
    potential.eval()
    save(potential, folder / system.file)
    return potential, {
        "structures": held,
        "energy": 1e3 * found.energy.rmse,
        "forces": 1e3 * found.forces.rmse,
    }


def freeze(folder: Path, potential: Potential) -> FrozenEvaluator:
    freeze_program(potential, folder)
    return FrozenEvaluator(folder)


def forms(
    potential: Potential,
    frozen: FrozenEvaluator,
    folder: Path,
    system: System,
    structure: Structure,
    ranks: Sequence[int],
) -> dict[str, Any]:
    """Energies (eV) of every form that the potential has, and two pressures (bar).

    Args:
        ranks: on how many LAMMPS runs.
    """
    from oarlock.sci_md.neighbours import find_neighbours

    eager = EagerEvaluator(potential)

    def energy(evaluator: Evaluator, structure: Structure) -> float:
        found = find_neighbours(structure, system.elements, system.cutoff)
        return evaluator.evaluate(found).energy

    energies = {"eager": energy(eager, structure), "frozen": energy(frozen, structure)}
    if isinstance(potential, DeepPotential):
        energies["native"] = energy(NativeDeepPotential(potential), structure)
    atoms = structure.to_ase()
    atoms.calc = OarlockCalculator(potential)
    energies["ASE"] = atoms.get_potential_energy()
    file = write_system(folder, system, atoms)
    model = folder / "ours" / system.file
    for count in ranks:
        said = lammps.run(_input(system, model, file, "run 0"), ranks=count, folder=folder)
        row = _last_row(said)
        energies[f"LAMMPS, {count}"] = row["PotEng"]
    step = 1e-4
    sizes = [1 + step, 1 - step]
    by_size = []
    for size in sizes:
        scaled = Structure(
            numbers=structure.numbers,
            positions=size * structure.positions,
            cell=size * structure.cell,
            pbc=structure.pbc,
        )
        by_size.append(energy(eager, scaled))
    volumes = [size**3 * structure.volume for size in sizes]
    slope = -(by_size[0] - by_size[1]) / (volumes[0] - volumes[1])
    return {
        "atoms": len(structure),
        "energies": energies,
        "pressure": row["Press"],
        "pressure_by_differences": BAR * slope,
    }


def write_system(folder: Path, system: System, atoms: Atoms) -> Path:
    """The system as a data file of LAMMPS."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "system.lmp"
    write(file, atoms, format="lammps-data", specorder=list(system.elements), masses=True)
    return file


def _input(system: System, model: Path, file: Path, commands: str) -> str:
    return (
        "units metal\natom_style atomic\nboundary p p p\n"
        f"read_data {file}\n"
        f"pair_style oarlock {model.absolute()}\npair_coeff * * {' '.join(system.elements)}\n"
        "neighbor 1.0 bin\nneigh_modify every 1 delay 0 check yes\n"
        "thermo_style custom step time temp pe ke etotal press\n"
        "thermo_modify format float %22.14g\n"
        f"{commands}\n"
    )


def _rows(said: str) -> list[dict[str, float]]:
    """The rows of all tables of thermodynamic output."""
    found, names = [], None
    for line in said.splitlines():
        words = line.split()
        if words[:1] == ["Step"]:
            names = words
        elif line.startswith("Loop time"):
            names = None
        elif names is not None and len(words) == len(names):
            try:
                found.append({name: float(word) for name, word in zip(names, words)})
            except ValueError:
                continue
    return found


def _last_row(said: str) -> dict[str, float]:
    return _rows(said)[-1]


def dynamics(
    folder: Path, system: System, structure: Structure, sizes: Mapping[str, Any], *, seed: int
) -> dict[str, Any]:
    """NVT, then NVE in LAMMPS; the drift of the energy and the trajectory of the NVE part."""
    heat, steps = (round(sizes[name] / system.timestep) for name in ("heat_ps", "run_ps"))
    every = max(1, steps // 200)
    file = write_system(folder, system, structure.to_ase())
    commands = f"""
velocity all create {system.temperature} {seed + 1} mom yes rot yes dist gaussian
timestep {system.timestep}
fix 1 all nvt temp {system.temperature} {system.temperature} {100 * system.timestep}
thermo {max(1, heat)}
run {heat}
unfix 1
fix 1 all nve
thermo {every}
dump 1 all custom {every} run.lammpstrj id type xu yu zu
dump_modify 1 sort id format float %.10g
run {steps}
"""
    begin = time.perf_counter()
    said = lammps.run(_input(system, folder / "ours" / system.file, file, commands), folder=folder)
    seconds = time.perf_counter() - begin
    rows = [row for row in _rows(said) if row["Step"] >= heat][1:]
    times = np.array([row["Time"] for row in rows])
    energies = np.array([row["TotEng"] for row in rows])
    blocks = min(10, len(rows) // 2)
    return {
        "drift": energy_drift(1e3 * times, energies, atoms=len(structure), blocks=blocks),
        "steps": steps,
        "ms": 1e3 * seconds / (heat + steps),
        "trajectory": _trajectory(folder / "run.lammpstrj", structure, every * system.timestep),
    }


def _trajectory(path: Path, structure: Structure, interval: float) -> Trajectory:
    """The frames of a dump whose atoms are sorted and not wrapped."""
    atoms = len(structure)
    lines = path.read_text().splitlines()
    size = atoms + 9
    frames = [
        np.array([line.split()[2:5] for line in lines[start + 9 : start + size]], dtype=np.float64)
        for start in range(0, len(lines), size)
    ]
    return Trajectory(
        numbers=structure.numbers,
        positions=np.stack(frames),
        cells=np.repeat(structure.cell[None], len(frames), axis=0),
        pbc=structure.pbc,
        times=1e3 * interval * np.arange(len(frames)),
    )


def distributions(
    found: Mapping[str, Any], system: System, given: Sequence[Structure]
) -> dict[str, Any]:
    """g(r) in the simulation and in the reference frames of its box and temperature."""
    box = given[0].cell
    chosen = [given[index] for index in of_reference(system, given)]
    same = [one for one in chosen if np.allclose(one.cell, box)]
    reference = Trajectory(
        numbers=same[0].numbers,
        positions=np.stack([one.positions for one in same]),
        cells=np.stack([one.cell for one in same]),
        pbc=same[0].pbc,
        times=np.arange(len(same), dtype=np.float64),
    )
    cutoff = 0.499 * float(np.diag(box).min())
    results = {
        name: radial_distribution(one, pair=system.pair, cutoff=cutoff, bins=100, blocks=2)
        for name, one in (("simulation", found["trajectory"]), ("reference", reference))
    }
    values = {name: one.values for name, one in results.items()}
    return {
        "r": results["simulation"].distances.tolist(),
        "distance": float(np.abs(values["simulation"] - values["reference"]).mean()),
        **{name: one.tolist() for name, one in values.items()},
    }


def _deepmd_input(
    folder: Path, system: System, given: Sequence[Structure], steps: int, *, one_side: bool
) -> None:
    """Systems of some frames, and DeePMD-kit's input for them, which logs each step."""
    folder.mkdir(parents=True)
    write_structures(folder / "systems", given[:40], format="deepmd")
    values = deepmd_input.values(
        sorted(f"systems/{one.name}" for one in (folder / "systems").iterdir()),
        elements=system.elements,
        sel=system.sel,
        cutoff=system.cutoff,
        smooth=SMOOTH,
        network=deepmd_input.EXAMPLE,
        rate=(1e-3, 1e-6),
        seed=0,
        one_side=one_side,
        precision="float64",
    )
    values = deepmd_input.with_steps(values, steps)
    values["training"] |= {"disp_freq": 1, "disp_file": "lcurve.out"}
    (folder / "input.json").write_text(json.dumps(values, indent=1))


def _learning_curve(folder: Path) -> np.ndarray:
    return np.loadtxt(folder / "lcurve.out", ndmin=2)


def stock_steps(
    folder: Path, system: System, given: Sequence[Structure], steps: Sequence[str]
) -> tuple[list[str], list[str]]:
    """The steps that run with DeePMD-kit and LAMMPS as installed, and why the others do not.

    Where training with the default descriptor fails, the steps behind it are tried with one that trains.
    """
    done, why = [], []
    _deepmd_input(folder, system, given, 5, one_side=False)
    dp = str(Path(sys.executable).with_name("dp"))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [dp, "--pd", *arguments], cwd=folder, env=environment, capture_output=True, text=True
        )

    trained = call("train", "input.json")
    if trained.returncode == 0 and np.isfinite(_learning_curve(folder)).all():
        done.append(steps[1])
    elif trained.returncode == 0:
        why.append("training with the default descriptor gave losses that are not finite")
    else:
        why.append(f"training failed: {trained.stderr.strip().splitlines()[-1][:200]}")
    if steps[1] not in done:  # so that the next steps have a model, with a descriptor that trains
        shutil.rmtree(folder)
        _deepmd_input(folder, system, given, 5, one_side=True)
        call("train", "input.json")
    frozen = call("freeze", "-o", "frozen")
    if frozen.returncode == 0 and (folder / "frozen.json").exists():
        done.append(steps[2])
    else:
        why.append(f"freezing failed: {frozen.stderr.strip().splitlines()[-1][:200]}")
    file = write_system(folder, system, given[0].to_ase())
    text = (
        "units metal\natom_style atomic\n"
        f"read_data {file}\npair_style deepmd {folder / 'frozen.json'}\n"
        f"pair_coeff * * {' '.join(system.elements)}\nrun 0\n"
    )
    (folder / "in.stock").write_text(text)
    lmp = str(Path(sys.executable).with_name("lmp"))
    ran = subprocess.run(
        [lmp, "-in", "in.stock"],
        cwd=folder,
        env=lammps.environment(),
        capture_output=True,
        text=True,
    )
    if ran.returncode == 0:
        done.append(steps[3])
    else:
        said = [
            line
            for line in (ran.stdout + ran.stderr).splitlines()
            if "rror" in line or "nable" in line
        ]
        why.append(f"LAMMPS said: {said[0][:200] if said else ran.returncode}")
    return done, why


def mended_steps(
    folder: Path, system: System, given: Sequence[Structure], steps: Sequence[str]
) -> Iterator[str]:
    """DeePMD-kit's Paddle model with our mend: training with its defaults, freezing, LAMMPS.

    Raises:
        RuntimeError: a step failed.
    """
    _deepmd_input(folder, system, given, 20, one_side=False)

    def call(*arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "oarlock.sci_md.deepmd", *arguments],
            cwd=folder,
            env=lammps.environment() | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(arguments)}: {done.stderr[-2000:]}")

    call("train", "input.json")
    if not np.isfinite(_learning_curve(folder)).all():
        raise RuntimeError("training gave losses that are not finite")
    yield steps[1]
    call("freeze", "-o", "frozen")
    yield steps[2]
    file = write_system(folder, system, given[0].to_ase())
    rows = []
    for options in ("", " native no"):
        model = Path(f"{folder / 'model.ckpt.pd'}{options}")
        text = _input(
            system, model, file, "velocity all create 300 1\nfix 1 all nve\ntimestep 0.0005\nrun 10"
        )
        rows.append(_last_row(lammps.run(text, folder=folder)))
    if abs(rows[0]["PotEng"] - rows[1]["PotEng"]) > 1e-6 * len(given[0]):
        raise RuntimeError(f"the native engine and DeePMD-kit disagree in LAMMPS: {rows}")
    yield steps[3]
