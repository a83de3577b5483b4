"""`oarlock-md info`: what a potential or a set of structures is."""

from pathlib import Path
from typing import Annotated

import typer

from oarlock.sci_md.cli import options
from oarlock.sci_md.cli.problems import told


def info(
    source: Annotated[
        str, typer.Argument(help="A potential, a frozen folder, a run's folder, or structures.")
    ],
    format: options.Format = None,
    energy_unit: options.EnergyUnit = "eV",
    length_unit: options.LengthUnit = "angstrom",
    unchecked: options.Unchecked = False,
) -> None:
    """Say what a file holds."""
    with told():
        from oarlock.sci_md.cli.tables import pairs, show

        path = Path(source)
        if path.suffix == ".safetensors":
            rows = _potential(path)
        elif (path / "frozen.json").is_file():
            rows = _frozen(path)
        elif path.is_dir() and (trained := _trained(path)):
            rows = {"file": str(trained), **_potential(trained)}
        else:
            rows = _data(source, format, options.units(energy_unit, length_unit), not unchecked)
        show(pairs(rows))


def _trained(folder: Path) -> Path | None:
    """The best potential of a run, the last where none was the best."""
    from oarlock.sci_md.training.trainer import BEST, LAST

    return next((folder / name for name in (BEST, LAST) if (folder / name).is_file()), None)


def _potential(path: Path) -> dict[str, str]:
    from oarlock.sci_md.potentials import load

    potential = load(path)
    size = sum(int(parameter.size) for parameter in potential.parameters())
    references = zip(potential.elements, potential.reference_energies.numpy().tolist(), strict=True)
    return {
        **{name: str(value) for name, value in potential.config.to_dict().items()},
        "parameters": f"{size:,}",
        "reach": f"{potential.reach} × cutoff",
        "reference energies": ", ".join(f"{symbol} {value:.6g} eV" for symbol, value in references),
        "scale": f"{float(potential.scale):.6g} eV",
    }


def _frozen(path: Path) -> dict[str, str]:
    import json

    values = json.loads((path / "frozen.json").read_text())
    return {name: str(value) for name, value in values.items() if name != "sha256"}


def _data(source: str, format: str | None, units: object, check: bool) -> dict[str, str]:
    from oarlock.sci_md.data import read, reference_energies, statistics
    from oarlock.sci_md.structure import elements_of

    structures = read(source, format=format, units=units, need=(), check=check)  # type: ignore[arg-type]
    found = statistics(structures)
    rows = {
        "structures": str(found.structures),
        "atoms": str(found.atoms),
        "elements": ", ".join(f"{symbol} {count}" for symbol, count in found.elements.items()),
        "labels": "{} energies, {} forces, {} virials".format(*found.labels),
        "energy spread": f"{1e3 * found.energy_spread:.4g} meV/atom",
        "forces": f"{found.force_rms:.4g} eV/Å rms, {found.force_max:.4g} eV/Å largest",
    }
    if found.labels[0]:
        elements = elements_of(structures)
        fit = reference_energies(structures, elements)
        rows["reference energies"] = ", ".join(
            f"{symbol} {value:.6g} eV" for symbol, value in zip(elements, fit.energies, strict=True)
        )
        if fit.note:
            rows["note"] = fit.note
    return rows
