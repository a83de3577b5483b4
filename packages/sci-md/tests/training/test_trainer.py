"""The loop: it learns, resumes bit by bit, stops when it should, and refuses what cannot be."""

import csv
import dataclasses
import os
import signal

import numpy as np
import paddle
import pytest

from oarlock.sci_md.data import BatchSize, Dataset, batches, read
from oarlock.sci_md.potentials import build, config_from_dict, load, names
from oarlock.sci_md.training import (
    LearningRate,
    LossSettings,
    OptimizerSettings,
    Silent,
    Trainer,
    TrainingDiverged,
    TrainingSettings,
    predict,
)
from oarlock.sci_md.training.losses import loss, weights

FAST = LearningRate(kind="cosine", start=2e-2)


def trainer(datasets, folder=None, *, seed=0, make=None, reporter=None, **settings):
    train, validation, config = datasets
    paddle.seed(seed)
    settings = {"steps": 12, "validate_every": 4, "plots": False, "batch": 2, **settings}
    potential = build(config)
    return Trainer(
        potential,
        train,
        TrainingSettings(**settings),
        validation=validation,
        folder=folder,
        optimizer=None if make is None else make(potential),
        reporter=reporter,
    )


class StopAfter(Silent):
    """Sends this process a signal, as Ctrl-C does, after so many steps."""

    def __init__(self, step):
        self.step = step

    def stepped(self, step, rate):
        if step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


def test_it_learns(datasets, tmp_path):
    one = trainer(datasets, tmp_path, steps=90, validate_every=30, learning_rate=FAST, ema=0.9, loss=LossSettings(energy=1.0), plots=True)  # fmt: skip
    before = predict(one.potential, datasets[1]).forces.rmse
    outcome = one.run()
    assert outcome.reason == "done" and outcome.step == 90
    assert outcome.predictions.forces.rmse < 0.2 * before
    files = {file.name for file in tmp_path.iterdir()}
    assert files == {
        "best.safetensors", "checkpoint.safetensors", "curves.png", "history.csv", "last.safetensors",
        "parity.png",
    }  # fmt: skip
    again = predict(load(tmp_path / "best.safetensors"), datasets[1])
    np.testing.assert_allclose(again.forces.predicted, outcome.predictions.forces.predicted)
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["30.0", "60.0", "90.0"]
    assert float(rows[-1]["forces_rmse"]) < float(rows[0]["forces_rmse"])


KINDS = {
    "adam": {},
    "adam at once": {"optimizer": OptimizerSettings(options={"use_multi_tensor": True})},
    "momentum": {"optimizer": OptimizerSettings(name="momentum", options={"momentum": 0.8})},
    "clip and plateau": {
        "clip": 0.1,
        "ema": None,
        "learning_rate": LearningRate(kind="plateau", patience=1, start=1e-2),
    },
    "budget": {"batch": BatchSize(structures=None, atoms=9), "ema": 0.9},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_is_the_same_bit_by_bit(datasets, tmp_path, kind):
    whole = trainer(datasets, tmp_path / "whole", **KINDS[kind])
    whole.run()
    for stop in (3, 7):
        part = trainer(
            datasets, tmp_path / "parts", seed=stop - 3, reporter=StopAfter(stop), **KINDS[kind]
        )
        if stop > 3:
            part.resume()
        assert part.run().reason == "interrupted" and part.state.step == stop
        assert (tmp_path / "parts" / "last.safetensors").is_file()
    last = trainer(datasets, tmp_path / "parts", seed=99, **KINDS[kind])
    last.resume()
    assert last.run().reason == "done"
    for name, value in whole.potential.state_dict().items():
        assert (last.potential.state_dict()[name].numpy() == value.numpy()).all(), name
    whole_rows, part_rows = (
        [{k: v for k, v in row.items() if "second" not in k} for row in one.history.rows]
        for one in (whole, last)
    )
    assert whole_rows == part_rows
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_given_optimizers(datasets, tmp_path):
    def make(potential):
        rate = paddle.optimizer.lr.StepDecay(learning_rate=1e-2, step_size=4)
        return paddle.optimizer.AdamW(learning_rate=rate, parameters=potential.parameters())

    whole = trainer(datasets, make=make)
    whole.run()
    assert whole.optimizer.get_lr() == pytest.approx(1e-5)
    first = trainer(datasets, tmp_path, reporter=StopAfter(5), make=make)
    first.run()
    second = trainer(datasets, tmp_path, make=make)
    second.resume()
    second.run()
    for name, value in whole.potential.state_dict().items():
        assert (second.potential.state_dict()[name].numpy() == value.numpy()).all(), name
    with pytest.raises(ValueError, match="another state"):
        trainer(datasets, tmp_path, make=lambda p: paddle.optimizer.SGD(parameters=p.parameters())).resume()  # fmt: skip
    with pytest.raises(ValueError, match="needs a closure"):
        trainer(datasets, make=lambda p: paddle.optimizer.LBFGS(parameters=p.parameters()))


def test_optimizers_by_name(datasets):
    with pytest.raises(ValueError, match="'Adamm' is not known: there are .*AdamW"):
        trainer(datasets, optimizer=OptimizerSettings(name="Adamm"))
    with pytest.raises(ValueError, match="Adam takes no beta: it takes .*beta1"):
        trainer(datasets, optimizer=OptimizerSettings(options={"beta": 1}))


@pytest.mark.filterwarnings("ignore:overflow")
def test_what_is_not_finite_stops_and_is_kept(datasets, emt, tmp_path):
    train, validation, config = datasets
    wild = dataclasses.replace(train.structures[3], energy=1e200, name="the wild one")
    structures = [*train.structures[:3], wild]
    bad = Dataset(structures, elements=config.elements, cutoff=config.cutoff)
    one = trainer((bad, validation, config), tmp_path, batch=1, steps=40, reference=None)
    with pytest.raises(
        TrainingDiverged, match="loss is inf for the batch of the wild one"
    ) as error:
        one.run()
    assert "batch.extxyz" in str(error.value)
    (culprit,) = read(tmp_path / "diverged" / "batch.extxyz", check=False)
    assert culprit.energy == 1e200
    resumed = trainer((bad, validation, config), tmp_path, batch=1, steps=40, reference=None)
    resumed.resume()
    assert resumed.state.step == one.state.step
    for tensor in resumed.potential.state_dict().values():
        assert np.isfinite(tensor.numpy()).all()


def test_patience_and_time_end_a_run(datasets, tmp_path):
    flat = LearningRate(kind="constant", start=1e-12)
    one = trainer(datasets, tmp_path, steps=100, learning_rate=flat, patience=2, ema=None)
    outcome = one.run()
    assert outcome.reason == "patience" and outcome.step <= 20
    outcome = trainer(datasets, steps=100000, seconds=0.2).run()
    assert outcome.reason == "seconds" and 0 < outcome.step < 100000


@pytest.mark.parametrize("model", [one for one in names() if not one.startswith("test_")])
def test_every_kind_of_potential_is_trained(datasets, model):
    """One step of gradient descent is that of the loss's gradient by finite differences."""
    train, _, config = datasets
    small = {"deep_potential": {"embedding": [4, 8], "axis": 2, "fitting": [8]}}
    values = {"model": model, "elements": ["Cu", "Au"], "cutoff": 3.6, "dtype": "float64"}
    paddle.seed(0)
    potential = build(config_from_dict({**values, **small.get(model, {})}))
    settings = TrainingSettings(
        steps=1,
        batch=2,
        ema=None,
        optimizer=OptimizerSettings(name="SGD"),
        learning_rate=LearningRate(kind="constant", start=1e-6),
    )
    one = Trainer(potential, train, settings)
    parameters = {name: p for name, p in potential.named_parameters() if not p.stop_gradient}
    before = {name: p.numpy() for name, p in parameters.items()}
    (indices,) = list(batches(train, settings.batch, seed=0))[:1]

    def value():
        potential.train()
        batch = train.batch(indices, "float64")
        got = loss(potential(batch.graph), batch, weights(settings.loss, 1.0), settings.loss)
        return float(got.total)

    rng = np.random.default_rng(0)
    directions = {name: rng.normal(size=p.shape) for name, p in before.items()}
    sides = []
    for sign in (1e-5, -1e-5):
        for name, p in parameters.items():
            p.set_value(before[name] + sign * directions[name])
        sides.append(value())
    for name, p in parameters.items():
        p.set_value(before[name])
    one.run()
    slope = sum(((before[n] - p.numpy()) * directions[n]).sum() for n, p in parameters.items())
    np.testing.assert_allclose(slope / 1e-6, (sides[0] - sides[1]) / 2e-5, rtol=1e-4)


def test_ema_is_what_is_kept(datasets):
    one = trainer(datasets, ema=0.9, steps=6, validate_every=None)
    values = []
    update = one.average.update

    def spy(step):
        update(step)
        values.append([p.numpy() for p in one._parameters])

    start = [p.numpy() for p in one._parameters]
    one.average.update = spy
    one.validation = None
    one.run()
    averages = start
    for step, value in enumerate(values):
        decay = min(0.9, (1 + step) / (10 + step))
        averages = [decay * a + (1 - decay) * v for a, v in zip(averages, value, strict=True)]
    for parameter, average in zip(one._parameters, averages, strict=True):
        np.testing.assert_allclose(parameter.numpy(), average, rtol=1e-5, atol=1e-7)


def test_reference_and_scale(datasets):
    train, _, config = datasets
    one = trainer(datasets, reference={"Cu": -1.0, "Au": -2.0}, scale=0.25)
    assert one.potential.reference_energies.numpy().tolist() == [-1.0, -2.0]
    assert float(one.potential.scale) == 0.25
    one = trainer(datasets)
    energies = np.concatenate([one_.forces.ravel() for one_ in train.structures])
    np.testing.assert_allclose(float(one.potential.scale), np.sqrt((energies**2).mean()))
    with pytest.raises(ValueError, match="differs in Ag"):
        trainer(datasets, reference={"Cu": 1.0, "Au": 1.0, "Ag": 1.0})


def test_refusals(datasets, tmp_path):
    train, validation, config = datasets
    bare = [dataclasses.replace(one, virial=None) for one in train.structures]
    bare_set = Dataset(bare, elements=config.elements, cutoff=config.cutoff)
    with pytest.raises(ValueError, match="loss.virial has a weight"):
        trainer((bare_set, validation, config), loss=LossSettings(virial=1.0))
    with pytest.raises(ValueError, match="monitor='virial': no validation structure"):
        trainer((train, bare_set, config), monitor="virial")
    other = dataclasses.replace(config, cutoff=4.0)
    with pytest.raises(ValueError, match="neighbours within 3.6 Å, the potential looks 4.0"):
        trainer((train, validation, other))
    other = dataclasses.replace(config, elements=("Au", "Cu"))
    with pytest.raises(ValueError, match="has the elements Cu, Au"):
        trainer((train, validation, other))
    with pytest.raises(ValueError, match="no run to resume"):
        trainer(datasets, tmp_path).resume()
    one = trainer(datasets, tmp_path, steps=2)
    one.run()
    wider = dataclasses.replace(config, features=24)
    with pytest.raises(ValueError, match="another potential"):
        trainer((train, validation, wider), tmp_path).resume()
    file = tmp_path / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged or cut short"):
        trainer(datasets, tmp_path).resume()


def test_virials_are_learned_too(datasets):
    one = trainer(
        datasets,
        steps=60,
        validate_every=60,
        learning_rate=FAST,
        ema=0.9,
        loss=LossSettings(energy=1.0, virial=1.0),
    )
    before = predict(one.potential, datasets[1]).stress.rmse
    assert one.run().predictions.stress.rmse < 0.5 * before
