"""Evaluators from files, by what the files are."""

from pathlib import Path

from oarlock.sci_md.deepmd.convert import convertible, load_deepmd
from oarlock.sci_md.evaluate.deep_potential import NativeDeepPotential
from oarlock.sci_md.evaluate.deepmd import DeepmdEvaluator
from oarlock.sci_md.evaluate.eager import EagerEvaluator
from oarlock.sci_md.evaluate.evaluator import Evaluator
from oarlock.sci_md.evaluate.frozen import MANIFEST, FrozenEvaluator
from oarlock.sci_md.potentials import DeepPotential, load

KINDS = (
    "a potential (.safetensors), the folder of a frozen one, or a model of DeePMD-kit: .pd or .json "
    "of its Paddle backend, .dp or .yaml of any"
)


def open_evaluator(
    path: str | Path, *, threads: int | None = None, compressed: bool = False
) -> Evaluator:
    """What evaluates the potential in `path`. Deep Potentials, DeePMD-kit's too, run on native kernels.

    Args:
        compressed: tables in place of a Deep Potential's embedding networks, as in `NativeDeepPotential`.
        threads: of Paddle's operators in this process; None leaves them as they are.

    Raises:
        ValueError: no such file, a kind of file that is not known, or a damaged one.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"path={str(path)!r} does not exist: give {KINDS}")
    if threads is not None:
        _set_threads(threads)
    evaluator = _open(path, threads, compressed)
    if compressed and not isinstance(evaluator, NativeDeepPotential):
        raise ValueError(f"compressed=True is for Deep Potentials, which {path} is not")
    return evaluator


def _open(path: Path, threads: int | None, compressed: bool) -> Evaluator:
    if path.is_dir() or path.name == MANIFEST:
        return FrozenEvaluator(path.parent if path.name == MANIFEST else path)
    if path.suffix == ".safetensors":
        potential = load(path)
        if isinstance(potential, DeepPotential):
            return NativeDeepPotential(potential, threads=threads, compressed=compressed)
        return EagerEvaluator(potential)
    if path.suffix in (".dp", ".yaml", ".yml") or (path.suffix == ".pd" and convertible(path)):
        return NativeDeepPotential(load_deepmd(path), threads=threads, compressed=compressed)
    if path.suffix in (".pd", ".json"):
        return DeepmdEvaluator(path)
    raise ValueError(f"path={str(path)!r} is of no known kind: give {KINDS}")


def _set_threads(threads: int) -> None:
    import paddle

    if not 1 <= threads <= 1024:
        raise ValueError(f"threads={threads} has to be between 1 and 1024")
    paddle.base.core.set_num_threads(threads)
