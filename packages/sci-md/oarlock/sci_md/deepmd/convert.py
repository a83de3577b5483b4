"""Deep Potentials between DeePMD-kit and `DeepPotential`, in both directions, parameters unchanged.

What goes between is DeePMD-kit's own dictionary of a model (``serialize()``), which all its backends read.
Models other than ``se_e2_a`` with ``tanh`` are refused, and so is what `DeepPotential` has not: excluded
types, frame or atom parameters, spin.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import paddle
from paddle import nn

from oarlock.sci_md.deepmd.version import require
from oarlock.sci_md.potentials.deep_potential import DeepPotential
from oarlock.sci_md.potentials.deep_potential_config import DeepPotentialConfig
from oarlock.sci_md.potentials.deep_potential_layers import ResidualLayer
from oarlock.sci_md.potentials.registry import build

Dtype = Literal["float32", "float64"]

_PRECISIONS: dict[str, Dtype] = {
    **dict.fromkeys(("default", "double", "float64"), "float64"),
    **dict.fromkeys(("single", "float32"), "float32"),
}
_SUFFIXES = (".pd", ".dp", ".yaml", ".yml")


class UnlikeDeepPotential(ValueError):
    """A model of DeePMD-kit that no `DeepPotential` can be."""


def load_deepmd(path: str | Path, *, dtype: Dtype | None = None) -> DeepPotential:
    """The ``se_e2_a`` model of a checkpoint (``.pd``) or a portable model (``.dp``, ``.yaml``).

    Args:
        dtype: "float32" or "float64"; None for the one of the file.

    Raises:
        ValueError: no such file, of another kind, or a model that `DeepPotential` cannot be.
    """
    return from_dict(model_dict(path), dtype=dtype)


def save_deepmd(potential: DeepPotential, path: str | Path) -> None:
    """A model that DeePMD-kit reads: ``.pd`` for its Paddle backend, ``.dp`` or ``.yaml`` for all.

    Raises:
        ValueError: another ending, or a potential with ZBL, which has no place in such a file.
    """
    require()
    path = Path(path)
    if path.suffix not in _SUFFIXES:
        raise ValueError(f"path={str(path)!r} has to end in {', '.join(_SUFFIXES)}")
    model = to_dict(potential)
    unfinished = path.with_name("unfinished-" + path.name)
    if path.suffix == ".pd":
        from deepmd.pd.model.model import BaseModel, get_model

        # Some buffers exist only in models that are built from an input file.
        state = get_model(_input(potential)).state_dict()
        state.update(BaseModel.deserialize(model).state_dict())
        whole: Any = {f"model.Default.{name}": value for name, value in state.items()}
        whole["_extra_state"] = {"model_params": _input(potential), "train_infos": {"step": 0}}
        paddle.save({"model": whole}, str(unfinished))
    else:
        from deepmd.dpmodel.utils.serialization import save_dp_model

        save_dp_model(
            str(unfinished), {"model": model, "model_def_script": _input(potential), "backend": ""}
        )
    unfinished.replace(path)


def convertible(path: str | Path) -> bool:
    """Whether `load_deepmd` can take the model of a file that is one."""
    try:
        _checked(model_dict(path))
    except UnlikeDeepPotential:
        return False
    return True


def model_dict(path: str | Path) -> dict[str, Any]:
    """DeePMD-kit's dictionary of the model in a file."""
    require()
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"path={str(path)!r} is no file")
    if path.suffix == ".pd":
        from oarlock.sci_md.deepmd.checkpoint import load_model

        model: dict[str, Any] = load_model(path).serialize()
        return model
    if path.suffix not in _SUFFIXES:
        raise ValueError(
            f"path={str(path)!r} has to end in {', '.join(_SUFFIXES)}; a frozen program has no "
            "parameters by name: give the checkpoint that it was made from"
        )
    from deepmd.dpmodel.utils.serialization import load_dp_model

    try:
        return dict(load_dp_model(str(path))["model"])
    except (OSError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no model of DeePMD-kit, or cut short ({error})") from error


def from_dict(model: Mapping[str, Any], *, dtype: Dtype | None = None) -> DeepPotential:
    """A `DeepPotential` with the parameters of DeePMD-kit's dictionary."""
    descriptor, fitting = _checked(model)
    sel = tuple(int(count) for count in descriptor["sel"])
    config = DeepPotentialConfig(
        elements=tuple(model["type_map"]),
        cutoff=float(descriptor["rcut"]),
        smooth=float(descriptor["rcut_smth"]),
        dtype=dtype or _PRECISIONS[descriptor["precision"]],
        embedding=tuple(descriptor["neuron"]),
        axis=int(descriptor["axis_neuron"]),
        fitting=tuple(fitting["neuron"]),
        one_side=bool(descriptor["type_one_side"]),
        sel=sel,
        fitting_timestep=bool(fitting["resnet_dt"]),
        embedding_timestep=bool(descriptor["resnet_dt"]),
    )
    potential = build(config)
    assert isinstance(potential, DeepPotential)
    part = potential.descriptor
    for name, buffer in (("davg", part.mean), ("dstd", part.deviation)):
        values = np.asarray(descriptor["@variables"][name])
        if np.ptp(values, axis=1).any():
            raise ValueError(
                f"the model's {name} differs between neighbours of one atom; train it with "
                "deepmd-kit 2 or later"
            )
        _set(buffer, values[:, 0])
    kinds = len(config.elements)
    for index, net in enumerate(descriptor["embeddings"]["networks"]):
        neighbour, center = (index, 0) if config.one_side else divmod(index, kinds)
        for layer, values in zip(part.net(center, neighbour).layers, net["layers"], strict=True):
            _set_layer(layer, values)
    for own, net in zip(potential.fittings, fitting["nets"]["networks"], strict=True):
        for layer, values in zip(own.layers, net["layers"][:-1], strict=True):
            _set_layer(layer, values)
        last = net["layers"][-1]["@variables"]
        _set(own.out.weight, last["w"])
        _set(own.out.bias, last["b"])
    bias = np.asarray(model["@variables"]["out_bias"], dtype=np.float64)[0, :, 0]
    own_bias = fitting["@variables"]["bias_atom_e"]
    if own_bias is not None:
        bias = bias + np.asarray(own_bias, dtype=np.float64)[:, 0]
    potential.set_reference(bias.tolist())
    potential.eval()
    return potential


def to_dict(potential: DeepPotential) -> dict[str, Any]:
    """DeePMD-kit's dictionary of a `DeepPotential`; its scale goes into the last layer.

    Raises:
        ValueError: the potential has ZBL.
    """
    require()
    from deepmd.dpmodel.descriptor.se_e2_a import DescrptSeA
    from deepmd.dpmodel.fitting import EnergyFittingNet
    from deepmd.dpmodel.model.ener_model import EnergyModel

    config = potential.config
    if config.zbl:
        raise ValueError("zbl=True has no place in a DeePMD-kit model: use lammps' zbl beside it")
    kinds = len(config.elements)
    given = _input(potential)
    settings = {name: v for name, v in given["descriptor"].items() if name != "type"}
    descriptor = DescrptSeA(**settings, type_map=list(config.elements), seed=0)
    settings = {name: v for name, v in given["fitting_net"].items() if name != "type"}
    fitting = EnergyFittingNet(
        kinds, descriptor.get_dim_out(), mixed_types=False, seed=0, **settings
    )
    model = EnergyModel(descriptor, fitting, type_map=list(config.elements)).serialize()
    part, width = potential.descriptor, sum(config.sel)
    for name, buffer in (("davg", part.mean), ("dstd", part.deviation)):
        values = np.repeat(buffer.numpy()[:, None], width, axis=1)
        model["descriptor"]["@variables"][name] = values.astype(np.float64)
    for index, net in enumerate(model["descriptor"]["embeddings"]["networks"]):
        neighbour, center = (index, 0) if config.one_side else divmod(index, kinds)
        for layer, values in zip(part.net(center, neighbour).layers, net["layers"], strict=True):
            _get_layer(layer, values)
    scale = potential.scale.item()
    for own, net in zip(potential.fittings, model["fitting"]["nets"]["networks"], strict=True):
        for layer, values in zip(own.layers, net["layers"][:-1], strict=True):
            _get_layer(layer, values)
        last = net["layers"][-1]["@variables"]
        last["w"] = own.out.weight.numpy() * scale
        last["b"] = own.out.bias.numpy() * scale
    model["@variables"]["out_bias"] = potential.reference_energies.numpy().reshape([1, kinds, 1])
    return dict(model)


def _input(potential: DeepPotential) -> dict[str, Any]:
    """What an input file of DeePMD-kit says of such a model."""
    config = potential.config
    return {
        "type_map": list(config.elements),
        "descriptor": {
            "type": "se_e2_a",
            "rcut": config.cutoff,
            "rcut_smth": config.smooth,
            "sel": list(config.sel),
            "neuron": list(config.embedding),
            "axis_neuron": config.axis,
            "type_one_side": config.one_side,
            "resnet_dt": config.embedding_timestep,
            "precision": config.dtype,
        },
        "fitting_net": {
            "type": "ener",
            "neuron": list(config.fitting),
            "resnet_dt": config.fitting_timestep,
            "precision": config.dtype,
        },
    }


def _checked(model: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Descriptor and fitting of a model that `DeepPotential` can be."""
    descriptor, fitting = model.get("descriptor"), model.get("fitting")
    if descriptor is None or fitting is None or descriptor.get("type") != "se_e2_a":
        found = descriptor.get("type") if descriptor else model.get("type")
        raise UnlikeDeepPotential(
            f"the model is {found!r}; only 'se_e2_a' becomes a DeepPotential: run others with "
            "DeepmdEvaluator"
        )
    wanted = [
        ("atom_exclude_types", model.get("atom_exclude_types"), []),
        ("pair_exclude_types", model.get("pair_exclude_types"), []),
        ("descriptor.exclude_types", descriptor.get("exclude_types"), []),
        ("descriptor.env_protection", descriptor.get("env_protection"), 0.0),
        ("descriptor.activation_function", descriptor.get("activation_function"), "tanh"),
        ("descriptor.spin", descriptor.get("spin"), None),
        ("fitting.type", fitting.get("type"), "ener"),
        ("fitting.activation_function", fitting.get("activation_function"), "tanh"),
        ("fitting.mixed_types", fitting.get("mixed_types"), False),
        ("fitting.exclude_types", fitting.get("exclude_types"), []),
        ("fitting.numb_fparam", fitting.get("numb_fparam"), 0),
        ("fitting.numb_aparam", fitting.get("numb_aparam"), 0),
        ("fitting.dim_case_embd", fitting.get("dim_case_embd", 0), 0),
        ("fitting.tot_ener_zero", fitting.get("tot_ener_zero", False), False),
        ("fitting.atom_ener", fitting.get("atom_ener") or None, None),
    ]
    for name, found, needed in wanted:
        if found != needed:
            raise UnlikeDeepPotential(
                f"the model has {name}={found!r}, a DeepPotential {needed!r}: run it with "
                "DeepmdEvaluator"
            )
    precisions = [_PRECISIONS.get(part["precision"]) for part in (descriptor, fitting)]
    if None in precisions or len(set(precisions)) > 1:
        raise UnlikeDeepPotential(
            f"the model computes in {descriptor['precision']} and {fitting['precision']}, a "
            "DeepPotential in float32 or float64 throughout: run it with DeepmdEvaluator"
        )
    if descriptor.get("env_mat", {}).get("use_exp_switch"):
        raise UnlikeDeepPotential(
            "the model has an exponential switch: run it with DeepmdEvaluator"
        )
    return descriptor, fitting


def _set(parameter: paddle.Tensor, values: Any) -> None:
    array = np.asarray(values).reshape(parameter.shape)
    parameter.set_value(paddle.to_tensor(array, dtype=parameter.dtype))


def _set_layer(layer: nn.Layer, values: Mapping[str, Any]) -> None:
    assert isinstance(layer, ResidualLayer)
    given = values["@variables"]
    if values.get("activation_function") != "tanh" or given["b"] is None:
        raise ValueError("the model has a layer that is not tanh with a bias")
    _set(layer.weight, given["w"])
    _set(layer.bias, given["b"])
    if layer.timestep is not None:
        _set(layer.timestep, given["idt"])


def _get_layer(layer: nn.Layer, values: Mapping[str, Any]) -> None:
    assert isinstance(layer, ResidualLayer)
    given = values["@variables"]
    given["w"], given["b"] = layer.weight.numpy(), layer.bias.numpy()
    if layer.timestep is not None:
        given["idt"] = layer.timestep.numpy()
