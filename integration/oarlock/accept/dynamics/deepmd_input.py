"""What DeePMD-kit reads to train a Deep Potential, for us and for its PyTorch backend."""

from collections.abc import Mapping, Sequence
from typing import Any

#: Sizes that DeePMD-kit's examples have.
EXAMPLE: Mapping[str, Any] = {"embedding": [25, 50, 100], "axis": 16, "fitting": [120, 120, 120]}


def values(
    systems: Sequence[str],
    *,
    elements: Sequence[str],
    sel: Sequence[int],
    cutoff: float,
    network: Mapping[str, Any],
    rate: tuple[float, float],
    seed: int,
    smooth: float = 0.5,
    one_side: bool = True,
    precision: str = "float32",
) -> dict[str, Any]:
    """The contents of input.json, but for how many steps: `se_e2_a`, one structure a step, and the weights of the
    loss in DeePMD-kit's examples.

    Args:
        systems: folders.
        sel: the most neighbours of each element.
        cutoff, smooth: Å.
        network: embedding, axis and fitting.
        rate: of learning, first and last.
        one_side: whether an embedding network knows the neighbour's element only (DeePMD-kit's default: False).
    """
    return {
        "model": {
            "type_map": list(elements),
            "descriptor": {
                "type": "se_e2_a",
                "sel": list(sel),
                "rcut": cutoff,
                "rcut_smth": smooth,
                "neuron": network["embedding"],
                "axis_neuron": network["axis"],
                "type_one_side": one_side,
                "precision": precision,
            },
            "fitting_net": {"neuron": network["fitting"], "precision": precision},
        },
        "learning_rate": {"type": "exp", "start_lr": rate[0], "stop_lr": rate[1]},
        "loss": {
            "type": "ener",
            "start_pref_e": 0.02,
            "limit_pref_e": 1,
            "start_pref_f": 1000,
            "limit_pref_f": 1,
        },
        "training": {
            "seed": seed,
            "training_data": {"systems": list(systems), "batch_size": 1},
        },
    }


def with_steps(given: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """For so many steps, over which the learning rate falls fifty times."""
    rate = {**given["learning_rate"], "decay_steps": max(1, steps // 50)}
    training = {**given["training"], "numb_steps": steps, "disp_freq": steps, "save_freq": steps}
    return {**given, "learning_rate": rate, "training": training}
