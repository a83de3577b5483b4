"""Losses, their weights and the learning rate, against formulas."""

import dataclasses

import numpy as np
import paddle
import pytest

from oarlock.sci_md import keys
from oarlock.sci_md.data import Dataset
from oarlock.sci_md.training import LearningRate, LossSettings, TrainingSettings, Weight
from oarlock.sci_md.training.losses import loss, weights
from oarlock.sci_md.training.schedules import learning_rate


@pytest.fixture
def case(emt):
    structures = [*emt(2, size=1), *emt(1, size=2)]
    batch = Dataset(structures, elements=["Cu", "Au"], cutoff=3.0).batch([0, 1, 2], "float64")
    rng = np.random.default_rng(0)
    errors = {
        keys.ENERGY: rng.normal(size=3),
        keys.FORCES: rng.normal(size=(40, 3)),
        keys.VIRIAL: rng.normal(size=(3, 3, 3)),
    }
    result = {
        name: getattr(batch, name) + paddle.to_tensor(value) for name, value in errors.items()
    }
    return batch, result, errors, np.array([4.0, 4.0, 32.0])


def test_terms_per_atom(case):
    batch, result, errors, atoms = case
    settings = LossSettings(energy=2.0, forces=3.0, virial=4.0)
    got = loss(result, batch, weights(settings, 1.0), settings)
    energy = ((errors["energy"] / atoms) ** 2).mean()
    forces = (errors["forces"] ** 2).mean()
    virial = ((errors["virial"] / atoms[:, None, None]) ** 2).mean()
    np.testing.assert_allclose(got.terms["energy"].numpy(), energy, rtol=1e-9)
    np.testing.assert_allclose(got.total.numpy(), 2 * energy + 3 * forces + 4 * virial, rtol=1e-9)


def test_terms_as_deepmd_has_them(case):
    batch, result, errors, atoms = case
    settings = LossSettings(normalise="deepmd", virial=1.0)
    got = loss(result, batch, weights(settings, 1.0), settings)
    np.testing.assert_allclose(
        got.terms["energy"].numpy(), (errors["energy"] ** 2 / atoms).mean(), rtol=1e-9
    )
    np.testing.assert_allclose(
        got.terms["virial"].numpy(),
        (errors["virial"] ** 2 / atoms[:, None, None]).mean(),
        rtol=1e-9,
    )


def test_the_loss_is_that_of_deepmd(emt):
    """DeePMD-kit's own loss of frames of one size, with prefactors on their way."""
    from deepmd.dpmodel.loss.ener import EnergyLoss

    settings = LossSettings(
        energy={"start": 0.02, "limit": 1.0},
        forces={"start": 1000.0, "limit": 1.0},
        virial={"start": 0.1, "limit": 2.0},
        normalise="deepmd",
    )
    batch = Dataset(emt(3, size=1), elements=["Cu", "Au"], cutoff=3.0).batch([0, 1, 2], "float64")
    rng = np.random.default_rng(1)
    shapes = {keys.ENERGY: (3,), keys.FORCES: (12, 3), keys.VIRIAL: (3, 3, 3)}
    result = {name: paddle.to_tensor(rng.normal(size=shape)) for name, shape in shapes.items()}
    theirs = EnergyLoss(1e-3, start_pref_v=0.1, limit_pref_v=2.0)
    for fraction in (1.0, 0.3):
        mine = loss(result, batch, weights(settings, fraction), settings).total
        said, label = (
            {
                "energy": values[keys.ENERGY].numpy().reshape(3, 1),
                "force": values[keys.FORCES].numpy().reshape(3, 12),
                "virial": values[keys.VIRIAL].numpy().reshape(3, 9),
            }
            for values in (result, {name: getattr(batch, name) for name in shapes})
        )
        label |= {f"find_{name}": 1.0 for name in said}
        want, _ = theirs.call(1e-3 * fraction, 4, said, label)
        np.testing.assert_allclose(mine.numpy(), float(want), rtol=1e-12)


@pytest.mark.parametrize("kind", ["mae", "huber"])
def test_other_penalties(case, kind):
    batch, result, errors, _ = case
    settings = LossSettings(kind=kind, delta=0.5, energy=0.0)
    got = loss(result, batch, weights(settings, 1.0), settings)
    size = np.abs(errors["forces"])
    huber = np.where(size < 0.5, 0.5 * size**2, 0.5 * (size - 0.25))
    want = size.mean() if kind == "mae" else huber.mean()
    np.testing.assert_allclose(got.total.numpy(), want, rtol=1e-9)
    assert set(got.terms) == {"forces"}


def test_unknown_labels_do_not_count(emt):
    one, other = emt(2, size=1)
    bare = dataclasses.replace(one, forces=None, energy=None)
    settings = LossSettings()
    totals = []
    for structures in ([other], [bare, other]):
        batch = Dataset(structures, elements=["Cu", "Au"], cutoff=3.0).batch(
            range(len(structures)), "float64"
        )
        result = {
            keys.ENERGY: paddle.full_like(batch.energy, 7.0),
            keys.FORCES: paddle.full_like(batch.forces, 0.3),
        }
        totals.append(loss(result, batch, weights(settings, 1.0), settings).total.numpy())
    np.testing.assert_allclose(*totals, rtol=1e-9)


def test_weights_follow_the_learning_rate():
    weight = Weight(start=1000.0, limit=1.0)
    assert weight.at(1.0) == 1000.0 and weight.at(0.0) == 1.0 and weight.at(0.5) == 500.5
    assert Weight(start=2.0).at(0.1) == 2.0


def test_learning_rates():
    rate = LearningRate(kind="exponential", start=1e-2, stop=1e-4)
    assert learning_rate(rate, 0, 100) == 1e-2
    np.testing.assert_allclose(learning_rate(rate, 50, 100), 1e-3)
    np.testing.assert_allclose(learning_rate(rate, 100, 100), 1e-4)
    drops = LearningRate(kind="exponential", start=1e-2, stop=1e-4, every=50)
    assert learning_rate(drops, 49, 100) == 1e-2
    np.testing.assert_allclose(learning_rate(drops, 99, 100), 1e-3)
    wave = LearningRate(kind="cosine", start=1e-2, stop=0.5e-2, warm_up=9)
    np.testing.assert_allclose(
        [learning_rate(wave, step, 109) for step in (0, 4, 8)], [1e-3, 5e-3, 9e-3]
    )
    np.testing.assert_allclose(learning_rate(wave, 59, 109), 0.75e-2)
    np.testing.assert_allclose(learning_rate(wave, 109, 109), 0.5e-2)


@pytest.mark.parametrize(
    "values, message",
    [
        ({}, "exactly one of epochs and steps"),
        ({"steps": 3, "epochs": 1}, "exactly one of epochs and steps"),
        ({"steps": 3, "leraning_rate": {}}, "leraning_rate"),
        ({"steps": 3, "learning_rate": {"start": 1e-4, "stop": 1e-3}}, "stop=0.001 is above"),
        ({"steps": 3, "batch": {"atom": 3}}, "no atom there"),
        ({"steps": 3, "batch": 0}, "structures=0"),
        ({"steps": 3, "loss": {"energy": 0, "forces": 0}}, "all have the weight 0"),
        ({"steps": 3, "loss": {"energy": {"start": -1}}}, "loss.energy.start"),
        ({"steps": 3, "loss": {"kind": "mae", "normalise": "deepmd"}}, "needs kind='mse'"),
    ],
)
def test_wrong_settings_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        TrainingSettings.read(values, where="here")
