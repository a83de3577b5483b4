"""Models of DeePMD-kit's Paddle backend, on our lists of neighbours.

DeePMD-kit's own ``DeepPot.eval`` searches neighbours by all distances at each call, on dense matrices;
its model itself takes lists, and those are what this gives it.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray

from oarlock.sci_md.deepmd.checkpoint import load_model
from oarlock.sci_md.deepmd.extended import Extended, extended
from oarlock.sci_md.deepmd.mend import mend
from oarlock.sci_md.deepmd.version import require
from oarlock.sci_md.evaluate.eager import check_finite, within
from oarlock.sci_md.evaluate.evaluator import Evaluation
from oarlock.sci_md.neighbours import Neighbourhood
from oarlock.sci_md.structure import Array

log = logging.getLogger(__name__)


class DeepmdEvaluator:
    """See `Evaluator`. A checkpoint (``.pd``) or a frozen program (``.json``) of DeePMD-kit's Paddle backend.

    Models that pass messages need images told by shifts, as `find_neighbours` gives them: ghosts of
    another program have no known parents. A frozen program does not say whether it is one of them, so
    there it is for the caller to know. ``se_e2_a`` is many times as fast after `deepmd.load_deepmd`, in
    a `NativeDeepPotential`.

    Raises:
        ValueError: no such file, a damaged one, or another version of DeePMD-kit.
    """

    reach: int

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        self._said = False
        self._model: Any
        if path.suffix == ".json":
            self._model = _load_frozen(path)
            self.elements = tuple(
                "".join(chr(code) for code in self._model.get_buffer_type_map().numpy()).split(" ")
            )
            self.cutoff = float(self._model.get_buffer_rcut().item())
            self._frozen, self._messages, self._sel, self.reach = True, False, 0, 1
            return
        mend()
        self._model = load_model(path)
        self.elements = tuple(self._model.get_type_map())
        self.cutoff = float(self._model.get_rcut())
        self._frozen, self._sel = False, int(sum(self._model.get_sel()))
        self._messages = bool(self._model.has_message_passing())
        self.reach = _reach(self._model) if self._messages else 1

    def evaluate(self, atoms: Neighbourhood) -> Evaluation:
        atoms = within(atoms, self.cutoff)
        given = extended(atoms, self._sel)
        self._check(atoms, given)
        energies, forces, virial = self._frozen_call(given) if self._frozen else self._call(given)
        folded = np.zeros((len(atoms.positions), 3))
        np.add.at(folded, given.parents, forces)
        evaluation = Evaluation(
            energy=float(energies.sum()), atomic_energies=energies, forces=folded, virial=virial
        )
        check_finite(evaluation)
        return evaluation

    def _check(self, atoms: Neighbourhood, given: Extended) -> None:
        if not self._frozen and self._messages and atoms.owned < len(atoms.positions):
            raise ValueError(
                "a model that passes messages needs the neighbours of all atoms, images told by "
                f"shifts: there are {len(atoms.positions)} atoms, and {atoms.owned} are owned. In LAMMPS, "
                "run it on one rank"
            )
        if self._sel and given.lists.shape[1] > self._sel and not self._said:
            self._said = True
            log.warning(
                "an atom has %d neighbours, but the model was trained for sel=%d: DeePMD-kit leaves "
                "out the farthest, and energies jump as atoms move",
                given.lists.shape[1],
                self._sel,
            )

    def _call(self, given: Extended) -> tuple[Array, Array, Array]:
        positions = paddle.to_tensor(given.positions[None], stop_gradient=False)
        with _composite_operators():
            result = self._model.forward_lower(
                positions,
                paddle.to_tensor(given.species[None]),
                paddle.to_tensor(given.lists[None]),
                paddle.to_tensor(given.parents[None]),
            )
        return (
            result["atom_energy"].numpy()[0, :, 0].astype(np.float64),
            result["extended_force"].numpy()[0].astype(np.float64),
            result["virial"].numpy().reshape(3, 3).astype(np.float64),
        )

    def _frozen_call(self, given: Extended) -> tuple[Array, Array, Array]:
        arrays: list[NDArray[Any]] = [
            given.positions[None],
            given.species[None].astype(np.int32),
            given.lists[None].astype(np.int32),
            given.parents[None],
        ]
        unused: list[NDArray[Any]] = [np.zeros(1, kind) for kind in "q i i i i q".split()]
        energies, _, forces, _, virial = self._model.forward_lower(
            *(paddle.to_tensor(one) for one in [*arrays, *unused])
        )
        return (
            energies.numpy()[0, :, 0].astype(np.float64),
            forces.numpy()[0].astype(np.float64),
            virial.numpy().reshape(3, 3).astype(np.float64),
        )


def _reach(model: Any) -> int:
    """Cut-offs, which are those of the lists, that messages travel at most."""
    descriptor = model.atomic_model.descriptor
    for name, before in (("repflows", 0), ("repformers", 1)):
        if hasattr(descriptor, name):
            return before + int(getattr(descriptor, name).nlayers)
    raise ValueError(f"{type(descriptor).__name__} passes messages, but how far is not known")


def _load_frozen(path: Path) -> Any:
    require()
    stem = path.with_suffix("")
    for needed in (path, stem.with_suffix(".pdiparams")):
        if not needed.is_file():
            raise ValueError(f"path={str(path)!r}: there is no file {needed.name}")
    try:
        model = paddle.jit.load(str(stem))
        model.get_buffer_rcut()
    except Exception as error:  # whatever Paddle says of a damaged file
        raise ValueError(
            f"{path} is no frozen model of DeePMD-kit, or cut short ({error})"
        ) from error
    return model


@contextmanager
def _composite_operators() -> Iterator[None]:
    """What DeePMD-kit's models need of Paddle, and what it was before put back."""
    from deepmd.pd.utils.env import enable_prim

    core: Any = paddle.framework.core
    before = core._is_eager_prim_enabled()
    level = logging.getLogger("deepmd").level
    logging.getLogger("deepmd").setLevel(logging.WARNING)
    try:
        enable_prim(True)
        yield
    finally:
        core.set_prim_eager_enabled(before)
        logging.getLogger("deepmd").setLevel(level)
