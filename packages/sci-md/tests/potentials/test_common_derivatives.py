"""Of every potential: forces, virial and the gradients that training takes, by finite differences."""

from dataclasses import replace

import numpy as np
import paddle
import pytest

from oarlock.sci_md import keys

STEP = 1e-5


@pytest.mark.on("cluster", "crystal", "tight")
def test_forces_are_minus_the_slope_of_the_energy(
    case, kind, structure, potential_of, predict, energy
):
    potential = potential_of(case)
    forces = predict(potential, structure)[keys.FORCES]
    rng = np.random.default_rng(0)
    for _ in range(4):  # all atoms at once, in directions that no symmetry favours
        direction = rng.standard_normal(structure.positions.shape)
        ahead, behind = (
            energy(potential, replace(structure, positions=structure.positions + step * direction))
            for step in (STEP, -STEP)
        )
        slope = -(ahead - behind) / (2 * STEP)
        assert (forces * direction).sum() == pytest.approx(slope, rel=1e-7, abs=1e-7)
    assert np.abs(forces).max() > 1e-2


@pytest.mark.on("cluster", "crystal", "tight")
def test_virial_is_minus_the_slope_by_strain(case, kind, structure, potential_of, predict, energy):
    potential = potential_of(case)
    virial = predict(potential, structure)[keys.VIRIAL][0]
    assert np.allclose(virial, virial.T, atol=1e-10)
    for row, column in [(0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (2, 0)]:
        energies = []
        for step in (STEP, -STEP):
            strain = np.eye(3)
            strain[row, column] += step
            energies.append(
                energy(
                    potential,
                    replace(
                        structure,
                        positions=structure.positions @ strain.T,
                        cell=structure.cell @ strain.T,
                    ),
                )
            )
        slope = -(energies[0] - energies[1]) / (2 * STEP)
        assert virial[row, column] == pytest.approx(slope, rel=1e-7, abs=1e-7)


def test_a_loss_of_forces_and_virial_has_the_right_gradient(case, potential_of, graph_of, crystal):
    potential = potential_of(case, training=True)
    graph = graph_of(potential, crystal)
    rng = np.random.default_rng(7)
    target = paddle.to_tensor(rng.standard_normal(crystal.positions.shape))
    strain = paddle.to_tensor(rng.standard_normal((1, 3, 3)))

    def loss():
        result = potential(graph)
        return (
            paddle.square(result[keys.FORCES] - target).sum()
            + paddle.square(result[keys.VIRIAL] - strain).sum()
            + result[keys.ENERGY].sum()
        )

    loss().backward()
    parameters = dict(potential.named_parameters())
    assert all(parameter.grad is not None for parameter in parameters.values())
    for name, parameter in parameters.items():
        gradient = parameter.grad.numpy()
        direction = rng.standard_normal(parameter.shape)
        direction /= np.linalg.norm(direction)
        before = parameter.numpy()
        losses = []
        for step in (STEP, -STEP):
            parameter.set_value(before + step * direction)
            losses.append(loss().item())
        parameter.set_value(before)
        slope = (losses[0] - losses[1]) / (2 * STEP)
        size = np.linalg.norm(gradient)
        assert (gradient * direction).sum() == pytest.approx(slope, rel=1e-5, abs=1e-6 * size), name
    assert max(np.abs(one.grad.numpy()).max() for one in parameters.values()) > 1e-3
