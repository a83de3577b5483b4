"""Labels on disk, found by what was computed: structures are never computed twice."""

import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from oarlock.sci_md.labels.method import LabelMethod
from oarlock.sci_md.structure import Structure


def content_hash(structure: Structure, method: LabelMethod) -> str:
    """Of atoms, positions, box and the method with its version; not of names and old labels."""
    digest = hashlib.sha256(method.describe().encode())
    for field, dtype in (("numbers", "<i8"), ("positions", "<f8"), ("cell", "<f8"), ("pbc", "<i1")):
        values = np.ascontiguousarray(getattr(structure, field)).astype(dtype)
        if dtype == "<f8":
            values = values + 0.0  # −0 and 0 are the same place
        digest.update(f"{field}{values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelCache:
    """One small file for each label or failure, written whole or not at all.

    Args:
        folder: where; made if it is not there.
    """

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"folder={str(self.folder)!r} is a file: name a folder")

    def find(self, structure: Structure, key: str) -> Structure | str | None:
        """The labelled structure, what its failure said, or None where nothing is known.

        Raises:
            ValueError: the file is damaged.
        """
        path = self._path(key)
        if path.with_suffix(".json").is_file():
            return str(json.loads(path.with_suffix(".json").read_text())["failure"])
        if not path.is_file():
            return None
        try:
            with np.load(path) as file:
                return replace(
                    structure,
                    energy=float(file["energy"]),
                    forces=file["forces"],
                    virial=file["virial"] if "virial" in file else None,
                )
        except (OSError, EOFError, KeyError, ValueError, BadZipFile) as error:
            raise ValueError(f"{path} is damaged ({error}): delete it") from error

    def keep(self, labelled: Structure, key: str) -> None:
        arrays = {"energy": np.float64(labelled.energy), "forces": labelled.forces}
        if labelled.virial is not None:
            arrays["virial"] = labelled.virial
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
        with unfinished.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        unfinished.replace(path)
        path.with_suffix(".json").unlink(missing_ok=True)

    def keep_failure(self, message: str, key: str) -> None:
        path = self._path(key).with_suffix(".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
        unfinished.write_text(json.dumps({"failure": message}))
        unfinished.replace(path)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npz"
