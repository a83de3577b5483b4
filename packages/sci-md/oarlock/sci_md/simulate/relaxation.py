"""Structures at rest."""

from ase import Atoms
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS


def relaxed(atoms: Atoms, *, force: float = 1e-3, box: bool = False, steps: int = 1000) -> Atoms:
    """A copy moved to the nearest minimum of the energy, with the same calculator.

    Args:
        force: eV/Å, the largest that may be left.
        box: let the box move too, to zero stress.
        steps: at most.

    Raises:
        ValueError: no calculator, or forces above `force` after all steps.
    """
    if atoms.calc is None:
        raise ValueError("atoms have no calculator: set atoms.calc first")
    if not force > 0:
        raise ValueError(f"force={force} has to be positive, in eV/Å")
    copy = atoms.copy()
    copy.calc = atoms.calc
    # Without a line search, which in float32 hunts for a step that lowers an energy by less than its rounding.
    moved = FrechetCellFilter(copy) if box else copy
    mover = BFGS(moved, logfile=None)  # type: ignore[arg-type]
    if not mover.run(fmax=force, steps=steps):
        raise ValueError(
            f"forces are above force={force} eV/Å after steps={steps}: allow more, or mend the start"
        )
    return copy
