"""The same tasks with the same weights in lm-eval (recorded by ``parity/record_eval.py``)."""

import json
from pathlib import Path

import pytest

from oarlock.llm import tokenizers, weights
from oarlock.llm.eval import LanguageModelBackend, evaluate

RECORDED = json.loads((Path(__file__).parents[1] / "parity" / "expected" / "eval.json").read_text())
#: Theirs to ours.
NAMES = {
    "acc,none": "acc",
    "acc_norm,none": "acc_norm",
    "bits_per_byte,none": "bits_per_byte",
    "byte_perplexity,none": "byte_perplexity",
    "word_perplexity,none": "word_perplexity",
    "exact_match,none": "number_match,strict",
}


@pytest.fixture(scope="module")
def backend():
    import os

    if "OARLOCK_DATA" not in os.environ:
        pytest.skip("OARLOCK_DATA is not set: no weights/stories260K to test with")
    folder = Path(os.environ["OARLOCK_DATA"]) / "weights/stories260K"
    return LanguageModelBackend(
        weights.load_llama2c(folder / "stories260K.bin"),
        tokenizers.Llama2cTokenizer.from_file(folder / "tok512.bin"),
        name="stories260K",
        start=1,
        end=2,
    )


def test_enough_tasks_are_recorded():
    assert len(RECORDED) >= 5


@pytest.mark.parametrize("name", RECORDED)
def test_scores_are_those_of_lm_eval(name, backend):
    recorded = RECORDED[name]
    task = evaluate(backend, name, limit=len(recorded["items"])).tasks[name]
    for ours, theirs in zip(task.items, recorded["items"], strict=True):
        if isinstance(theirs, str):
            assert ours.output == theirs
        elif isinstance(theirs, list):
            found = [
                float(line.split()[1 if line[0] == ">" else 0]) for line in ours.output.split("\n")
            ]
            assert found == pytest.approx(theirs, abs=2e-3)
        else:
            assert float(ours.output.split()[1]) == pytest.approx(theirs, abs=5e-3)
    compared = 0
    for key, value in recorded["scores"].items():
        if key in NAMES:
            assert task.estimate(NAMES[key]).value == pytest.approx(value, rel=1e-5)
            compared += 1
    assert compared >= 1
