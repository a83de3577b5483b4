"""Files of each format come back as they were written, and damaged ones are refused."""

import json
import os
import zipfile

import ase.db
import ase.io
import numpy as np
import pytest

from oarlock.sci_md.data import Units, check_labels, read, write
from oarlock.sci_md.data.sources import locate


def same(one, other, tolerance=1e-7):
    assert (one.numbers == other.numbers).all()
    np.testing.assert_allclose(one.positions, other.positions, atol=tolerance)
    np.testing.assert_allclose(one.cell, other.cell, atol=tolerance)
    assert (one.pbc == other.pbc).all()
    np.testing.assert_allclose(one.energy, other.energy, atol=tolerance)
    np.testing.assert_allclose(one.forces, other.forces, atol=tolerance)
    np.testing.assert_allclose(one.virial, other.virial, atol=1e-5)


@pytest.fixture
def some(emt):
    return emt(4)


def test_extxyz_round_trip(some, tmp_path):
    write(tmp_path / "some.xyz", some)
    for one, other in zip(some, read(tmp_path / "some.xyz"), strict=True):
        same(one, other)


def test_deepmd_round_trip_is_exact(some, tmp_path):
    write(tmp_path / "systems", some)
    back = {one.positions.tobytes(): one for one in read(tmp_path / "systems")}
    assert len(back) == len(some)
    for one in some:
        same(one, back[one.positions.tobytes()], 0.0)


def test_deepmd_raw_with_units_and_type_map(some, tmp_path):
    one, bohr, hartree = some[0], 0.5291772105638411, 27.211386024367243
    folder = tmp_path / "raw"
    folder.mkdir()
    types = (one.numbers == 79).astype(int)
    np.savetxt(folder / "type.raw", types, fmt="%d")
    np.savetxt(folder / "coord.raw", (one.positions / bohr).reshape(1, -1), fmt="%.17g")
    np.savetxt(folder / "box.raw", (one.cell / bohr).reshape(1, -1), fmt="%.17g")
    np.savetxt(folder / "energy.raw", [one.energy / hartree], fmt="%.17g")
    np.savetxt(folder / "force.raw", (one.forces / hartree * bohr).reshape(1, -1), fmt="%.17g")
    np.savetxt(folder / "virial.raw", (one.virial / hartree).reshape(1, -1), fmt="%.17g")
    units = Units(energy="Hartree", length="bohr")
    (back,) = read(folder, units=units, type_map=["Cu", "Au"])
    same(one, back)
    with pytest.raises(ValueError, match="type_map"):
        read(folder, units=units)
    with pytest.raises(ValueError, match="type 1 for a type map of 1"):
        read(folder, units=units, type_map=["Cu"])
    with pytest.raises(ValueError, match="Xq.*no elements"):
        read(folder, units=units, type_map=["Cu", "Xq"])


def test_deepmd_mixed_types_and_open_boundaries(emt, tmp_path):
    one, other = emt(2)
    folder = tmp_path / "mixed" / "set.000"
    folder.mkdir(parents=True)
    (folder.parent / "nopbc").touch()
    (folder.parent / "type.raw").write_text("0\n" * len(one))
    (folder.parent / "type_map.raw").write_text("Cu Au\n")
    np.save(folder / "coord.npy", [one.positions.ravel(), other.positions.ravel()])
    np.save(folder / "real_atom_types.npy", [one.numbers == 79, other.numbers == 79])
    first, second = read(tmp_path / "mixed", need=())
    assert (first.numbers == one.numbers).all() and (second.numbers == other.numbers).all()
    assert not first.pbc.any() and first.energy is None


def test_ase_database(some, tmp_path):
    with ase.db.connect(tmp_path / "some.db") as database:
        for one in some:
            database.write(one.to_ase())
    for one, other in zip(some, read(tmp_path / "some.db"), strict=True):
        same(one, other)
    (tmp_path / "broken.db").write_bytes(b"no database at all, but long enough to look at" * 10)
    with pytest.raises(ValueError, match="no whole ASE database"):
        read(tmp_path / "broken.db")


def test_labels_under_other_names(some, tmp_path):
    atoms = some[0].to_ase()
    results, atoms.calc = atoms.calc.results, None
    atoms.info["pbe"] = results["energy"]
    atoms.info["virial"] = " ".join(map(str, some[0].virial.ravel()))
    atoms.arrays["pbe_f"] = results["forces"]
    ase.io.write(tmp_path / "a.xyz", atoms, format="extxyz", write_results=False)
    with pytest.raises(ValueError, match="no energy.*name the entry"):
        read(tmp_path / "a.xyz")
    with pytest.raises(ValueError, match="no 'pbx' for energy: it has .*pbe"):
        read(tmp_path / "a.xyz", names={"energy": "pbx"})
    (back,) = read(tmp_path / "a.xyz", names={"energy": "pbe", "forces": "pbe_f"})
    same(some[0], back)


def test_truncated_files(some, tmp_path):
    write(tmp_path / "some.xyz", some)
    text = (tmp_path / "some.xyz").read_text()
    lines = text.splitlines(keepends=True)
    for cut in ("".join(lines[:-3]), text[: len(text) - 40]):
        (tmp_path / "cut.xyz").write_text(cut)
        with pytest.raises(ValueError, match="cut short"):
            read(tmp_path / "cut.xyz")
    write(tmp_path / "systems", some)
    file = next((tmp_path / "systems").rglob("force.npy"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    with pytest.raises(ValueError, match="force.npy.*cut short"):
        read(tmp_path / "systems")
    np.save(file, np.zeros((1, 5)))
    with pytest.raises(ValueError, match="holds 5 numbers"):
        read(tmp_path / "systems")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("test.json", json.dumps([{"structure": {}}]))
    with pytest.raises(ValueError, match="no structure of mlearn .*'sites'"):
        read(tmp_path / "a.zip/test.json")
    data = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "b.zip").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="no whole zip archive"):
        read(tmp_path / "b.zip/test.json")
    with pytest.raises(ValueError, match="no member"):
        locate(tmp_path / "a.zip/other.json")
    with pytest.raises(ValueError, match="looked for"):
        locate("nowhere/at_all.xyz")


def test_numbers_that_are_not_finite(some, tmp_path):
    write(tmp_path / "systems", some)
    file = next((tmp_path / "systems").rglob("force.npy"))
    values = np.load(file)
    values[0, 4] = np.nan
    np.save(file, values)
    with pytest.raises(ValueError, match=r"forces of .*:0 is not finite at \[1, 1\]"):
        read(tmp_path / "systems")


def test_what_is_refused(some, tmp_path):
    write(tmp_path / "some.xyz", some)
    with pytest.raises(ValueError, match="format='vasp'"):
        read(tmp_path / "some.xyz", format="vasp")
    with pytest.raises(ValueError, match="labels are"):
        read(tmp_path / "some.xyz", need=["charge"])
    with pytest.raises(ValueError, match="energy='eVV': .* not known"):
        Units(energy="eVV")
    with pytest.raises(ValueError, match="length='eV': .*measure different things"):
        Units(length="eV")
    with pytest.raises(ValueError, match="is there already"):
        (tmp_path / "there").mkdir()
        write(tmp_path / "there", some)
    with pytest.raises(ValueError, match="have no virial"):
        check_labels([one.__class__.from_ase(one.to_ase()[[0]]) for one in some], ["virial"])


@pytest.fixture
def archive():
    root = os.environ.get("OARLOCK_DATA")
    if root is None:
        pytest.skip("OARLOCK_DATA is not set: no md/mlearn and md/deepmd_water to test with")
    return root


def test_water_of_deepmd(archive):
    frames = read("md/deepmd_water/water_data.zip/data_0")
    assert len(frames) == 80 and frames[0].symbols == ["O"] * 64 + ["H"] * 128
    assert len(read("md/deepmd_water/water_data.zip")) == 400
    np.testing.assert_allclose(frames[0].energy, -29943.906, atol=1e-3)


@pytest.mark.parametrize("element", ["Mo", "Si"])
def test_virials_of_mlearn_are_the_slopes_of_energies(archive, element):
    """Along strains of 2 %, −½ (W₁ + W₂):Δε gives the change of the energy."""
    frames = read(f"md/mlearn/mlearn.zip/data/{element}/training.json")
    elastic = [one for one in frames if "(Elastic: " in one.name and len(one) > 2]
    errors, changes = [], []
    for one in elastic:
        for other in elastic:
            if len(one) != len(other):
                continue
            strain = np.linalg.solve(one.cell, other.cell) - np.eye(3)
            if 0 < np.abs(strain).max() < 0.025 and np.abs(strain).sum() < 0.045:
                strain = (strain + strain.T) / 2
                errors.append(
                    -0.5 * ((one.virial + other.virial) * strain).sum() - other.energy + one.energy
                )
                changes.append(abs(other.energy - one.energy))
    assert len(changes) > 20 and max(changes) > 1.0
    assert np.median(np.abs(errors)) < 0.05 * np.median(changes)
    assert np.abs(errors).max() < 0.3
