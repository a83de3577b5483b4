"""Potentials as files: one `.safetensors`, parameters and configuration together."""

import json
from pathlib import Path

import numpy as np
import paddle
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from oarlock.sci_md.potentials.base import Potential
from oarlock.sci_md.potentials.registry import build, config_from_dict

FORMAT = "oarlock-md potential"
VERSION = "1"


def save(potential: Potential, path: str | Path) -> None:
    """Writes the file whole or not at all."""
    path = Path(path)
    tensors = {name: np.array(t.numpy(), order="C") for name, t in potential.state_dict().items()}
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "config": json.dumps(potential.config.to_dict()),
        "units": "eV, angstrom",
    }
    unfinished = path.with_name(path.name + ".part")
    save_file(tensors, str(unfinished), metadata=metadata)
    unfinished.replace(path)


def load(path: str | Path) -> Potential:
    """The potential of a file, in evaluation mode.

    Raises:
        ValueError: no such file, not a potential, cut short, or of another version.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"path={str(path)!r} is no file")
    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"{path} is no potential of oarlock.sci_md")
            if metadata.get("version") != VERSION:
                raise ValueError(
                    f"{path} is of version {metadata.get('version')}, this release reads {VERSION}: "
                    "use the release that wrote it, or train anew"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or cut short ({error})") from error
    potential = build(config_from_dict(json.loads(metadata["config"])))
    state = potential.state_dict()
    if set(state) != set(tensors):
        missing = sorted(set(state) ^ set(tensors))
        raise ValueError(f"{path} does not fit its configuration: {', '.join(missing)}")
    for name, tensor in state.items():
        if list(tensor.shape) != list(tensors[name].shape):
            raise ValueError(
                f"{path}: {name} has the shape {list(tensors[name].shape)}, not {tensor.shape}"
            )
        tensor.set_value(paddle.to_tensor(tensors[name], dtype=tensor.dtype))
    potential.eval()
    return potential
