"""Potentials as Paddle programs: what runs without the code that made them."""

import hashlib
import json
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import paddle
from paddle import Tensor
from pydantic import BaseModel, ConfigDict, ValidationError

from oarlock.sci_md.evaluate.eager import EagerEvaluator, check_finite, within
from oarlock.sci_md.evaluate.evaluator import Evaluation
from oarlock.sci_md.evaluate.exported import export
from oarlock.sci_md.evaluate.slopes import (
    forces_of_slopes,
    virial_of_slopes,
    virials_of_slopes,
)
from oarlock.sci_md.graph import to_graph
from oarlock.sci_md.neighbours import Neighbourhood, find_neighbours
from oarlock.sci_md.potentials.base import Potential
from oarlock.sci_md.structure import Array, Structure

FORMAT = "oarlock-md frozen potential"
VERSION = 1
MANIFEST = "frozen.json"
PROGRAM = "program"
FILES = (f"{PROGRAM}.json", f"{PROGRAM}.pdiparams")

#: How far the program may be from the potential it was made from, by the largest value.
AGREEMENT = {"float64": 1e-10, "float32": 1e-4}


class Manifest(BaseModel):
    """What frozen.json holds: what the program computes, and the checksums of its files."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["oarlock-md frozen potential"] = FORMAT  # type: ignore[assignment]
    version: int = VERSION
    model: str
    elements: tuple[str, ...]
    cutoff: float  # Å
    reach: int
    dtype: str
    units: Literal["eV, angstrom"] = "eV, angstrom"
    paddle: str
    sha256: dict[str, str]


def freeze(potential: Potential, path: str | Path) -> None:
    """Writes the folder `path` whole or not at all: a program, its parameters and `frozen.json`.

    The program is run beside the potential on atoms of all its elements before it is kept.

    Raises:
        ValueError: `path` exists, or the program does not say what the potential says.
    """
    path = Path(path)
    if path.exists():
        raise ValueError(f"path={str(path)!r} exists: remove it or give another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as temporary:
        unfinished = Path(temporary) / path.name
        unfinished.mkdir()
        export(potential, str(unfinished / PROGRAM))
        manifest = Manifest(
            model=potential.config.model,
            elements=potential.elements,
            cutoff=potential.cutoff,
            reach=potential.reach,
            dtype=potential.config.dtype,
            paddle=metadata.version("paddlepaddle"),
            sha256={name: _checksum(unfinished / name) for name in FILES},
        )
        (unfinished / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n")
        _compare(potential, FrozenEvaluator(unfinished))
        unfinished.rename(path)


class FrozenEvaluator:
    """Runs what `freeze` wrote; see `Evaluator`.

    Raises:
        ValueError: not a frozen potential, cut short or damaged, or of another version.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        manifest = _read_manifest(path)
        self.manifest = manifest
        self.elements = manifest.elements
        self.cutoff = manifest.cutoff
        self.reach = manifest.reach
        self._program = paddle.jit.load(str(path / PROGRAM))
        self._program.eval()

    def evaluate(self, atoms: Neighbourhood) -> Evaluation:
        near = within(atoms, self.cutoff)
        energies, slopes = self._run(near)
        evaluation = Evaluation(
            energy=float(energies[: near.owned].sum()),
            atomic_energies=energies[: near.owned],
            forces=forces_of_slopes(slopes, near),
            virial=virial_of_slopes(slopes, near.vectors()),
        )
        check_finite(evaluation)
        return evaluation

    def atomic_virials(self, atoms: Neighbourhood) -> Array:
        near = within(atoms, self.cutoff)
        return virials_of_slopes(self._run(near)[1], near)

    def _run(self, atoms: Neighbourhood) -> tuple[Array, Array]:
        """Energies [M] and slopes [E, 3]."""
        graph = to_graph([atoms], self.manifest.dtype)
        owned = graph.structures + 1
        # The program may write into its inputs (Paddle's pass for operators in place): they are its own.
        with paddle.no_grad(), _one_after_the_other():
            energies, slopes = self._program(
                graph.species, owned, graph.centers, graph.neighbours, graph.offsets, graph.vectors
            )
        return _array(energies), _array(slopes)


@contextmanager
def _one_after_the_other() -> Iterator[None]:
    """Operators run in this thread; handing them to others costs more than it brings (1.5 times)."""
    flag = "FLAGS_enable_pir_in_executor_trace_run"
    before = paddle.get_flags(flag)
    paddle.set_flags({flag: True})
    try:
        yield
    finally:
        paddle.set_flags(before)


def _array(tensor: Tensor) -> Array:
    values: Array = tensor.numpy().astype(np.float64)
    return values


def _read_manifest(path: Path) -> Manifest:
    file = path / MANIFEST
    if not file.is_file():
        raise ValueError(f"path={str(path)!r} is no frozen potential: it has no {MANIFEST}")
    try:
        values: Any = json.loads(file.read_text())
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise ValueError(f"{file} is not of the format {FORMAT!r}")
        if values.get("version") != VERSION:
            raise ValueError(
                f"{path} is of version {values.get('version')}, this release reads {VERSION}: "
                "freeze the potential with this release"
            )
        manifest = Manifest.model_validate(values)
    except (json.JSONDecodeError, UnicodeDecodeError, ValidationError) as error:
        raise ValueError(f"{file} is damaged or cut short ({error})") from error
    series = _series(metadata.version("paddlepaddle"))
    if _series(manifest.paddle) != series:
        raise ValueError(
            f"{path} was frozen with Paddle {manifest.paddle}, here is {series}: "
            "freeze the potential with the Paddle that runs it"
        )
    for name in FILES:
        if not (path / name).is_file():
            raise ValueError(f"{path} has lost its {name}: freeze the potential anew")
        if _checksum(path / name) != manifest.sha256.get(name):
            raise ValueError(f"{path / name} is damaged or cut short: freeze the potential anew")
    return manifest


def _series(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _checksum(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _compare(potential: Potential, frozen: FrozenEvaluator) -> None:
    atoms = _sample(potential)
    limit = AGREEMENT[potential.config.dtype]
    said, meant = frozen.evaluate(atoms), EagerEvaluator(potential).evaluate(atoms)
    for name in ("atomic_energies", "forces", "virial"):
        ours, theirs = getattr(said, name), getattr(meant, name)
        error = float(np.abs(ours - theirs).max())
        if not error <= limit * max(1.0, float(np.abs(theirs).max())):
            raise ValueError(
                f"the frozen program of {potential.config.model} is off by {error:.3g} in its {name}: "
                "an operator of the potential is not exported as it runs"
            )


def _sample(potential: Potential) -> Neighbourhood:
    """Atoms of all elements, some of which are not owned, each with neighbours and across the box."""
    generator = np.random.default_rng(0)
    numbers = potential.numbers.numpy()
    side = max(2, math.ceil(len(numbers) ** (1 / 3)))
    spacing = max(0.62 * potential.cutoff, 1.5)
    sites = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    structure = Structure(
        numbers=numbers[np.arange(side**3) % len(numbers)],
        positions=(sites + generator.uniform(-0.1, 0.1, (side**3, 3))) * spacing,
        cell=np.eye(3) * side * spacing,
        pbc=np.array([True, True, True]),
        name="the sample",
    )
    found = find_neighbours(structure, potential.elements, potential.cutoff)
    return replace(found, owned=side**3 - 2)
