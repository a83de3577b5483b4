"""The lock files agree where one environment has several of them."""

import re

from source_tree import ROOT

LOCKS = ROOT / "scripts" / "lock"


def pins(name: str) -> dict[str, str]:
    """Versions by library."""
    text = (LOCKS / f"{name}.lock").read_text()
    return dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))


def test_the_development_environment_can_have_the_tests_lock_beside_the_main_one():
    main, tests = pins("main"), pins("pytest")
    assert "paddlepaddle" in main and "pytest" in tests
    assert {one: tests[one] for one in main.keys() & tests.keys()} == {
        one: main[one] for one in main.keys() & tests.keys()
    }
