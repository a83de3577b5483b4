"""DeePMD-kit's own commands on its Paddle backend, mended."""

from collections.abc import Sequence

from oarlock.sci_md.deepmd.mend import mend


def run(arguments: Sequence[str]) -> None:
    """What ``dp --pd ARGUMENTS`` does: train, freeze, test, …, in this process.

    DeePMD-kit switches Paddle to composite operators for good (`set_prim_eager_enabled`), in which second
    derivatives of layer norms are wrong: train other potentials in another process.

    Args:
        arguments: such as ``["train", "input.json"]``.

    Raises:
        ValueError: another version of DeePMD-kit, or no arguments.
    """
    if not arguments:
        raise ValueError("arguments is empty: give a command of DeePMD-kit, such as 'train'")
    mend()
    from deepmd.main import main

    main(["--pd", *arguments])
