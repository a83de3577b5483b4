"""Files of every kind, and the options that each of them has."""

import numpy as np
import paddle
import pytest
from oarlock.sci_md.deepmd import save_deepmd
from oarlock.sci_md.evaluate import (
    DeepmdEvaluator,
    EagerEvaluator,
    FrozenEvaluator,
    NativeDeepPotential,
    freeze,
    open_evaluator,
    opening,
)
from oarlock.sci_md.evaluate.probe import passes_messages
from oarlock.sci_md.neighbours import find_neighbours
from oarlock.sci_md.potentials import DeepPotentialConfig, SchNetConfig, build, save
from oarlock.sci_md.structure import Structure


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    paddle.seed(5)
    schnet = build(
        SchNetConfig(
            elements=("O", "H"), cutoff=3.0, dtype="float64", features=4, layers=1, radial=4
        )
    )
    deep = build(
        DeepPotentialConfig(
            elements=("O", "H"),
            cutoff=3.0,
            smooth=1.0,
            dtype="float64",
            embedding=(4, 8),
            axis=2,
            fitting=(8, 8),
            sel=(20, 40),
        )
    )
    for potential in (schnet, deep):
        potential.set_reference([-3.0, -1.0], 1.5)
    save(schnet, folder / "schnet.safetensors")
    save(deep, folder / "deep.safetensors")
    freeze(schnet, folder / "frozen")
    save_deepmd(deep, folder / "deep.pd")
    save_deepmd(deep, folder / "deep.dp")
    (folder / "notes.txt").write_text("no potential")
    return folder


@pytest.fixture(scope="module")
def atoms():
    generator = np.random.default_rng(2)
    structure = Structure(
        numbers=generator.choice([1, 8], 12),
        positions=generator.uniform(0, 6, (12, 3)),
        cell=np.eye(3) * 6,
        pbc=np.array([True] * 3),
    )
    return find_neighbours(structure, ("O", "H"), 3.0)


@pytest.mark.parametrize(
    ("name", "options", "kind"),
    [
        ("schnet.safetensors", {}, EagerEvaluator),
        ("schnet.safetensors", {"native": False, "threads": 1}, EagerEvaluator),
        ("deep.safetensors", {}, NativeDeepPotential),
        ("deep.safetensors", {"native": True, "threads": 2}, NativeDeepPotential),
        ("deep.safetensors", {"native": False}, EagerEvaluator),
        ("deep.pd", {}, NativeDeepPotential),
        ("deep.pd", {"native": False}, DeepmdEvaluator),
        ("deep.dp", {}, NativeDeepPotential),
        ("frozen", {"dtype": "float64"}, FrozenEvaluator),
        ("frozen/frozen.json", {}, FrozenEvaluator),
    ],
)
def test_each_file_has_its_evaluator(files, name, options, kind):
    assert type(open_evaluator(files / name, **options)) is kind


def test_the_same_potential_in_all_forms(files, atoms):
    for names in (
        [("schnet.safetensors", {}), ("frozen", {})],
        [("deep.safetensors", {}), ("deep.safetensors", {"native": False})],
        [("deep.safetensors", {}), ("deep.pd", {})],
        [("deep.pd", {}), ("deep.pd", {"native": False})],
    ):
        first, second = [
            open_evaluator(files / name, **given).evaluate(atoms) for name, given in names
        ]
        np.testing.assert_allclose(first.forces, second.forces, atol=1e-10)
        assert first.energy == pytest.approx(second.energy, abs=1e-10)


@pytest.mark.parametrize("name", ["schnet.safetensors", "deep.safetensors"])
def test_in_single_precision(files, atoms, name):
    double = open_evaluator(files / name).evaluate(atoms)
    single = open_evaluator(files / name, dtype="float32").evaluate(atoms)
    scale = np.abs(double.forces).max()
    assert 1e-9 * scale < np.abs(single.forces - double.forces).max() < 1e-4 * scale
    assert single.energy == pytest.approx(double.energy, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("absent.safetensors", {}, "does not exist: give a potential"),
        ("notes.txt", {}, "is of no known kind"),
        ("schnet.safetensors", {"dtype": "float16"}, "dtype='float16' has to be"),
        ("schnet.safetensors", {"threads": 0}, "threads=0 has to be"),
        ("schnet.safetensors", {"native": True}, "native=True: .* of the kind schnet"),
        ("schnet.safetensors", {"compressed": True}, "compressed=True: .* no native engine"),
        ("deep.safetensors", {"compressed": True, "native": False}, "needs the native engine"),
        ("deep.safetensors", {"device": "gpu"}, "device='gpu' computes with tables"),
        ("deep.safetensors", {"device": "tpu"}, "device='tpu'"),
        ("deep.pd", {"native": False, "dtype": "float32"}, "it is run by DeePMD-kit"),
        ("frozen", {"native": True}, "native=True: .* a frozen program"),
        ("frozen", {"dtype": "float32"}, "was frozen in float64"),
    ],
)
def test_refusals(files, name, options, message):
    with pytest.raises(ValueError, match=message):
        open_evaluator(files / name, **options)


@pytest.mark.parametrize("layers", [1, 2])
def test_whether_messages_pass_is_found_out(layers):
    config = SchNetConfig(
        elements=("O", "H"), cutoff=3.0, dtype="float64", features=4, layers=layers, radial=4
    )
    assert passes_messages(EagerEvaluator(build(config))) == (layers > 1)


def test_a_frozen_program_of_deepmd_that_passes_messages_is_refused(tmp_path, monkeypatch):
    config = SchNetConfig(elements=("O", "H"), cutoff=3.0, dtype="float64", features=4, layers=2)
    (tmp_path / "dpa2.json").write_text("{}")
    monkeypatch.setattr(opening, "DeepmdEvaluator", lambda path: EagerEvaluator(build(config)))
    with pytest.raises(ValueError, match="passes messages.* give the checkpoint"):
        open_evaluator(tmp_path / "dpa2.json")
