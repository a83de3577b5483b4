"""The whole state of a training run in one file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

FORMAT = "oarlock-md checkpoint"
VERSION = "1"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Checkpoint:
    """Args:
    model: the potential's state by name.
    averages: moving averages of its parameters, one after the other; None for none.
    optimizer: its tensors by lasting name (`optimizers.pack`).
    progress: counters, schedules and sums, as JSON can hold them.
    """

    model: Mapping[str, np.ndarray]
    averages: np.ndarray | None
    optimizer: Mapping[str, np.ndarray]
    progress: dict[str, Any]


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Writes the file whole or not at all."""
    tensors = {f"model/{name}": value for name, value in checkpoint.model.items()}
    if checkpoint.averages is not None:
        tensors["averages"] = checkpoint.averages
    tensors |= {f"optimizer/{name}": value for name, value in checkpoint.optimizer.items()}
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "progress": json.dumps(checkpoint.progress),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    save_file(tensors, str(unfinished), metadata=metadata)
    unfinished.replace(path)


def load(path: Path) -> Checkpoint:
    """Raises ValueError: no file, no checkpoint, one of another version, or cut short."""
    if not path.is_file():
        raise ValueError(f"path={str(path)!r} is no file: there is no run to resume")
    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT or metadata.get("version") != VERSION:
                raise ValueError(
                    f"{path} is no checkpoint of version {VERSION}: resume with the release that wrote it"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or cut short ({error})") from error
    return Checkpoint(
        model=_below("model/", tensors),
        averages=tensors.get("averages"),
        optimizer=_below("optimizer/", tensors),
        progress=json.loads(metadata["progress"]),
    )


def _below(prefix: str, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
