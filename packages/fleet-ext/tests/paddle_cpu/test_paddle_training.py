"""Each mode of parallel training gives what one process alone gives, to float32 rounding."""

import pytest

from paddle_ranks import run_ranks

MODES = {
    2: ("dp2", "mp2", "pp2", "sharding2", "split_parameters", "stage2", "stage3", "wrapped"),
    4: ("dp2_mp2", "dp2_pp2", "mp2_pp2", "mp2_sharding2", "pp4_interleaved"),
}


@pytest.fixture(scope="module")
def trained():
    """What the ranks of each mode said."""
    found = {}
    for size, modes in MODES.items():
        for lines in run_ranks(size, "train_rank.py", *modes):
            for one in lines:
                found.setdefault(one["mode"], []).append(one)
    return found


@pytest.mark.parametrize("mode", [mode for modes in MODES.values() for mode in modes])
def test_losses_and_parameters_are_those_of_one_process(trained, mode):
    for one in trained[mode]:
        assert "error" not in one, one["error"]
        assert one["losses"] < 1e-6 and one["parameters"] < 1e-6, one
        assert one["fell"] > 0.05
