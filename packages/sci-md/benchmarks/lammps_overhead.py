"""What a step of LAMMPS costs outside the potential: `pair_style oarlock` with one that does nothing.

    python packages/sci-md/benchmarks/lammps_overhead.py

Prints, for 864 and 4,000 atoms of copper (cut-off 5 Å, skin 1 Å), the processor time of a step
with LAMMPS' own lj/cut and its half lists, and of one with our pair style around an evaluator that gives
zeros, for potentials that see neighbours only (reach 1) and that pass messages (reach 3, images
merged). "vectors": the evaluator also takes the vectors of all edges, in NumPy.
"""

import statistics
import time
from pathlib import Path

import numpy as np
from oarlock.sci_md import lammps
from oarlock.sci_md.evaluate import Evaluation, opening

INPUT = """
units metal
lattice fcc 3.61
region box block 0 {n} 0 {n} 0 {n}
create_box 1 box
create_atoms 1 box
mass 1 63.5
velocity all create 600 3 loop geom
neighbor 1.0 bin
neigh_modify every 1 delay 0 check yes
timestep 0.002
{pair}
fix 1 all nve
thermo 1000
run 10
"""
LJ = "pair_style lj/cut 5.0\npair_coeff * * 0.1 2.3"
STEPS = 100


class Nothing:
    """An evaluator that gives zeros, and may look at the edges first."""

    elements, cutoff = ("Cu",), 5.0

    def __init__(self, reach: int, vectors: bool) -> None:
        self.reach = reach
        self.vectors = vectors

    def evaluate(self, atoms):
        if self.vectors:
            atoms.vectors()
        return Evaluation(
            energy=0.0,
            atomic_energies=np.zeros(atoms.owned),
            forces=np.zeros((len(atoms.positions), 3)),
            virial=np.zeros((3, 3)),
        )


def step_time(n: int, evaluator: Nothing | None) -> float:
    """Milliseconds, with what building lists costs in a crystal that vibrates."""
    pair = LJ
    if evaluator is not None:
        opening._open = lambda *given: evaluator
        pair = f"pair_style oarlock {Path(__file__)}\npair_coeff * * Cu"
    simulation = lammps.start(["-log", "none", "-screen", "none"])
    simulation.commands_string(INPUT.format(n=n, pair=pair))
    times = []
    for _ in range(3):
        start = time.process_time()
        simulation.command(f"run {STEPS}")
        times.append((time.process_time() - start) / STEPS * 1e3)
    simulation.close()
    return statistics.median(times)


def main() -> None:
    cases = [("lj/cut", None)]
    for reach in (1, 3):
        cases.append((f"oarlock, reach {reach}", Nothing(reach, vectors=False)))
        cases.append((f"oarlock, reach {reach}, vectors", Nothing(reach, vectors=True)))
    for n in (6, 10):
        for name, evaluator in cases:
            print(f"{4 * n**3:5} atoms  {name:28} {step_time(n, evaluator):7.3f} ms a step")


if __name__ == "__main__":
    main()
