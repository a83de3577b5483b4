"""Energies and forces of the public implementations with the same parameters (see ``record.py``)."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle
import pytest

from oarlock.sci_md import keys
from oarlock.sci_md.graph import to_graph
from oarlock.sci_md.neighbours import find_neighbours
from oarlock.sci_md.potentials import SphereNetConfig, build
from oarlock.sci_md.potentials.convert_schnetpack import check_model, from_state, load_schnetpack
from oarlock.sci_md.structure import Structure

HERE = Path(__file__).parent
EV_PER_KCAL = 0.0433641


def recorded(name):
    """The peer's parameters, and its structures with their labels."""
    with np.load(HERE / f"{name}.npz") as arrays:
        state = {key[6:]: arrays[key] for key in arrays.files if key.startswith("state/")}
        count = len({key.split("/")[0] for key in arrays.files}) - 1
        structures = [
            Structure(
                **{
                    field: arrays[f"{index}/{field}"]
                    for field in ("numbers", "positions", "cell", "pbc", "energy", "forces")
                }
            )
            for index in range(count)
        ]
    return state, structures


def differences(potential, structures):
    """Of energies and of forces, by the largest of each."""
    lists = [find_neighbours(one, potential.elements, potential.cutoff) for one in structures]
    result = potential(to_graph(lists, potential.config.dtype))
    energies = np.array([one.energy for one in structures])
    forces = np.concatenate([one.forces for one in structures])
    return (
        np.abs(result[keys.ENERGY].numpy() - energies).max() / np.abs(energies).max(),
        np.abs(result[keys.FORCES].numpy() - forces).max() / np.abs(forces).max(),
    )


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize("name", ["schnet", "schnet-bessel", "painn", "painn-bessel-shared"])
def test_schnetpack(name, dtype, tolerance):
    state, structures = recorded(name)
    assert len(structures) == 2 and structures[1].pbc.all()
    potential = from_state(state, elements=["O", "H"], dtype=dtype)
    assert potential.cutoff == 3.5 and not potential.training
    assert max(differences(potential, structures)) < tolerance


def test_schnetpack_in_other_units():
    state, structures = recorded("painn-bessel-shared")
    potential = from_state(
        state, elements=["H", "O"], dtype="float64", energy_unit=EV_PER_KCAL, length_unit=0.529177
    )
    converted = [
        Structure(
            numbers=one.numbers,
            positions=0.529177 * one.positions,
            cell=0.529177 * one.cell,
            pbc=one.pbc,
            energy=EV_PER_KCAL * one.energy,
            forces=EV_PER_KCAL / 0.529177 * one.forces,
        )
        for one in structures
    ]
    assert max(differences(potential, converted)) < 1e-12


@pytest.mark.parametrize(
    "change, message",
    [
        ({"representation.embedding.weight": None}, "no SchNet or PaiNN"),
        ({"representation.cutoff_fn.eps": np.zeros(1)}, "cutoff_fn.eps, which has no equal here"),
        ({"representation.radial_basis.offsets": np.linspace(0.5, 3.5, 8)}, "as wide as they are"),
        ({"output_modules.0.outnet.1.weight": np.zeros((1, 5))}, "readout.1.weight the shape"),
    ],
)
def test_schnetpack_models_that_have_no_equal_are_refused(change, message):
    state, _ = recorded("schnet")
    state = {name: value for name, value in {**state, **change}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        from_state(state, elements=["H", "O"])


def spherenet(state, dtype):
    """Ours with the parameters of DIG's SphereNet."""
    spherical = int(round(np.sqrt(state["update_es.0.lin_t1.weight"].shape[1] / 4)))
    config = SphereNetConfig(
        elements=("H", "O"),
        cutoff=3.5,
        dtype=dtype,
        features=8,
        triplet_features=6,
        basis_features=4,
        readout_features=8,
        layers=2,
        spherical=spherical,
        radial=4,
        readout_layers=1,
        torsion="nearest",
    )
    both = np.split(state["init_e.lin.weight"], 3, axis=1)  # of centre, neighbour and distance
    ours = {
        "frequencies": state["emb.dist_emb.freq"],
        "embed.atoms": state["init_e.emb.weight"][[1, 8]],
        "embed.parts.0.weight": both[2].T,
        "embed.parts.0.bias": state["init_e.lin.bias"],
        "embed.parts.1.weight": both[0].T,
        "embed.parts.2.weight": both[1].T,
    }
    names = {"init_e.lin_rbf_0": "embed.distance", "init_e.lin_rbf_1": "embed.gate"}
    for layer in range(2):
        theirs, mine = f"update_es.{layer}.", f"rounds.{layer}."
        names |= {
            f"{theirs}lin_{short}{part + 1}": f"{mine}{long}.{part}"
            for short, long in (("rbf", "distance"), ("sbf", "angle"), ("t", "torsion"))
            for part in range(2)
        }
        names |= {
            f"{theirs}{their}": f"{mine}{my}"
            for their, my in {
                "lin_ji": "own",
                "lin_kj": "others",
                "lin_down": "down",
                "lin_up": "up",
                "lin": "skip",
                "lin_rbf": "gate",
                **{
                    f"layers_{side}_skip.{index}.lin{part + 1}": f"{side}.{index}.layers.{part}"
                    for side, count in (("before", 1), ("after", 2))
                    for index in range(count)
                    for part in range(2)
                },
            }.items()
        }
    for index, theirs in enumerate(["init_v", "update_vs.0", "update_vs.1"]):
        names |= {
            f"{theirs}.{their}": f"readouts.{index}.{my}"
            for their, my in {"lin_up": "up", "lins.0": "hidden.0", "lin": "out"}.items()
        }
    for theirs, mine in names.items():
        ours[f"{mine}.weight"] = state[f"{theirs}.weight"].T
        if f"{theirs}.bias" in state:
            ours[f"{mine}.bias"] = state[f"{theirs}.bias"]
    used = len(ours) - 2  # one matrix became three
    assert used == len(state), "every parameter of the peer has a place"
    potential = build(config)
    parameters = dict(potential.named_parameters())
    assert set(parameters) == set(ours)
    for name, parameter in parameters.items():
        parameter.set_value(paddle.to_tensor(ours[name].reshape(parameter.shape), dtype=dtype))
    potential.eval()
    return potential


@pytest.mark.parametrize(
    "name, dtype, tolerance",
    [
        ("spherenet", "float64", 1e-6),  # DIG rounds the zeros of the Bessel functions to float32
        ("spherenet-exact", "float64", 1e-11),
        ("spherenet-exact", "float32", 1e-5),
    ],
)
def test_spherenet_of_dig(name, dtype, tolerance):
    state, structures = recorded(name)
    assert max(differences(spherenet(state, dtype), structures)) < tolerance


def schnetpack_model(**changes):
    """What of SchNetPack's objects is looked at, with its defaults."""

    def named(kind, **fields):
        return type(kind, (), fields)()

    def silu(x):
        return x

    fields = {
        "kind": "PaiNN",
        "activation": silu,
        "epsilon": 1e-8,
        "mode": "sum",
        "extensive": True,
    }
    fields |= changes
    inner = SimpleNamespace(activation=fields["activation"])
    representation = named(
        fields["kind"],
        interactions=[SimpleNamespace(interatomic_context_net=[inner])],
        mixing=[SimpleNamespace(epsilon=fields["epsilon"])],
    )
    outnet = [SimpleNamespace(activation=fields.get("readout", silu))]
    return SimpleNamespace(
        representation=representation,
        output_modules=[named("Atomwise", outnet=outnet, aggregation_mode=fields["mode"])],
        postprocessors=[
            named("CastTo64"),
            named(fields.get("step", "AddOffsets"), is_extensive=fields["extensive"]),
        ],
    )


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"kind": "SO3net"}, "SO3net has no equal here"),
        ({"activation": np.tanh}, "activation=tanh|activation=ufunc"),
        ({"readout": abs}, "activation=abs of Atomwise has to be silu"),
        ({"epsilon": 1e-4}, "epsilon=0.0001"),
        ({"mode": "avg"}, "aggregation_mode='avg'"),
        ({"extensive": False}, "is_extensive=True"),
        ({"step": "ScaleProperty"}, "ScaleProperty has no equal here"),
    ],
)
def test_choices_in_schnetpack_that_a_state_does_not_show_are_refused(changes, message):
    check_model(schnetpack_model())
    with pytest.raises(ValueError, match=message):
        check_model(schnetpack_model(**changes))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is no file"):
        load_schnetpack(tmp_path / "best_model", elements=["H"])
