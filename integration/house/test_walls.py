"""The walls between packages: who may import whom, and what each one declares."""

import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from source_tree import (
    ROOT,
    Import,
    distributions,
    read_module,
    requirement_name,
    resolve,
    strongly_connected,
)

FOUNDATION, HARNESS = "oarlock.native", "oarlock.accept"
# Declared for a dependency's sake: paddle 3.3 imports setuptools without declaring it, and paddle2onnx, which wants
# onnx_graphsurgeon, is called by paddle.onnx.export.
DECLARED_FOR_OTHERS = {"setuptools", "paddle2onnx", "onnx-graphsurgeon", "mpich"}
# Its wheel, as Pex installs it, does not list what it holds.
UNLISTED = {"deepmd": ["deepmd-kit"]}
PACKAGES = sorted(distributions())


def first_party(imported: Import) -> str | None:
    """`oarlock.<package>` of an import, or None for third parties and the standard library."""
    if imported.target == "oarlock":
        return f"oarlock.{imported.names[0]}" if imported.names else "oarlock"
    parts = imported.target.split(".")
    return ".".join(parts[:2]) if parts[0] == "oarlock" else None


def third_party(package: str) -> dict[str, str]:
    """Top-level names of third parties that a package imports, each with one place."""
    return {
        imported.target.split(".")[0]: f"{module.path.relative_to(ROOT)}:{imported.line}"
        for module in distributions()[package].modules
        for imported in module.imports
        if imported.target.split(".")[0] not in sys.stdlib_module_names | {"oarlock"}
    }


def test_the_four_foundation_packages_are_seen():
    assert {FOUNDATION, HARNESS, "oarlock.core_opt", "oarlock.llm", "oarlock.sci_md"} <= set(
        PACKAGES
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_no_package_imports_another(package):
    allowed = {package, FOUNDATION} if package != HARNESS else set(PACKAGES)
    allowed = {FOUNDATION} if package == FOUNDATION else allowed
    breaches = [
        f"{module.path.relative_to(ROOT)}:{imported.line} imports {first_party(imported)}"
        for module in distributions()[package].modules
        for imported in module.imports
        if first_party(imported) not in allowed | {None}
    ]
    assert breaches == []


def test_native_names_paddle_only_in_its_paddle_part():
    glue = FOUNDATION + ".paddle"
    breaches = [
        module.name
        for module in distributions()[FOUNDATION].modules
        if not module.name.startswith(glue)
        for imported in module.imports
        if imported.target.split(".")[0] == "paddle" or imported.target.startswith(glue)
    ]
    assert breaches == []


def test_native_imports_no_paddle():
    code = "import sys, oarlock.native, oarlock.native.optim; print('paddle' in sys.modules)"
    path = "\n".join(f"sys.path.append({p!r})" for p in sys.path if p)
    run = subprocess.run(
        [sys.executable, "-c", f"import sys\n{path}\n{code}"], capture_output=True, text=True
    )
    assert (run.returncode, run.stdout.strip()) == (0, "False"), run.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_cycles(package):
    modules = distributions()[package].modules
    known = {module.name for module in modules}
    graph = {
        module.name: set().union(*(resolve(imported, known) for imported in module.imports))
        for module in modules
    }
    assert strongly_connected(graph) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_declared_dependencies_match_imports(package):
    declared = {requirement_name(text) for text in distributions()[package].requirements}
    provided_by = UNLISTED | packages_distributions()
    undeclared = {}
    used = set()
    for name, place in third_party(package).items():
        owners = {requirement_name(owner) for owner in provided_by.get(name, [name])}
        used |= owners & declared
        if not owners & declared:
            undeclared[name] = place
    for module in distributions()[package].modules:
        for imported in module.imports:
            other = first_party(imported)
            if other not in (None, package, "oarlock"):
                used.add(requirement_name(distributions()[other].name))
    assert undeclared == {}, "imported but not declared"
    assert used <= declared, "imported but not declared"
    assert declared - used - DECLARED_FOR_OTHERS == set(), "declared but not imported"


def test_oarlock_is_a_namespace():
    owned = [d.folder / "oarlock" / "__init__.py" for d in distributions().values()]
    assert [path for path in owned if path.exists()] == []


class TestTheChecksThemselves:
    """A wall that cannot be broken guards nothing."""

    def read(self, tmp_path: Path, text: str):
        path = tmp_path / "oarlock" / "x" / "inner.py"
        path.parent.mkdir(parents=True)
        path.write_text(text)
        return read_module(path, tmp_path)

    def test_imports_are_found_wherever_they_stand(self, tmp_path):
        module = self.read(
            tmp_path,
            "from typing import TYPE_CHECKING\nfrom . import sibling\nfrom oarlock import llm\n"
            "if TYPE_CHECKING:\n    import torch\n"
            "def f():\n    import oarlock.core_opt.optim\n",
        )
        targets = [(i.target, i.names) for i in module.imports]
        assert ("oarlock.x", ("sibling",)) in targets
        assert ("oarlock", ("llm",)) in targets
        assert ("oarlock.core_opt.optim", ()) in targets
        assert "torch" not in [target for target, _ in targets]
        assert first_party(Import("oarlock", 1, ("llm",))) == "oarlock.llm"

    def test_cycles_are_found(self):
        assert strongly_connected({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [
            ["a", "b", "c"]
        ]
        assert strongly_connected({"a": {"b"}, "b": set()}) == []
        assert strongly_connected({"a": {"a"}}) == [["a"]]
