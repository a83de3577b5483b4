"""Every family of kernels has its five places."""

import importlib.util
import pkgutil
from pathlib import Path

import pytest

from oarlock.native import reference

NATIVE = Path(__file__).parents[1]
# The core belongs to all families; phi and paddle are described in docs/native.md.
FAMILIES = sorted(p.name for p in (NATIVE / "src").iterdir() if p.is_dir() and p.name != "core")


def test_there_are_families():
    assert "optim" in FAMILIES


@pytest.mark.parametrize("family", FAMILIES)
def test_family_has_its_five_places(family):
    files = [f"src/{family}/capi.cpp", f"tests/test_{family}.py", f"benchmarks/{family}.py"]
    modules = [f"oarlock.native.{family}", f"oarlock.native.reference.{family}"]
    assert [file for file in files if not (NATIVE / file).is_file()] == []
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []


def test_nothing_else_pretends_to_be_a_family():
    oracles = {module.name for module in pkgutil.iter_modules(reference.__path__)}
    folders = {p.name for p in (NATIVE / "cuda").iterdir() if p.is_dir()} - {"core"}
    assert oracles == set(FAMILIES) and folders <= set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_entry_points_carry_the_family_s_name(family):
    texts = [file.read_text() for file in (NATIVE / f"src/{family}").glob("capi*.cpp")]
    lines = [line for text in texts for line in text.splitlines() if "OARLOCK_API" in line]
    names = [line.split("(")[0].split()[-1] for line in lines]
    assert names and all(name.startswith(f"oarlock_{family}_") for name in names)


def test_kernel_sources_include_no_standard_library():
    """Its inline functions would be shared between code paths; the build checks the objects too."""
    allowed = {"<stdint.h>", "<stddef.h>", "<immintrin.h>", "<arm_neon.h>"}
    for source in (NATIVE / "src").rglob("*.kernel.cpp"):
        seen, queue = set(), [source]
        while queue:
            lines = queue.pop().read_text().splitlines()
            names = {line.split()[1] for line in lines if line.startswith("#include")} - seen
            seen |= names
            queue += [NATIVE / "src" / name.strip('"') for name in names if name[0] == '"']
        assert {name for name in seen if name[0] == "<"} <= allowed, source
