"""Water from quantum mechanics to its radial distribution function, in about five minutes.

    python water.py FOLDER [--seed 0]

1. Droplets of water move by GFN2-xTB (tblite); what they visit is labelled with it.
2. PaiNN is trained on the droplets.
3. A periodic box of water moves by PaiNN.
4. One of its boxes is labelled too: forces there say what droplets taught about the liquid.
5. The distribution of oxygens is drawn, with experiment's first peak to compare with.

Everything is kept in FOLDER: an interrupted call goes on where it was.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from ase.build import molecule
from ase.io import Trajectory as Frames
from oarlock.native.paddle import accelerate
from oarlock.sci_md.calculator import OarlockCalculator
from oarlock.sci_md.data import read, write
from oarlock.sci_md.labels import LabelCalculator, TightBinding, generate, packed, visited
from oarlock.sci_md.simulate import Langevin, radial_distribution, run
from oarlock.sci_md.structure import Structure
from oarlock.sci_md.training import RunConfig, Terminal
from oarlock.sci_md.training import run as train

WATER = molecule("H2O")
DENSITY = 0.0334  # molecules per Å³ at 300 K
METHOD = TightBinding(method="GFN2-xTB", accuracy=1.0)


def sample(folder: Path, options: argparse.Namespace) -> list[Structure]:
    """Droplets as they are at two temperatures."""
    path = folder / "sampled.xyz"
    if path.is_file():
        return read(path, need=())
    print(f"1. {options.droplets} droplets move by GFN2-xTB …")
    found: list[Structure] = []
    for droplet in range(options.droplets):
        seed = options.seed + droplet
        start = packed(
            WATER,
            count=options.molecules,
            density=0.9 * DENSITY,
            box=False,
            places="lattice",
            seed=seed,
        )
        found += visited(
            start,
            LabelCalculator(METHOD),
            temperatures=[300.0, 450.0],
            frames=options.frames,
            every=10,
            equilibration=50,
            friction=0.03,
            seed=seed,
        )
        print(f"   {len(found)} structures")
    write(path, found)
    return found


def label(folder: Path, structures: list[Structure]) -> Path:
    path = folder / "labelled.xyz"
    if not path.is_file():
        labelled = generate(structures, METHOD, cache=folder / "labels")
        print(f"   {labelled}")
        write(path, labelled.structures)
    return path


def fit(folder: Path, labelled: Path, options: argparse.Namespace) -> Path:
    output = folder / "potential"
    best = output / "best.safetensors"
    if (folder / "trained").is_file():
        return best
    print("2. PaiNN is trained on them …")
    config = RunConfig.read(
        {
            "potential": {"model": "painn", "cutoff": 4.5, "features": 32, "layers": 2},
            "data": {
                "train": str(labelled),
                "validation": 0.1,
                "test": 0.1,
                "seed": options.seed,
            },
            "training": {
                "steps": options.steps,
                "batch": 4,
                "loss": {"energy": 10.0, "forces": 1.0},
                "learning_rate": {"start": 5e-3, "stop": 1e-4, "warm_up": 20},
                "validate_every": max(options.steps // 5, 1),
                "seed": options.seed,
            },
            "output": str(output),
        },
        where="water.py",
    )
    (member,) = train(config, resume=output.is_dir(), reporter=Terminal)
    if member.outcome.reason == "interrupted":
        raise KeyboardInterrupt
    assert member.test is not None
    print(f"   forces of unseen droplets: {1e3 * member.test.forces.mae:.0f} meV/Å mean error")
    (folder / "trained").touch()
    return best


def simulate(folder: Path, potential: Path, options: argparse.Namespace) -> None:
    print("3. A box of water moves by PaiNN …")
    start = packed(WATER, count=27, density=DENSITY, box=True, places="lattice", seed=options.seed)
    atoms = start.to_ase()
    atoms.calc = OarlockCalculator(potential)
    done = run(
        atoms,
        Langevin(temperature=300.0, friction=0.02),
        steps=options.dynamics,
        timestep=0.5,
        temperature=300.0,
        frames_every=5,
        log_every=5,
        folder=folder / "dynamics",
        seed=options.seed,
    )
    later = done.trajectory[len(done.trajectory) // 3 :]
    oxygens = radial_distribution(later, pair=("O", "O"), cutoff=4.6, bins=46, blocks=4)
    oxygens.plot(folder / "oxygens.png")
    radial_distribution(later, pair=("O", "H"), cutoff=4.6, bins=92).plot(folder / "hydrogens.png")
    peak = oxygens.values.argmax()
    neighbours = oxygens.coordination[oxygens.distances < 3.3][-1]
    heat = done.log["temperature_K"][len(done.log["temperature_K"]) // 3 :].mean()
    print(f"   {heat:.0f} K in the mean")
    if not options.without_check:
        compare(folder, len(done.trajectory) - 1)
    print(
        f"5. Oxygens are most often {oxygens.distances[peak]:.2f} Å apart (X-rays: 2.80 Å), "
        f"{neighbours:.1f} are within 3.3 Å (X-rays: 4.3). See {folder / 'oxygens.png'}."
    )


def compare(folder: Path, frame: int) -> None:
    """Forces of PaiNN and of GFN2-xTB in a frame of the box."""
    print("4. The last box is labelled by GFN2-xTB …")
    with Frames(folder / "dynamics" / "frames.traj") as frames:
        atoms = frames[frame]
    bare = Structure.from_ase(atoms.copy())
    labelled = generate([bare], METHOD, cache=folder / "labels", progress=False)
    for one in labelled.structures:
        assert one.forces is not None
        error = np.abs(one.forces - atoms.get_forces()).mean()
        size = np.abs(one.forces).mean()
        print(f"   forces differ by {1e3 * error:.0f} of {1e3 * size:.0f} meV/Å in the mean")
    for failure in labelled.failures:
        print(f"   {failure.message}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--droplets", type=int, default=4)
    parser.add_argument("--molecules", type=int, default=12, help="of each droplet")
    parser.add_argument("--frames", type=int, default=15, help="of each droplet and temperature")
    parser.add_argument("--steps", type=int, default=400, help="of training")
    parser.add_argument("--dynamics", type=int, default=2000, help="steps of 0.5 fs")
    parser.add_argument("--without-check", action="store_true", help="leave out step 4")
    options = parser.parse_args()
    accelerate()
    try:
        options.folder.mkdir(parents=True, exist_ok=True)
        structures = sample(options.folder, options)
        labelled = label(options.folder, structures)
        simulate(options.folder, fit(options.folder, labelled, options), options)
    except (OSError, ValueError) as error:
        print(f"water.py: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
