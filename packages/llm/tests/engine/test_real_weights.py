"""The engine on real weights: stories260K."""

import numpy as np
import paddle
import pytest
from oarlock.llm import loading
from oarlock.llm.engine import LLM, EngineConfig, SamplingParams
from oarlock.llm.tokenizers import Llama2cTokenizer

GREEDY = SamplingParams(temperature=0.0, max_tokens=200, ignore_eos=True)
OPENINGS = ["Once upon a time", "The little cat", "Lily and Tom went to"]


@pytest.fixture
def files(shared_data):
    folder = shared_data("weights/stories260K")
    return folder / "stories260K.bin", Llama2cTokenizer.from_file(folder / "tok512.bin")


def test_float32_tells_the_reference_s_stories_to_the_letter(files):
    path, tokenizer = files
    model, _ = loading.load_model(path)
    results = LLM(path, tokenizer=tokenizer).generate(OPENINGS, GREEDY)
    for result in results:
        whole = model.generate(paddle.to_tensor([result.prompt]), max_new_tokens=200).numpy()[0]
        assert list(result.completions[0].tokens) == whole[len(result.prompt) :].tolist()
    assert results[0].text.startswith(", there was a little girl named Lily.")


@pytest.mark.parametrize("weights,allowed", [("bf16", 0.01), ("int8", 0.01), ("int4", 0.25)])
def test_rounded_weights_tell_nearly_as_well(files, weights, allowed):
    """Mean loss on the stories of float32: four bits are too few for a quarter of a million weights."""
    path, tokenizer = files
    exact = LLM(path, tokenizer=tokenizer)
    stories = [
        [*result.prompt, *result.completions[0].tokens]
        for result in exact.generate(OPENINGS, SamplingParams(max_tokens=150, seed=0))
    ]

    def loss(llm):
        return -np.mean([one.logprob for row in llm.score(stories) for one in row])

    rounded = LLM(path, tokenizer=tokenizer, weights=weights)
    assert abs(loss(rounded) - loss(exact)) < allowed


def test_four_bits_foretell_what_float32_says(files):
    """The model's own weights in four bits as its draft: the same stories in a third of the steps."""
    path, tokenizer = files
    params = SamplingParams(max_tokens=150, seed=0)
    plain = LLM(path, tokenizer=tokenizer)
    options = {"draft": path, "draft_weights": "int4", "config": EngineConfig(guesses=4)}
    guessing = LLM(path, tokenizer=tokenizer, **options)
    for one, other in zip(plain.generate(OPENINGS, params), guessing.generate(OPENINGS, params)):
        assert one.completions == other.completions
    stats = guessing.engine.stats()
    assert stats["guesses_right"] > 0.75 * stats["tokens_guessed"]
    assert stats["steps"] < 0.4 * plain.engine.stats()["steps"]
