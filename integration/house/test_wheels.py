"""All wheels of the repository, installed together."""

from importlib import import_module
from importlib.metadata import distribution, version

import pytest
from packaging.requirements import Requirement

WHEELS = {
    "oarlock-native": "oarlock.native",
    "oarlock-core-opt": "oarlock.core_opt",
    "oarlock-llm": "oarlock.llm",
    "oarlock-sci-md": "oarlock.sci_md",
    "oarlock-accept": "oarlock.accept",
}


@pytest.mark.parametrize("name", WHEELS)
def test_requirements_are_met(name):
    requirements = [Requirement(text) for text in distribution(name).requires or ()]
    assert requirements
    for requirement in requirements:
        if requirement.marker is None or requirement.marker.evaluate():
            assert version(requirement.name) in requirement.specifier, str(requirement)


@pytest.mark.parametrize("name", WHEELS)
def test_imports(name):
    assert import_module(WHEELS[name]).__name__ == WHEELS[name]
