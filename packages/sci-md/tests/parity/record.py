"""Record what the public implementations of message-passing potentials give, with their parameters.

Needs PyTorch, SchNetPack and DIG, which this package does not depend on:

    python record.py  # writes schnet.npz, painn.npz, … beside this file

Last recorded with torch 2.13.0, schnetpack 2.1.1, dive-into-graphs 1.1.0 and numpy 1.26.4.
"""

import sys
import types
import typing
from pathlib import Path

import numpy as np
import torch
import torch.utils.data.dataloader
from ase.neighborlist import primitive_neighbor_list
from scipy.special import spherical_jn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[3] / "integration" / "oarlock" / "accept" / "peers" / "dig"))

import published  # noqa: E402

CUTOFF = 3.5
torch.utils.data.dataloader.T_co = typing.TypeVar("T_co")  # schnetpack 2.1.1 looks for it there


def structures():
    """(numbers, positions, cell, pbc): a cluster, and a sheared box narrower than twice the cut-off."""
    rng = np.random.default_rng(11)
    for pbc, cell in (
        (False, np.diag([4.0, 4.0, 4.0])),
        (True, np.array([[4.3, 0.0, 0.0], [0.8, 4.6, 0.0], [-0.5, 0.7, 4.1]])),
    ):
        places = []
        while len(places) < 6:
            place = rng.random(3) @ cell
            if all(np.linalg.norm(place - other) > 1.2 for other in places):
                places.append(place)
        yield np.array([8, 1, 1, 8, 1, 1]), np.array(places), cell, pbc


def perturb(model):
    """Biases and output layers too should not be zero."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.1 * noise)


def schnetpack_model(kind, basis, shared):
    import schnetpack as spk
    from schnetpack.transform import AddOffsets, CastTo64

    radial = spk.nn.BesselRBF(5, CUTOFF) if basis == "bessel" else spk.nn.GaussianRBF(8, CUTOFF)
    options = {"n_atom_basis": 8, "n_interactions": 2, "radial_basis": radial}
    options["cutoff_fn"] = spk.nn.CosineCutoff(CUTOFF)
    if kind == "PaiNN":
        options["shared_filters"] = shared
    representation = getattr(spk.representation, kind)(**options)
    offsets = AddOffsets("energy", add_mean=True, add_atomrefs=True)
    offsets.atomref = torch.linspace(-2.0, 3.0, 100, dtype=torch.float64)
    offsets.mean = torch.tensor([0.37], dtype=torch.float64)
    model = spk.model.NeuralNetworkPotential(
        representation,
        input_modules=[spk.atomistic.PairwiseDistances()],
        output_modules=[
            spk.atomistic.Atomwise(n_in=8, output_key="energy"),
            spk.atomistic.Forces(energy_key="energy", force_key="forces"),
        ],
        postprocessors=[CastTo64(), offsets],
    ).double()
    # They are rounded to float32 where the model is made.
    representation.cutoff_fn.cutoff = torch.tensor([CUTOFF], dtype=torch.float64)
    if basis == "bessel":
        radial.freqs = torch.arange(1, 6, dtype=torch.float64) * (np.pi / CUTOFF)
    else:
        radial.offsets = torch.linspace(0.0, CUTOFF, 8, dtype=torch.float64)
        radial.widths = torch.full((8,), CUTOFF / 7, dtype=torch.float64)
    perturb(model)
    return model


def run_schnetpack(model):
    import schnetpack.properties as names

    for numbers, positions, cell, pbc in structures():
        i, j, shifts = primitive_neighbor_list("ijS", [pbc] * 3, cell, positions, CUTOFF)
        result = model(
            {
                names.Z: torch.tensor(numbers),
                names.R: torch.tensor(positions),
                names.idx_i: torch.tensor(i),
                names.idx_j: torch.tensor(j),
                names.idx_m: torch.zeros(len(numbers), dtype=torch.long),
                names.n_atoms: torch.tensor([len(numbers)]),
                names.offsets: torch.tensor(shifts @ cell),
                names.cell: torch.tensor(cell)[None],
                names.pbc: torch.tensor([pbc] * 3),
            }
        )
        yield result["energy"].item(), result["forces"].detach().numpy()


def spherenet_model(spherical, exact):
    def radius_graph(positions, r, batch):
        gaps = torch.cdist(positions.detach(), positions.detach())
        target, source = torch.nonzero((gaps < r) & (gaps > 0), as_tuple=True)
        return torch.stack([source, target])

    module, features = published.spherenet(radius_graph)
    rounded = features.Jn_zeros
    if exact:  # DIG rounds the zeros of the Bessel functions to float32: Newton's step mends them

        def mended(orders, count):
            zeros = rounded(orders, count).astype(np.float64)
            n = np.arange(orders)[:, None]
            return zeros - spherical_jn(n, zeros) / spherical_jn(n, zeros, derivative=True)

        features.Jn_zeros = mended
    model = module.SphereNet(
        energy_and_force=True,
        cutoff=CUTOFF,
        num_layers=2,
        hidden_channels=8,
        int_emb_size=6,
        basis_emb_size_dist=4,
        basis_emb_size_angle=4,
        basis_emb_size_torsion=4,
        out_emb_channels=8,
        num_spherical=spherical,
        num_radial=4,
        num_output_layers=1,
    ).double()
    perturb(model)
    return model


def run_spherenet(model):
    numbers, positions, _, _ = next(structures())
    batch = types.SimpleNamespace(
        z=torch.tensor(numbers),
        pos=torch.tensor(positions),
        batch=torch.zeros(len(numbers), dtype=torch.long),
    )
    energy = model(batch).sum()
    (slope,) = torch.autograd.grad(energy, batch.pos)
    yield energy.item(), -slope.numpy()


def write(name, model, results):
    torch.set_default_dtype(torch.float64)
    arrays = {f"state/{key}": value.detach().numpy() for key, value in model.state_dict().items()}
    for index, ((numbers, positions, cell, pbc), (energy, forces)) in enumerate(
        zip(structures(), results, strict=False)
    ):
        arrays |= {
            f"{index}/numbers": numbers,
            f"{index}/positions": positions,
            f"{index}/cell": cell,
            f"{index}/pbc": np.array([pbc] * 3),
            f"{index}/energy": np.array(energy),
            f"{index}/forces": forces,
        }
    np.savez_compressed(HERE / f"{name}.npz", **arrays)
    torch.set_default_dtype(torch.float32)


def main():
    for name, arguments in {
        "schnet": ("SchNet", "gaussian", False),
        "schnet-bessel": ("SchNet", "bessel", False),
        "painn": ("PaiNN", "gaussian", False),
        "painn-bessel-shared": ("PaiNN", "bessel", True),
    }.items():
        torch.manual_seed(0)
        model = schnetpack_model(*arguments)
        write(name, model, run_schnetpack(model))
    for name, arguments in {"spherenet": (3, False), "spherenet-exact": (5, True)}.items():
        torch.manual_seed(0)
        model = spherenet_model(*arguments)
        write(name, model, run_spherenet(model))


if __name__ == "__main__":
    main()
