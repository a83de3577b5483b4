"""The screened repulsion of two nuclei, for distances at which no data are.

Source: Ziegler, Biersack, Littmark, "The Stopping and Range of Ions in Solids", 1985; the switch to
zero is the one of LAMMPS' ``pair_style zbl``.
"""

import numpy as np
import paddle
from ase.data import atomic_numbers, covalent_radii
from ase.units import Bohr, Hartree
from numpy.typing import NDArray
from paddle import Tensor, nn

from oarlock.sci_md.graph import Graph
from oarlock.sci_md.ops import gather, lengths, scatter_sum
from oarlock.sci_md.potentials.config import PotentialConfig

#: φ(x) = Σ c exp(−d x), x the distance by the screening length.
WEIGHTS = np.array([0.02817, 0.28022, 0.50986, 0.18175])
DECAYS = np.array([0.20162, 0.40290, 0.94229, 3.19980])
#: Å; by Z_iᵖ + Z_jᵖ the screening length.
LENGTH, POWER = 0.46850, 0.23
#: eV Å, e² / (4 π ε₀).
COULOMB = Hartree * Bohr

Table = NDArray[np.float64]


class NuclearRepulsion(nn.Layer):
    """Graph → [N] float64 eV, half of each pair's energy for each of its atoms.

    E(r) = Z_i Z_j e²/(4πε₀ r) φ(r / a) + S(r). S is a constant below the inner radius and from there
    a polynomial of fourth order, with which E, E′ and E″ vanish at the outer radius: the sum of the
    covalent radii, or the cut-off where that is shorter. The inner radius is half of it. So bonded
    atoms hardly feel it.

    Args:
        config: elements and cut-off.
        inner, outer: [K, K], Å, other radii for each pair of elements.

    Raises:
        ValueError: radii of another shape, not 0 < inner < outer ≤ cut-off, or not symmetric.
    """

    def __init__(
        self, config: PotentialConfig, *, inner: Table | None = None, outer: Table | None = None
    ) -> None:
        super().__init__()
        numbers = np.array([atomic_numbers[symbol] for symbol in config.elements])
        if outer is None:
            radii = covalent_radii[numbers]
            outer = np.minimum(radii[:, None] + radii[None, :], config.cutoff)
        if inner is None:
            inner = 0.5 * np.asarray(outer)
        inner, outer = _checked(inner, outer, config)
        powers = numbers.astype(np.float64) ** POWER
        rates = DECAYS / (LENGTH / (powers[:, None] + powers[None, :]))[..., None]  # [K, K, 4]
        charges = COULOMB * numbers[:, None] * numbers[None, :].astype(np.float64)
        constant, cubic, quartic = _switch(charges, rates, inner, outer)
        table = [inner, outer, charges, constant, cubic, quartic, *np.moveaxis(rates, -1, 0)]
        pairs = len(numbers) ** 2
        self._kinds = len(numbers)
        values = np.stack(table, axis=-1).reshape(pairs, len(table))
        # Not among the parameters: the configuration says it.
        self.register_buffer("table", paddle.to_tensor(values, dtype="float64"), persistable=False)

    def forward(self, graph: Graph) -> Tensor:
        kinds = self._kinds
        pairs = gather(graph.species, graph.centers) * kinds + gather(
            graph.species, graph.neighbours
        )
        with paddle.no_grad():  # few edges are so short
            reach = self.table[:, 1].astype(graph.vectors.dtype)
            squares = paddle.square(graph.vectors.detach()).sum(axis=-1)
            near = paddle.nonzero(squares < paddle.square(gather(reach, pairs))).flatten()
            of_pair = gather(self.table, gather(pairs, near))
        distances = lengths(gather(graph.vectors, near).astype("float64"))
        inner, _, charge, constant, cubic, quartic, *rates = paddle.unbind(of_pair, axis=-1)
        screened = paddle.zeros_like(distances)
        for weight, rate in zip(WEIGHTS.tolist(), rates):
            screened = screened + weight * paddle.exp(-rate * distances)
        beyond = nn.functional.relu(distances - inner)
        switch = constant + beyond * beyond * beyond * (cubic + quartic * beyond)
        energies = 0.5 * (charge * screened / distances + switch)
        return scatter_sum(energies, gather(graph.centers, near), graph.atoms)


def _switch(
    charges: Table, rates: NDArray[np.float64], inner: Table, outer: Table
) -> tuple[Table, Table, Table]:
    """Constant (eV), cubic (eV/Å³) and quartic (eV/Å⁴) coefficients of S(r), [K, K]."""
    decays = WEIGHTS * np.exp(-rates * outer[..., None])
    value, slope, curve = (
        (decays * factor).sum(axis=-1) for factor in (np.ones_like(rates), -rates, rates**2)
    )
    energy = charges * value / outer
    first = charges * (slope / outer - value / outer**2)
    second = charges * (curve / outer - 2.0 * slope / outer**2 + 2.0 * value / outer**3)
    width = outer - inner
    a = (-3.0 * first + width * second) / width**2
    b = (2.0 * first - width * second) / width**3
    constant = -energy + width / 2.0 * first - width**2 / 12.0 * second
    return constant, a / 3.0, b / 4.0


def _checked(inner: Table, outer: Table, config: PotentialConfig) -> tuple[Table, Table]:
    kinds = len(config.elements)
    inner, outer = np.array(inner, dtype=np.float64), np.array(outer, dtype=np.float64)
    for name, radii in (("inner", inner), ("outer", outer)):
        if radii.shape != (kinds, kinds) or not np.array_equal(radii, radii.T):
            raise ValueError(
                f"{name} has to be a symmetric [{kinds}, {kinds}] table of radii in Å, one for each "
                f"pair of {', '.join(config.elements)}; given: {radii.tolist()}"
            )
    if not ((inner > 0) & (inner < outer) & (outer <= config.cutoff)).all():
        raise ValueError(
            f"inner={inner.tolist()} and outer={outer.tolist()} have to be 0 < inner < outer ≤ "
            f"cutoff={config.cutoff} Å"
        )
    return inner, outer
