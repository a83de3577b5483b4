"""Of every potential: nothing jumps when atoms come into sight of each other."""

import numpy as np
import pytest

from oarlock.sci_md import keys
from oarlock.sci_md.structure import Structure

DIRECTION = np.array([0.99, 0.1, -0.05]) / np.linalg.norm([0.99, 0.1, -0.05])


@pytest.fixture
def approach(predict):
    """Energy, and force towards the first atom, of an atom at some distance from it."""

    def run(potential, distance):
        places = [[0.0, 0.0, 0.0], [0.3, 1.2, 0.2], [-0.5, 0.4, 1.1], distance * DIRECTION]
        structure = Structure(
            numbers=np.array([8, 1, 1, 8]),
            positions=np.array(places, dtype=np.float64),
            cell=np.zeros((3, 3)),
            pbc=np.zeros(3, dtype=bool),
        )
        result = predict(potential, structure)
        return float(result[keys.ENERGY][0]), float(result[keys.FORCES][3] @ DIRECTION)

    return run


def test_the_energy_is_continuous(case, potential_of, approach):
    potential = potential_of(case)
    inside, outside = (approach(potential, potential.cutoff + step)[0] for step in (-1e-6, 1e-6))
    assert (abs(inside - outside) < 1e-5) == (case.derivatives >= 0)
    assert abs(approach(potential, potential.cutoff - 0.8)[0] - outside) > 1e-4  # it does see it


@pytest.mark.on(derivatives=1)
def test_forces_are_continuous(case, potential_of, approach):
    potential = potential_of(case)
    inside, outside = (approach(potential, potential.cutoff + step)[1] for step in (-1e-6, 1e-6))
    assert abs(inside - outside) < 1e-5
    assert abs(approach(potential, potential.cutoff - 0.8)[1] - outside) > 1e-4


@pytest.mark.on(derivatives=1)
def test_the_slope_of_forces_is_continuous_where_promised(case, potential_of, approach):
    potential = potential_of(case)
    step, cutoff = 1e-4, potential.cutoff

    def slope(distance):
        ahead, behind = (approach(potential, distance + half)[1] for half in (step / 2, -step / 2))
        return (ahead - behind) / step

    jump = abs(slope(cutoff - step) - slope(cutoff + step))
    typical = max(abs(slope(cutoff - inside)) for inside in (0.2, 0.4, 0.6, 0.8))
    assert (jump < 0.01 * typical) == (case.derivatives >= 2)
