"""Splits, reference energies, batches."""

import dataclasses

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oarlock.sci_md.graph import to_graph
from oarlock.sci_md.data import (
    BatchSize,
    Dataset,
    batch_count,
    batches,
    reference_energies,
    split,
    statistics,
)


@given(
    count=st.integers(5, 60),
    fraction=st.floats(0.01, 0.4),
    number=st.integers(0, 2),
    seed=st.integers(0, 5),
)
@settings(max_examples=30, deadline=None)
def test_splits_are_disjoint_and_whole(count, fraction, number, seed):
    parts = split(count, {"validation": fraction, "test": number}, seed=seed)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(count))
    assert len(parts["test"]) == number and len(parts["validation"]) == max(
        1, round(fraction * count)
    )
    again = split(count, {"validation": fraction, "test": number}, seed=seed)
    assert all((parts[name] == again[name]).all() for name in parts)


def test_given_indices_and_refusals():
    parts = split(6, {"test": [5, 1], "validation": 2})
    assert parts["test"].tolist() == [5, 1] and len(parts["train"]) == 2
    for wrong, message in [
        ({"test": [1, 1]}, "repeat"),
        ({"test": [6]}, "outside"),
        ({"test": [1], "validation": [1]}, "another part"),
        ({"test": 1.5}, "fraction below 1"),
        ({"test": 7}, "needs 7"),
        ({"test": 6}, "nothing"),
        ({"train": 2}, "do not name it"),
    ]:
        with pytest.raises(ValueError, match=message):
            split(6, wrong)


def test_reference_energies(emt):
    structures = [
        dataclasses.replace(one, energy=-3.0 * (one.numbers == 29).sum() - 5.0 * (one.numbers == 79).sum())  # fmt: skip
        for one in emt(6)
    ]
    found = reference_energies(structures, ["Au", "Cu"])
    np.testing.assert_allclose(found.energies, [-5.0, -3.0], atol=1e-10)
    assert found.residual < 1e-10 and not found.note
    one = reference_energies(structures[:1], ["Au", "Cu", "H"])  # one composition tells a sum
    assert "only sums" in one.note and "H occur nowhere" in one.note
    counts = [(structures[0].numbers == z).sum() for z in (79, 29)]
    np.testing.assert_allclose(one.energies[:2] @ counts, structures[0].energy)
    with pytest.raises(ValueError, match="none has an energy"):
        reference_energies([dataclasses.replace(structures[0], energy=None)], ["Cu"])


def test_statistics(emt):
    structures = emt(3)
    found = statistics(structures)
    assert found.structures == 3 and found.atoms == 96 and sum(found.elements.values()) == 96
    forces = np.concatenate([one.forces for one in structures])
    np.testing.assert_allclose(found.force_rms, np.sqrt((forces**2).mean()))
    assert found.labels == (3, 3, 3)


@pytest.fixture(scope="module")
def dataset(emt):
    return Dataset(emt(7) + emt(3, size=1), elements=["Cu", "Au"], cutoff=4.0)


@pytest.mark.parametrize(
    "size",
    [
        BatchSize(structures=3),
        BatchSize(structures=None, atoms=70),
        BatchSize(structures=4, edges=3000),
    ],
)
def test_batches_hold_everything_once_within_the_limits(dataset, size):
    got = list(batches(dataset, size, seed=1, epoch=2))
    assert sorted(np.concatenate(got)) == list(range(len(dataset)))
    for one in got:
        assert size.structures is None or len(one) <= size.structures
        assert size.atoms is None or dataset.atoms[one].sum() <= size.atoms or len(one) == 1
        assert size.edges is None or dataset.edges[one].sum() <= size.edges or len(one) == 1
    again = list(batches(dataset, size, seed=1, epoch=2, start=2))
    assert all((a == b).all() for a, b in zip(got[2:], again, strict=True))
    assert batch_count(dataset, size, seed=1, epoch=2) == len(got)
    other = list(batches(dataset, size, seed=1, epoch=3))
    assert any(len(a) != len(b) or (a != b).any() for a, b in zip(got, other, strict=False))


def test_a_batch_is_its_structures(dataset):
    batch = dataset.batch([2, 8], "float64")
    one, other = dataset.structures[2], dataset.structures[8]
    assert batch.graph.count == 2 and batch.graph.atoms == len(one) + len(other)
    np.testing.assert_allclose(batch.forces.numpy(), np.concatenate([one.forces, other.forces]))
    np.testing.assert_allclose(batch.virial.numpy(), [one.virial, other.virial])
    np.testing.assert_allclose(batch.energy.numpy(), [one.energy, other.energy])
    assert batch.forces_known is None and batch.forces.dtype == paddle.float64


def test_joined_graphs_are_those_of_all(dataset):
    batch = dataset.batch([2, 8, 0, 9], "float64")
    graph = to_graph([dataset.neighbourhoods[index] for index in (2, 8, 0, 9)], "float64")

    def equal(mine, other):
        assert type(mine) is type(other)
        for field in dataclasses.fields(mine):
            one, two = getattr(mine, field.name), getattr(other, field.name)
            if dataclasses.is_dataclass(one):
                equal(one, two)
            elif isinstance(one, paddle.Tensor):
                assert one.dtype == two.dtype and (one.numpy() == two.numpy()).all(), field.name
            else:
                assert one == two, field.name

    equal(batch.graph, graph)
    assert batch.graph.paired is not None


def test_missing_labels_are_masked(emt):
    one, other = emt(2)
    bare = dataclasses.replace(one, forces=None, energy=None, virial=None)
    batch = Dataset([bare, other], elements=["Cu", "Au"], cutoff=4.0).batch([0, 1])
    assert batch.forces_known.numpy().ravel().tolist() == [0.0] * len(one) + [1.0] * len(other)
    assert batch.energy_known.numpy().tolist() == [0.0, 1.0]
    assert batch.virial_known.numpy().ravel().tolist() == [0.0, 1.0]


def test_refusals(emt):
    with pytest.raises(ValueError, match="holds Au, but the potential knows Cu"):
        Dataset(emt(1), elements=["Cu"], cutoff=4.0)
    with pytest.raises(ValueError, match="structures is empty"):
        Dataset([], elements=["Cu"], cutoff=4.0)
    with pytest.raises(ValueError, match="one limit at least"):
        BatchSize(structures=None)
    with pytest.raises(ValueError, match="atoms=0"):
        BatchSize(atoms=0)
