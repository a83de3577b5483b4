"""The repository as its import statements show it: distributions, modules, imports."""

import ast
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Import:
    """One import: the module named, and whether only the code inside a function runs it."""

    target: str
    line: int
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Module:
    name: str
    path: Path
    imports: tuple[Import, ...]


@dataclass(frozen=True)
class Distribution:
    """A pip-installable folder: its metadata, its own package `oarlock.<name>` and its modules."""

    name: str
    folder: Path
    package: str
    requirements: tuple[str, ...]
    modules: tuple[Module, ...]


def _module_name(path: Path, folder: Path) -> str:
    parts = path.relative_to(folder).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _is_type_checking(node: ast.If) -> bool:
    return ast.unparse(node.test).rsplit(".", 1)[-1] == "TYPE_CHECKING"


def _imports(tree: ast.AST, module: str, is_package: bool) -> list[Import]:
    found: list[Import] = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".")
                package = package[: len(package) - node.level + is_package]
                base = ".".join([*package, *filter(None, [node.module])])
            found.append(Import(base, node.lineno, tuple(alias.name for alias in node.names)))
        elif isinstance(node, ast.If) and _is_type_checking(node):
            for other in node.orelse:
                found += _imports(other, module, is_package)
        else:
            found += _imports(node, module, is_package)
    return found


def read_module(path: Path, folder: Path) -> Module:
    name = _module_name(path, folder)
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return Module(name, path, tuple(_imports(tree, name, path.name == "__init__.py")))


def read_distribution(folder: Path) -> Distribution:
    metadata = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = list(metadata.get("dependencies", ()))
    for extra in metadata.get("optional-dependencies", {}).values():
        requirements += extra
    packages = [p for p in sorted((folder / "oarlock").iterdir()) if any(p.rglob("*.py"))]
    if len(packages) != 1:
        raise ValueError(f"{folder}/oarlock must hold one package, found {packages}")
    modules = tuple(
        read_module(path, folder)
        for path in sorted(packages[0].rglob("*.py"))
        if "peers" not in path.relative_to(packages[0]).parts[:-2]  # run by other interpreters
    )
    return Distribution(
        metadata["name"], folder, f"oarlock.{packages[0].name}", tuple(requirements), modules
    )


@cache
def distributions() -> dict[str, Distribution]:
    """Every distribution of the repository, by its package's name."""
    folders = [ROOT / "native", ROOT / "integration", *sorted((ROOT / "packages").iterdir())]
    found = [read_distribution(f) for f in folders if (f / "pyproject.toml").exists()]
    return {distribution.package: distribution for distribution in found}


def resolve(imported: Import, known: set[str]) -> set[str]:
    """The modules among `known` that an import runs: `from a import b` may mean the module a.b."""
    submodules = {f"{imported.target}.{name}" for name in imported.names} & known
    rest = len(submodules) < len(imported.names) or not imported.names
    return submodules | ({imported.target} & known if rest else set())


def strongly_connected(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of nodes that reach one another: the cycles of the graph."""
    reach = {node: {node} for node in graph}
    changed = True
    while changed:
        changed = False
        for node, nexts in graph.items():
            union = reach[node].union(*(reach[n] for n in nexts)) if nexts else reach[node]
            changed |= union != reach[node]
            reach[node] = union
    groups = {tuple(sorted(m for m in reach[n] if n in reach[m])) for n in graph}
    self_loops = {(node,) for node, nexts in graph.items() if node in nexts}
    return [list(group) for group in sorted(groups) if len(group) > 1 or group in self_loops]


def requirement_name(text: str) -> str:
    name = re.match(r"[A-Za-z0-9._-]+", text)
    if name is None:
        raise ValueError(f"not a requirement: {text!r}")
    return re.sub(r"[-_.]+", "-", name.group()).lower()
