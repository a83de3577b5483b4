"""The folder in which a long compression or analysis keeps what is done, to go on after a stop."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

from . import saving


class StateFolder:
    """Named results of the steps of one run.

    Args:
        folder: is made if need be; None keeps nothing.
        fingerprint: of all that the results depend on.

    Raises:
        ValueError: the folder belongs to another run.
    """

    def __init__(self, folder: str | os.PathLike | None, fingerprint: str):
        self.folder = None if folder is None else Path(folder)
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        about = self.folder / "run.json"
        if about.exists():
            found = json.loads(about.read_text(encoding="utf-8"))
            if found.get("fingerprint") != fingerprint:
                raise ValueError(
                    f"state folder {self.folder} is of another run: model, recipe or data differ; "
                    "give this run a folder of its own, or empty that one."
                )
        elif any(self.folder.iterdir()):
            raise ValueError(f"state folder {self.folder} holds other files; give an empty one.")
        else:
            part = about.with_suffix(".part")
            part.write_text(json.dumps({"fingerprint": fingerprint}), encoding="utf-8")
            os.replace(part, about)

    def put(self, key: str, about: Any, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep the result of a step."""
        if self.folder is not None:
            saving.write(self.folder / f"{key}.npz", about, arrays)

    def get(self, key: str) -> tuple[Any, dict[str, np.ndarray]] | None:
        """The result of a step, or None if it was not finished."""
        if self.folder is None or not (self.folder / f"{key}.npz").exists():
            return None
        return saving.read(self.folder / f"{key}.npz")

    def drop(self, key: str) -> None:
        """Forget a result."""
        if self.folder is not None:
            (self.folder / f"{key}.npz").unlink(missing_ok=True)


def fingerprint(model: nn.Layer, settings: Any, batches: Any) -> str:
    """Hash of the weights of a model, of settings that are JSON values, and of the first batch."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name}{tensor.shape}{tensor.dtype}".encode())
        digest.update(np.ascontiguousarray(tensor.numpy()).tobytes())
    for batch in batches:
        _update(digest, batch)
        break
    return digest.hexdigest()


def _update(digest: Any, value: Any) -> None:
    if isinstance(value, paddle.Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        digest.update(f"{value.shape}{value.dtype}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Mapping):
        for key, one in value.items():
            digest.update(str(key).encode())
            _update(digest, one)
    elif isinstance(value, list | tuple):
        for one in value:
            _update(digest, one)
    else:
        digest.update(f"{type(value).__name__}".encode())
