"""Evaluators from files, by what the files are."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np
import paddle

from oarlock.sci_md.deepmd.convert import convertible, load_deepmd
from oarlock.sci_md.evaluate.deep_potential import NativeDeepPotential
from oarlock.sci_md.evaluate.deepmd import DeepmdEvaluator
from oarlock.sci_md.evaluate.eager import EagerEvaluator
from oarlock.sci_md.evaluate.evaluator import Evaluator
from oarlock.sci_md.evaluate.frozen import MANIFEST, FrozenEvaluator
from oarlock.sci_md.evaluate.probe import passes_messages
from oarlock.sci_md.potentials import Potential, build, load
from oarlock.sci_md.potentials.deep_potential import DeepPotential

KINDS = (
    "a potential (.safetensors), the folder of a frozen one, or a model of DeePMD-kit: .pd or .json "
    "of its Paddle backend, .dp or .yaml of any"
)


def open_evaluator(
    path: str | Path,
    *,
    dtype: Literal["float32", "float64"] | None = None,
    native: bool | None = None,
    compressed: bool = False,
    threads: int | None = None,
    device: str = "cpu",
) -> Evaluator:
    """What evaluates the potential in `path`.

    Deep Potentials, DeePMD-kit's ``se_e2_a`` among them, run on the native engine; the others on Paddle.

    Args:
        dtype: "float32" or "float64", what it computes in; None for what it was trained in.
        native: the native engine (True) or Paddle (False); None for the engine where there is one.
        compressed: the engine with tables in place of embedding networks.
        threads: of the native engine and of Paddle's operators; None leaves them as they are.
        device: "gpu" for the engine with tables on an NVIDIA GPU.

    Raises:
        ValueError: no such file, a kind of file that is not known, a damaged one, or an option that this
            potential does not have.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"path={str(path)!r} does not exist: give {KINDS}")
    if dtype not in (None, "float32", "float64"):
        raise ValueError(f"dtype={dtype!r} has to be 'float32' or 'float64'")
    if threads is not None and not 1 <= threads <= 1024:
        raise ValueError(f"threads={threads} has to be between 1 and 1024")
    if device not in ("cpu", "gpu"):
        raise ValueError(f"device={device!r} has to be 'cpu' or 'gpu'")
    if device == "gpu" and not compressed:
        raise ValueError("device='gpu' computes with tables: pass compressed=True")
    if compressed and native is False:
        raise ValueError("compressed=True needs the native engine: leave native=False out")
    evaluator = _open(path, dtype, native, compressed, threads, device)
    if threads is not None:
        paddle.base.core.set_num_threads(threads)
    return evaluator


def _open(
    path: Path,
    dtype: Literal["float32", "float64"] | None,
    native: bool | None,
    compressed: bool,
    threads: int | None,
    device: str,
) -> Evaluator:
    if path.is_dir() or path.name == MANIFEST:
        _refuse(path, "a frozen program", native=native, compressed=compressed)
        frozen = FrozenEvaluator(path.parent if path.name == MANIFEST else path)
        if dtype not in (None, frozen.manifest.dtype):
            raise ValueError(
                f"dtype={dtype!r}, but {path} was frozen in {frozen.manifest.dtype}: "
                "freeze the potential in the other"
            )
        return frozen
    if path.suffix == ".safetensors":
        return _evaluator(in_dtype(load(path), dtype), path, native, compressed, threads, device)
    theirs = path.suffix == ".pd" and (native is False or not convertible(path))
    if path.suffix in (".pd", ".dp", ".yaml", ".yml") and not theirs:
        potential = load_deepmd(path, dtype=dtype)
        return _evaluator(potential, path, native, compressed, threads, device)
    if path.suffix in (".pd", ".json"):
        _refuse(path, "run by DeePMD-kit", native=native, compressed=compressed)
        if dtype is not None:
            raise ValueError(
                f"dtype={dtype!r} cannot be chosen for {path}: it is run by DeePMD-kit"
            )
        evaluator = DeepmdEvaluator(path)
        if path.suffix == ".json" and passes_messages(evaluator):
            raise ValueError(
                f"{path} passes messages, and a frozen program does not say how far: "
                "give the checkpoint (.pd)"
            )
        return evaluator
    raise ValueError(f"path={str(path)!r} is of no known kind: give {KINDS}")


def _evaluator(
    potential: Potential,
    path: Path,
    native: bool | None,
    compressed: bool,
    threads: int | None,
    device: str,
) -> Evaluator:
    if isinstance(potential, DeepPotential) and native is not False:
        return NativeDeepPotential(potential, compressed=compressed, threads=threads, device=device)
    _refuse(path, f"a potential of the kind {potential.config.model}", native, compressed)
    return EagerEvaluator(potential)


def _refuse(path: Path, what: str, native: bool | None, compressed: bool) -> None:
    for name, wanted in (("native", native), ("compressed", compressed)):
        if wanted:
            raise ValueError(f"{name}=True: {path} is {what}, for which there is no native engine")


def in_dtype(potential: Potential, dtype: str | None) -> Potential:
    """The potential, or a copy of it that computes in another dtype."""
    if dtype in (None, potential.config.dtype):
        return potential
    changes: Any = {"dtype": dtype}
    copy = build(dataclasses.replace(potential.config, **changes))
    values = potential.state_dict()
    for name, tensor in copy.state_dict().items():
        tensor.set_value(np.asarray(values[name].numpy()).astype(str(tensor.dtype).split(".")[-1]))
    copy.eval()
    return copy
