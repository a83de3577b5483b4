"""Evaluators from files, by what the files are."""

from pathlib import Path

from oarlock.sci_md.evaluate.eager import EagerEvaluator
from oarlock.sci_md.evaluate.evaluator import Evaluator
from oarlock.sci_md.evaluate.frozen import MANIFEST, FrozenEvaluator
from oarlock.sci_md.potentials import load

KINDS = "a potential (.safetensors) or the folder of a frozen one"


def open_evaluator(path: str | Path, *, threads: int | None = None) -> Evaluator:
    """What evaluates the potential in `path`.

    Args:
        threads: of Paddle's operators in this process; None leaves them as they are.

    Raises:
        ValueError: no such file, a kind of file that is not known, or a damaged one.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"path={str(path)!r} does not exist: give {KINDS}")
    if threads is not None:
        _set_threads(threads)
    if path.is_dir() or path.name == MANIFEST:
        return FrozenEvaluator(path.parent if path.name == MANIFEST else path)
    if path.suffix == ".safetensors":
        return EagerEvaluator(load(path))
    raise ValueError(f"path={str(path)!r} is of no known kind: give {KINDS}")


def _set_threads(threads: int) -> None:
    import paddle

    if not 1 <= threads <= 1024:
        raise ValueError(f"threads={threads} has to be between 1 and 1024")
    paddle.base.core.set_num_threads(threads)
