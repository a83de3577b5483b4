"""Deep Potentials on a GPU against the oracle and the CPU: on an emulator, and where one is on a GPU."""

import numpy as np
import pytest
from native.tests.test_deep_potential import (
    SHAPES,
    atoms_of,
    check,
    model_of,
)  # pants: no-infer-dep
from native.tests.util_cuda_lowp import Emulator, compile_for_cpu  # pants: no-infer-dep
from native.tests.util_gpu import needs_gpu  # pants: no-infer-dep

from oarlock.native import cuda
from oarlock.native import deep_potential as dp
from oarlock.native.deep_potential_cuda import DeepPotential
from oarlock.native.reference.atoms import deep_potential as reference


@pytest.fixture(scope="module")
def emulator(tmp_path_factory):
    return Emulator(compile_for_cpu(tmp_path_factory.mktemp("cuda_on_cpu"), "atoms"))


@pytest.fixture(params=["emulator", pytest.param("gpu", marks=needs_gpu)])
def place(request):
    if request.param == "gpu":
        yield None
        return
    found = request.getfixturevalue("emulator")
    found.set()
    with found.active():
        yield found


def evaluate(model, atoms, shifts, *, precision="float64", owned=None, virials=False, closest=1.0):
    positions, *lists = atoms
    tables = dp.compress(model, closest=closest, tolerance=1e-8)
    engine = DeepPotential(model, precision=precision, tables=tables)
    engine.set_lists(*lists, shifts=shifts, owned=owned)
    return engine.evaluate(positions, virials=virials)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_oracle(place, shape):
    model = model_of(shape)
    atoms, shifts = atoms_of(model.kinds)
    expected = reference.evaluate(model, *atoms, shifts=shifts)
    check(evaluate(model, atoms, shifts), expected, 1e-7)
    check(evaluate(model, atoms, shifts, precision="float32"), expected, 5e-6)


@pytest.mark.parametrize("owned", [0, 20, 70])
def test_equals_the_cpu(place, owned):
    model = model_of(SHAPES[1])
    atoms, shifts = atoms_of(model.kinds)
    tables = dp.compress(model, closest=1.0, tolerance=1e-8)
    known = dp.DeepPotential(model, tables=tables)
    expected = known.evaluate(*atoms, shifts=shifts, owned=owned, virials=True)
    found = evaluate(model, atoms, shifts, owned=owned, virials=True)
    check(found, (expected.energies, expected.forces, expected.virial), 1e-12)
    np.testing.assert_allclose(found.virials, expected.virials, rtol=0, atol=1e-12)


def test_same_bits_whichever_thread_goes_first(place):
    model = model_of(SHAPES[2])
    atoms, shifts = atoms_of(model.kinds)
    one = evaluate(model, atoms, shifts)
    if place is not None:
        place.set(backwards=True)
    other = evaluate(model, atoms, shifts)
    for name in ("energies", "forces", "virial"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_more_features_than_a_warp_takes_at_once(place):
    model = model_of((1, True, (70, 140), 4, (5,)))
    atoms, shifts = atoms_of(model.kinds, count=20, box=7.0)
    check(evaluate(model, atoms, shifts), reference.evaluate(model, *atoms, shifts=shifts), 1e-7)


def test_an_atom_without_neighbours(place):
    model = model_of(SHAPES[1])
    lone = (np.zeros((1, 3)), np.zeros(1, np.int32), np.zeros(2, int), np.zeros(0, np.int32))
    found = evaluate(model, lone, None)
    np.testing.assert_allclose(found.energies, reference.evaluate(model, *lone)[0], atol=1e-7)
    assert not found.forces.any()


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_not_a_number_reaches_the_results(place, precision):
    model = model_of(SHAPES[0])
    (positions, *lists), shifts = atoms_of(model.kinds)
    positions[5] = np.nan
    found = evaluate(model, (positions, *lists), shifts, precision=precision)
    assert np.isnan(found.energies[5]) and np.isnan(found.forces[5]).all()


def test_refuses_bad_atoms(place):
    model = model_of(SHAPES[1])
    (positions, species, offsets, neighbours), shifts = atoms_of(model.kinds)
    engine = DeepPotential(model, tables=dp.compress(model, closest=1.0))
    with pytest.raises(ValueError, match="before evaluate"):
        engine.evaluate(positions)
    engine.set_lists(species, offsets, neighbours, shifts=shifts)
    before = engine.evaluate(positions)

    def refuses(says, **changes):
        given = {"species": species, "offsets": offsets, "neighbours": neighbours} | changes
        with pytest.raises(ValueError, match=says):
            engine.set_lists(**given, shifts=shifts)

    refuses(r"species\[0\] is 2", species=species + 2 - species[0])
    refuses("offsets have to rise from", offsets=offsets[:-1])
    refuses("not among the 70 atoms", neighbours=neighbours + 1)
    refuses("not among the 70 atoms", neighbours=neighbours - 1)
    after = engine.evaluate(positions)
    np.testing.assert_array_equal(before.forces, after.forces)
    together = positions.copy()
    together[1] = together[0] + 1e-4
    with pytest.raises(ValueError, match="overlap"):
        engine.evaluate(together)
    close = positions.copy()
    close[1] = close[0] + [0.9, 0, 0]
    with pytest.raises(ValueError, match="closer than the tables reach"):
        engine.evaluate(close)
    with pytest.raises(ValueError, match="positions has shape"):
        engine.evaluate(positions[1:])
    np.testing.assert_array_equal(before.forces, engine.evaluate(positions).forces)


def test_refuses_where_no_gpu_is():
    model = model_of(SHAPES[0])
    tables = dp.compress(model, closest=1.0)
    with pytest.raises(ValueError, match="tables=None"):
        DeepPotential(model, tables=None)
    if not cuda.available():
        with pytest.raises(RuntimeError, match="liboarlock_cuda.so"):
            DeepPotential(model, tables=tables)
