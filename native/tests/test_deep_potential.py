"""Deep Potentials against the oracle, on every code path, and what is refused."""

import dataclasses

import numpy as np
import pytest

from oarlock import native
from oarlock.native import deep_potential as dp
from oarlock.native._deep_potential_model import embed
from oarlock.native.reference.atoms import deep_potential as reference

PATHS = native.info().paths
# kinds, one side, embedding, axis, fitting: widths that fill no vector, stay, double, and neither.
SHAPES = [
    (1, True, (4, 8), 3, (6, 6)),
    (2, True, (25, 50, 100), 16, (24, 24)),
    (3, False, (5, 10, 10, 7), 7, (9, 18, 18, 5)),
    (2, True, (1, 2, 3), 1, (3,)),
]


def network(rng, widths: tuple[int, ...]) -> list[dp.Layer]:
    layers = []
    for inputs, outputs in zip(widths[:-1], widths[1:]):
        shortcut = outputs in (inputs, 2 * inputs)
        layers.append(
            dp.Layer(
                weight=rng.normal(0, (inputs + outputs) ** -0.5, (inputs, outputs)),
                bias=rng.normal(0, 1, outputs),
                timestep=rng.normal(0.5, 0.2, outputs) if shortcut else None,
            )
        )
    return layers


def model_of(shape, seed: int = 0, mean: float = 0.1) -> dp.Model:
    kinds, one_side, embedding, axis, fitting = shape
    rng = np.random.default_rng(seed)
    return dp.Model(
        cutoff=4.0,
        smooth=1.0,
        axis=axis,
        one_side=one_side,
        mean=rng.uniform(0, mean, (kinds, 4)),
        deviation=rng.uniform(0.1, 0.2, (kinds, 4)),
        sel=np.full(kinds, 20.0),
        reference=rng.normal(size=kinds),
        scale=0.7,
        embeddings=[network(rng, (1, *embedding)) for _ in range(kinds if one_side else kinds**2)],
        fittings=[
            network(rng, (embedding[-1] * axis, *fitting)) + network(rng, (fitting[-1], 1))
            for _ in range(kinds)
        ],
    )


def atoms_of(kinds: int, count: int = 70, box: float = 9.0, seed: int = 0):
    """Positions, species and lists of a periodic box, with a skin of 0.3 Å."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(count ** (1 / 3)))
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3), axis=-1).reshape(-1, 3)[:count]
    positions = grid * (box / side) + rng.uniform(-0.3, 0.3, (count, 3))
    offsets, neighbours, shifts = [0], [], []
    steps = np.stack(np.meshgrid(*[(-1, 0, 1)] * 3), axis=-1).reshape(-1, 3) * box
    for i in range(count):
        away = positions[None, :] + steps[:, None] - positions[i]
        step, j = np.nonzero(np.square(away).sum(-1) < 4.3**2)
        keep = (j != i) | steps[step].any(1)
        neighbours += j[keep].tolist()
        shifts += steps[step][keep].tolist()
        offsets.append(len(neighbours))
    species = rng.integers(0, kinds, count).astype(np.int32)
    return (
        (positions, species, np.array(offsets), np.array(neighbours, np.int32)),
        np.array(shifts, float),
    )


def check(found: dp.Result, expected, tolerance: float) -> None:
    energies, forces, virial = expected
    np.testing.assert_allclose(found.energies, energies, rtol=0, atol=tolerance)
    np.testing.assert_allclose(found.forces, forces, rtol=0, atol=tolerance * np.abs(forces).max())
    np.testing.assert_allclose(found.virial, virial, rtol=0, atol=tolerance * np.abs(virial).max())


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_oracle(shape, path):
    model = model_of(shape)
    atoms, shifts = atoms_of(model.kinds)
    expected = reference.evaluate(model, *atoms, shifts=shifts)
    tables = dp.compress(model, closest=1.0, tolerance=1e-8)
    with native.forced_path(path):
        for precision, tolerance in (("float64", 1e-13), ("float32", 5e-6)):
            exact = dp.DeepPotential(model, precision=precision)
            check(exact.evaluate(*atoms, shifts=shifts), expected, tolerance)
            tabled = dp.DeepPotential(model, precision=precision, tables=tables)
            check(tabled.evaluate(*atoms, shifts=shifts), expected, max(tolerance, 1e-7))


@pytest.mark.parametrize("compressed", [False, True])
def test_same_bits_for_any_number_of_threads(compressed):
    model = model_of(SHAPES[1])
    atoms, shifts = atoms_of(model.kinds, count=150, box=12.0)
    tables = dp.compress(model, closest=1.0) if compressed else None
    engine = dp.DeepPotential(model, tables=tables)
    one, *others = (engine.evaluate(*atoms, shifts=shifts, threads=n) for n in (1, 2, 5))
    for other in others:
        for name in ("energies", "forces", "virial"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_the_oracle_s_forces_are_slopes():
    model = model_of(SHAPES[2])
    (positions, *lists), shifts = atoms_of(model.kinds, count=30, box=7.0)
    _, forces, _ = reference.evaluate(model, positions, *lists, shifts=shifts)
    sides = []
    for step in (1e-5, -1e-5):
        moved = positions.copy()
        moved[3, 1] += step
        sides.append(reference.evaluate(model, moved, *lists, shifts=shifts)[0].sum())
    assert forces[3, 1] == pytest.approx((sides[1] - sides[0]) / 2e-5, rel=1e-6)


def test_owned_atoms_count_and_others_are_pushed():
    model = model_of(SHAPES[1])
    atoms, shifts = atoms_of(model.kinds)
    found = dp.DeepPotential(model).evaluate(*atoms, shifts=shifts, owned=20)
    check(found, reference.evaluate(model, *atoms, shifts=shifts, owned=20), 1e-13)
    nobody = dp.DeepPotential(model).evaluate(*atoms, shifts=shifts, owned=0)
    assert len(nobody.energies) == 0 and not nobody.forces.any() and not nobody.virial.any()


def test_virials_of_atoms_sum_to_the_virial():
    model = model_of(SHAPES[1])
    atoms, shifts = atoms_of(model.kinds)
    for owned in (20, 70):
        found = dp.DeepPotential(model).evaluate(*atoms, shifts=shifts, owned=owned, virials=True)
        np.testing.assert_allclose(found.virials.sum(0), found.virial, atol=1e-12)
    alone = dp.DeepPotential(model).evaluate(*atoms, shifts=shifts, owned=1)
    np.testing.assert_allclose(found.virials[0], alone.virial, atol=1e-12)


@pytest.mark.parametrize("compressed", [False, True])
def test_an_atom_without_neighbours(compressed):
    model = model_of(SHAPES[1])
    lone = (np.zeros((1, 3)), np.zeros(1, np.int32), np.zeros(2, int), np.zeros(0, np.int32))
    tables = dp.compress(model, closest=1.0, tolerance=1e-9) if compressed else None
    found = dp.DeepPotential(model, tables=tables).evaluate(*lone)
    expected = reference.evaluate(model, *lone)[0]
    np.testing.assert_allclose(found.energies, expected, atol=1e-8)
    assert not found.forces.any()


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[2]], ids=str)
def test_tables_keep_their_tolerance_where_nobody_looked(shape):
    model = model_of(shape)
    for number, table in enumerate(dp.compress(model, closest=1.0, tolerance=1e-6)):
        last = table.first + table.step * (len(table.nodes) - 1)
        numbers = np.random.default_rng(1).uniform(table.first, last, 3000)
        value, slope, _ = embed(model.embeddings[number], numbers)
        assert max(table.error, table.slope_error) <= 1e-6
        np.testing.assert_allclose(table(numbers)[0], value, atol=1.5e-6)
        np.testing.assert_allclose(table(numbers)[1], slope, atol=1.5e-6)


def test_not_a_number_reaches_the_results():
    model = model_of(SHAPES[0])
    (positions, *lists), shifts = atoms_of(model.kinds)
    positions[5] = np.nan
    found = dp.DeepPotential(model).evaluate(positions, *lists, shifts=shifts)
    assert np.isnan(found.energies[5]) and np.isnan(found.forces[5]).all()


def test_refuses_bad_atoms():
    model = model_of(SHAPES[1])
    (positions, species, offsets, neighbours), shifts = atoms_of(model.kinds)
    engine = dp.DeepPotential(model)

    def evaluate(**changes):
        given = {"positions": positions, "species": species, "offsets": offsets}
        given |= {"neighbours": neighbours, "shifts": shifts} | changes
        return engine.evaluate(**given)

    with pytest.raises(ValueError, match=r"species\[0\] is 2"):
        evaluate(species=species + 2 - species[0])
    with pytest.raises(ValueError, match="offsets"):
        evaluate(offsets=offsets[:-1])
    with pytest.raises(ValueError, match="offsets have to rise"):
        evaluate(offsets=np.concatenate([[0], [offsets[2]], offsets[1:2], offsets[3:]]))
    with pytest.raises(ValueError, match="not among the 70 atoms"):
        evaluate(neighbours=neighbours + 1)
    with pytest.raises(ValueError, match="shifts has shape"):
        evaluate(shifts=shifts[1:])
    with pytest.raises(ValueError, match="owned=71"):
        evaluate(owned=71)
    together = positions.copy()
    together[1] = together[0] + 1e-4
    with pytest.raises(ValueError, match="overlap"):
        evaluate(positions=together)
    close = positions.copy()
    close[1] = close[0] + [0.9, 0, 0]
    tabled = dp.DeepPotential(model, tables=dp.compress(model, closest=1.0))
    with pytest.raises(ValueError, match="closer than the tables reach"):
        tabled.evaluate(close, species, offsets, neighbours, shifts=shifts)


def test_refuses_bad_models():
    model = model_of(SHAPES[1])
    for changes, says in (
        ({"axis": 101}, "axis"),
        ({"smooth": 4.0}, "smooth"),
        ({"deviation": model.deviation * 0}, "deviation"),
        ({"mean": model.mean[:1]}, "mean has shape"),
        ({"embeddings": model.embeddings[:1]}, "embeddings"),
        ({"fittings": [model.fittings[0][1:]] * 2}, "fitting layer 0 has"),
        ({"embeddings": [model.embeddings[0], model.embeddings[1][:-1]]}, "as many layers"),
    ):
        with pytest.raises(ValueError, match=says):
            dp.DeepPotential(dataclasses.replace(model, **changes))
    with pytest.raises(ValueError, match="precision"):
        dp.DeepPotential(model, precision="float16")
    with pytest.raises(ValueError, match="not reached"):
        dp.compress(model_of(SHAPES[3]), closest=0.1, tolerance=1e-30)
    with pytest.raises(ValueError, match="closest"):
        dp.compress(model, closest=5.0)
