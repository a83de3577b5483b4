"""Evaluations do not depend on whether it is known which edge leads back."""

from dataclasses import replace

import ase.build
import numpy as np
import paddle
import pytest

from oarlock.sci_md.evaluate import EagerEvaluator
from oarlock.sci_md.neighbours import find_neighbours
from oarlock.sci_md.potentials import build, config_from_dict
from oarlock.sci_md.structure import Structure


@pytest.mark.parametrize("model", ["schnet", "painn"])
@pytest.mark.parametrize("repeat", [(1, 1, 1), (3, 2, 2)])
def test_pairs_give_what_edges_give(model, repeat):
    paddle.seed(0)
    fields = {"elements": ["Cu"], "cutoff": 4.0, "features": 12, "layers": 2, "dtype": "float64"}
    evaluator = EagerEvaluator(build(config_from_dict({"model": model, **fields})))
    crystal = ase.build.bulk("Cu", cubic=True) * repeat
    crystal.rattle(0.1, seed=1)
    pairs = find_neighbours(Structure.from_ase(crystal), ("Cu",), 4.5)
    edges = replace(pairs, reverse=None)
    ours, wanted = evaluator.evaluate(pairs), evaluator.evaluate(edges)
    assert ours.energy == pytest.approx(wanted.energy, rel=1e-12)
    np.testing.assert_allclose(ours.forces, wanted.forces, atol=1e-12)
    np.testing.assert_allclose(ours.virial, wanted.virial, atol=1e-12)
    virials = evaluator.atomic_virials(pairs)
    np.testing.assert_allclose(virials, evaluator.atomic_virials(edges), atol=1e-12)
    np.testing.assert_allclose(virials.sum(axis=0), ours.virial, atol=1e-12)


def test_an_atom_without_neighbours():
    evaluator = EagerEvaluator(build(config_from_dict({"model": "schnet", "elements": ["Cu"]})))
    alone = Structure(
        numbers=np.array([29]),
        positions=np.zeros((1, 3)),
        cell=np.zeros((3, 3)),
        pbc=np.zeros(3, dtype=bool),
    )
    found = evaluator.evaluate(find_neighbours(alone, ("Cu",), 5.0))
    assert np.isfinite(found.energy)
    np.testing.assert_array_equal(found.forces, np.zeros((1, 3)))
    np.testing.assert_array_equal(found.virial, np.zeros((3, 3)))
