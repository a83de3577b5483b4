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
    for _ in range(2):  # all atoms at once, in directions that no symmetry favours
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
    parameters = potential.parameters()
    assert all(parameter.grad is not None for parameter in parameters)
    before = [parameter.numpy() for parameter in parameters]
    gradients = [parameter.grad.numpy() for parameter in parameters]
    sizes = np.array([np.linalg.norm(gradient) for gradient in gradients])
    assert sizes.max() > 1e-3
    for _ in range(2):
        # Of all parameters at once; each has its part in the slope, however small its gradient is.
        directions = [
            rng.standard_normal(gradient.shape) / max(size, 1e-2 * sizes.max())
            for gradient, size in zip(gradients, sizes, strict=True)
        ]
        losses = []
        for step in (STEP, -STEP):
            for parameter, value, direction in zip(parameters, before, directions, strict=True):
                parameter.set_value(value + step * direction)
            losses.append(loss().item())
        slope = (losses[0] - losses[1]) / (2 * STEP)
        expected = sum(
            (gradient * direction).sum()
            for gradient, direction in zip(gradients, directions, strict=True)
        )
        assert expected == pytest.approx(slope, rel=1e-6, abs=1e-6)
