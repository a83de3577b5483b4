"""What simulations need of a potential, whoever computes it."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from oarlock.sci_md.neighbours import Neighbourhood
from oarlock.sci_md.structure import Array


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Evaluation:
    """Args:
    energy: eV, of the owned atoms.
    atomic_energies: [owned], eV.
    forces: [M, 3], eV/Å, of all atoms: what the energy of the owned ones does to ghosts too.
    virial: [3, 3], eV, −∂E/∂ε.
    """

    energy: float
    atomic_energies: Array
    forces: Array
    virial: Array


class Evaluator(Protocol):
    """A potential with fixed parameters.

    Attributes:
        elements: chemical symbols; species are indices into them.
        cutoff: Å.
        reach: how many cut-offs away an atom can be and still act on another's energy.
    """

    @property
    def elements(self) -> tuple[str, ...]: ...

    @property
    def cutoff(self) -> float: ...

    @property
    def reach(self) -> int: ...

    def evaluate(self, atoms: Neighbourhood) -> Evaluation:
        """Edges longer than the cut-off (lists have a skin) are left out.

        Raises:
            ValueError: overlapping atoms, or a result that is not finite; the message says where.
        """
        ...


@runtime_checkable
class AtomicVirials(Protocol):
    """An evaluator that can also share the virial out among atoms; not all can."""

    def atomic_virials(self, atoms: Neighbourhood) -> Array:
        """[rows, 3, 3], eV, each atom with what its own edges give; their sum is the virial."""
        ...
