"""SchNet and PaiNN of SchNetPack 2, taken over with their parameters.

Reading SchNetPack's own file needs ``torch`` and ``schnetpack``, which this package does not depend on;
`from_state` needs neither.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import paddle
from ase.data import atomic_numbers
from numpy.typing import NDArray

from oarlock.sci_md.potentials.base import Potential
from oarlock.sci_md.potentials.painn import EPSILON, PaiNNConfig
from oarlock.sci_md.potentials.registry import build
from oarlock.sci_md.potentials.schnet import SchNetConfig

State = Mapping[str, NDArray[Any]]

#: Functions inside the networks: SchNetPack's names of them at the places where they can be chosen.
ACTIVATIONS = {"SchNet": "shifted_softplus", "PaiNN": "silu", "Atomwise": "silu"}


def load_schnetpack(
    path: str | Path,
    *,
    elements: Sequence[str],
    energy_unit: float = 1.0,
    length_unit: float = 1.0,
    dtype: Literal["float32", "float64"] = "float32",
) -> Potential:
    """The potential of a file that SchNetPack's training wrote (``best_model``).

    Such files can hold programs: load only those of people you trust.

    Args: see `from_state`.

    Raises:
        ValueError: no such file, or a model that has no equal here; the message says in what.
    """
    if not Path(path).is_file():
        raise ValueError(f"path={str(path)!r} is no file")
    try:
        import schnetpack  # noqa: F401 # pants: no-infer-dep
        import torch  # pants: no-infer-dep
    except ImportError as error:
        raise ValueError(
            f"reading SchNetPack's files needs {error.name}: install torch and schnetpack"
        ) from error
    model = torch.load(path, map_location="cpu", weights_only=False)
    check_model(model)
    state = {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}
    return from_state(
        state,
        elements=elements,
        energy_unit=energy_unit,
        length_unit=length_unit,
        dtype=dtype,
    )


def from_state(
    state: State,
    *,
    elements: Sequence[str],
    energy_unit: float = 1.0,
    length_unit: float = 1.0,
    dtype: Literal["float32", "float64"] = "float32",
) -> Potential:
    """The potential with the parameters of a SchNetPack model, in evaluation mode.

    A state says nothing of activation functions: those have to be SchNetPack's defaults.

    Args:
        state: arrays by the names of ``NeuralNetworkPotential.state_dict()``.
        elements: those that the model was trained on.
        energy_unit: eV, of the energy that the model gives.
        length_unit: Å, of the lengths that it was trained with.

    Raises:
        ValueError: a part that has no equal here; the message names it.
    """
    reader = _Reader(state)
    rows = [atomic_numbers[symbol] for symbol in elements]
    embedding = reader.take("representation.embedding.weight")[rows]
    cutoff = float(reader.take("representation.cutoff_fn.cutoff").item())
    bessel = "representation.radial_basis.freqs" in state
    radial = _check_basis(reader, cutoff, bessel)
    painn = "representation.filter_net.weight" in state
    blocks = {
        name.split(".")[2] for name in state if name.startswith("representation.interactions.")
    }
    kind = PaiNNConfig if painn else SchNetConfig
    potential = build(
        kind(
            elements=tuple(elements),
            cutoff=cutoff * length_unit,
            dtype=dtype,
            features=embedding.shape[1],
            layers=len(blocks),
            radial=radial,
            basis="bessel" if bessel else "gaussian",
        )
    )
    # Theirs is sin(n π r / r_c) / r, ours has norm 1.
    filters = length_unit / np.sqrt(2.0 / potential.cutoff) if bessel else 1.0
    ours = _painn(reader, len(blocks), filters) if painn else _schnet(reader, len(blocks), filters)
    ours["embedding"] = embedding
    for layer in (0, 1):
        ours |= reader.linear(f"output_modules.0.outnet.{layer}", f"readout.{layer}")
    references = np.zeros(len(rows))
    for name in sorted(state):
        if name.startswith("postprocessors.") and name.endswith(".atomref"):
            references += reader.take(name).reshape(-1)[rows]
        elif name.startswith("postprocessors.") and name.endswith(".mean"):
            references += reader.take(name).item()
    reader.finish()
    _set(potential, ours)
    potential.set_reference((references * energy_unit).tolist(), scale=energy_unit)
    potential.eval()
    return potential


def check_model(model: Any) -> None:
    """Raises ValueError, naming the part of the model that has no equal here."""
    representation = model.representation
    kind = type(representation).__name__
    if kind not in ("SchNet", "PaiNN"):
        raise ValueError(f"representation: {kind} has no equal here, SchNet and PaiNN have")
    if len(model.output_modules) == 0 or type(model.output_modules[0]).__name__ != "Atomwise":
        raise ValueError("output_modules: the first has to be Atomwise, which gives the energy")
    readout = model.output_modules[0]
    if readout.aggregation_mode != "sum":
        raise ValueError(
            f"aggregation_mode={readout.aggregation_mode!r} of Atomwise has to be 'sum'"
        )
    inner = representation.interactions[0]
    used = inner.f2out[0] if kind == "SchNet" else inner.interatomic_context_net[0]
    for name, layer in ((kind, used), ("Atomwise", readout.outnet[0])):
        function = getattr(layer.activation, "__name__", type(layer.activation).__name__)
        if function.lower() != ACTIVATIONS[name]:
            raise ValueError(f"activation={function} of {name} has to be {ACTIVATIONS[name]}")
    if kind == "PaiNN" and representation.mixing[0].epsilon != EPSILON:
        raise ValueError(f"epsilon={representation.mixing[0].epsilon} of PaiNN has to be {EPSILON}")
    for step in model.postprocessors:
        if type(step).__name__ not in ("AddOffsets", "CastTo64", "CastTo32"):
            raise ValueError(f"postprocessors: {type(step).__name__} has no equal here")
        if type(step).__name__ == "AddOffsets" and not step.is_extensive:
            raise ValueError("postprocessors: AddOffsets has to have is_extensive=True")


class _Reader:
    """Takes arrays out of a state and knows what is left."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.taken: set[str] = set()

    def take(self, name: str) -> NDArray[Any]:
        if name not in self.state:
            raise ValueError(f"state has no {name}: it is no SchNet or PaiNN of SchNetPack 2")
        self.taken.add(name)
        return np.asarray(self.state[name], dtype=np.float64)

    def linear(self, theirs: str, ours: str, *, bias: bool = True) -> dict[str, NDArray[Any]]:
        """Torch has weights as [out, in], Paddle as [in, out]."""
        arrays = {f"{ours}.weight": self.take(f"{theirs}.weight").T}
        return arrays | ({f"{ours}.bias": self.take(f"{theirs}.bias")} if bias else {})

    def finish(self) -> None:
        left = sorted(set(self.state) - self.taken)
        if left:
            raise ValueError(f"state has {', '.join(left[:5])}, which has no equal here")


def _check_basis(reader: _Reader, cutoff: float, bessel: bool) -> int:
    """How many functions of the distance; they have to be where ours are."""
    if bessel:
        frequencies = reader.take("representation.radial_basis.freqs")
        right = np.pi / cutoff * np.arange(1, len(frequencies) + 1)
        if not np.allclose(frequencies, right, rtol=1e-5):
            raise ValueError("radial_basis.freqs of state are not n π / cut-off")
        return len(frequencies)
    offsets = reader.take("representation.radial_basis.offsets")
    widths = reader.take("representation.radial_basis.widths")
    right = np.linspace(0.0, cutoff, len(offsets))
    if not (np.allclose(offsets, right, atol=1e-5) and np.allclose(widths, right[1], atol=1e-5)):
        raise ValueError(
            "radial_basis of state: Gaussians have to be as wide as they are apart, from 0 to the "
            "cut-off, and not trained"
        )
    return len(offsets)


def _schnet(reader: _Reader, layers: int, filters: float) -> dict[str, NDArray[Any]]:
    ours: dict[str, NDArray[Any]] = {}
    for layer in range(layers):
        theirs, mine = f"representation.interactions.{layer}", f"interactions.{layer}"
        ours |= reader.linear(f"{theirs}.in2f", f"{mine}.into", bias=False)
        for part in (0, 1):
            ours |= reader.linear(f"{theirs}.filter_network.{part}", f"{mine}.filter.{part}")
            ours |= reader.linear(f"{theirs}.f2out.{part}", f"{mine}.out.{part}")
        ours[f"{mine}.filter.0.weight"] = filters * ours[f"{mine}.filter.0.weight"]
    return ours


def _painn(reader: _Reader, layers: int, filters: float) -> dict[str, NDArray[Any]]:
    ours: dict[str, NDArray[Any]] = {}
    net = reader.linear("representation.filter_net", "net")
    net["net.weight"] = filters * net["net.weight"]
    shared = net["net.bias"].size == 3 * reader.state["representation.embedding.weight"].shape[1]
    for layer in range(layers):
        theirs = f"representation.interactions.{layer}.interatomic_context_net"
        mixing = f"representation.mixing.{layer}"
        for name in ("weight", "bias"):
            pieces = (
                [net[f"net.{name}"]] if shared else np.split(net[f"net.{name}"], layers, axis=-1)
            )
            ours[f"messages.{layer}.filter.{name}"] = pieces[0 if shared else layer]
        for part in (0, 1):
            ours |= reader.linear(f"{theirs}.{part}", f"messages.{layer}.context.{part}")
            ours |= reader.linear(
                f"{mixing}.intraatomic_context_net.{part}", f"updates.{layer}.context.{part}"
            )
        ours |= reader.linear(f"{mixing}.mu_channel_mix", f"updates.{layer}.mix", bias=False)
    return ours


def _set(potential: Potential, arrays: dict[str, NDArray[Any]]) -> None:
    parameters = dict(potential.named_parameters())
    if set(parameters) != set(arrays):
        raise ValueError(f"state does not give {', '.join(sorted(set(parameters) ^ set(arrays)))}")
    for name, parameter in parameters.items():
        if list(arrays[name].shape) != list(parameter.shape):
            raise ValueError(
                f"state gives {name} the shape {list(arrays[name].shape)}, here it has "
                f"{list(parameter.shape)}: widths of filters and readout have no choice here"
            )
        parameter.set_value(paddle.to_tensor(arrays[name], dtype=parameter.dtype))
