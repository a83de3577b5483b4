"""English text for machines without any data set: what installed libraries say of themselves."""

import ast
import hashlib
import platform
from functools import cache
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np

MIN_CHARACTERS = 1_000_000


def _docstrings(source: str) -> list[str]:
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(tree) if isinstance(node, documented)]
    return [text for node in nodes if (text := ast.get_docstring(node))]


def _library_docstrings(folder: Path) -> list[str]:
    """The docstrings of a library's files, without its tests, in the order of their paths."""
    texts = []
    for path in sorted(folder.rglob("*.py"), key=lambda path: path.as_posix()):
        if "tests" not in path.parts:
            texts += _docstrings(path.read_text(encoding="utf-8"))
    return texts


@cache
def library_text() -> tuple[str, str]:
    """About one million characters of English prose and where they come from.

    The manual pages inside Python (`pydoc_data`), then docstrings of NumPy, each text once. The same
    for the same versions of both; the origin holds the versions and the hash of the text.
    """
    texts = [topics[name] for name in sorted(topics)]
    texts += _library_docstrings(Path(np.__file__).parent)
    kept: list[str] = []
    size = 0
    for text in dict.fromkeys(texts):
        kept.append(text.strip())
        size += len(text)
        if size >= MIN_CHARACTERS:
            break
    whole = "\n\n".join(kept)
    digest = hashlib.sha256(whole.encode()).hexdigest()[:12]
    python = platform.python_version()
    origin = f"manuals of Python {python} and docstrings of NumPy {np.__version__}"
    return whole, f"{origin} ({len(whole)} characters, sha256 {digest})"
