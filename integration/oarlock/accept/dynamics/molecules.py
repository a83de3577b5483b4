"""Frames of a molecule labelled here by tight binding, for us and as .npz files for peers."""

from pathlib import Path

from ase.build import molecule

from oarlock.accept.dynamics.elements import for_peers
from oarlock.sci_md.data import write
from oarlock.sci_md.labels import LabelCalculator, TightBinding, generate, visited
from oarlock.sci_md.structure import Structure

TEMPERATURES = (300.0, 600.0)  # K
APART = 20  #: steps of 0.5 fs between frames


def ethanol(folder: Path, cutoff: float, frames: int, seed: int) -> dict[str, str]:
    """GFN2-xTB's energies and forces of what its own dynamics visits, at each temperature so many frames.

    Every third frame is held out.

    Returns:
        the .npz files of "training" and "test"; beside each lies one that ends in .extxyz.
    """
    method = TightBinding(method="GFN2-xTB")
    start = Structure.from_ase(molecule("CH3CH2OH"))
    bare = visited(
        start,
        LabelCalculator(method),
        temperatures=TEMPERATURES,
        frames=frames,
        every=APART,
        seed=seed,
    )
    labelled = generate(bare, method, cache=folder / "labels", progress=False)
    if labelled.failures:
        raise RuntimeError(str(labelled))
    found = labelled.structures
    parts = {
        "training": [one for index, one in enumerate(found) if index % 3],
        "test": found[::3],
    }
    files = {}
    for name, part in parts.items():
        path = folder / f"ethanol-{name}.npz"
        write(path.with_suffix(".extxyz"), part)
        files[name] = str(for_peers(part, cutoff, path))
    return files
