"""How often a draft is right, by the noise with which it draws: stories260K and its own weights in four bits.

    python packages/llm/benchmarks/drafts.py stories260K.bin tok512.bin [--target fp32] [--draft int4]

Prints the share of judged guesses that were kept, 32 texts of 200 tokens, four guesses a step. The engine's noise
(Gumbel, one number for text, place and token) stands beside the plain ways: one uniform number for text and place,
through the distribution sorted by probability or by id, and noise that the draft does not share. Texts are checked to be those
without a draft. Results: ``LOG.md``.
"""

import argparse
from collections.abc import Callable
from unittest import mock

import numpy as np
from oarlock.llm.engine import LLM, EngineConfig, SamplingParams, sampling
from oarlock.llm.tokenizers import Llama2cTokenizer

OPENINGS = [
    "Once upon a time",
    "The little cat",
    "Lily and Tom went to",
    "One day, a big dog",
    "Tim had a red ball",
    "In the park",
    "Mom said",
    "There was a bird",
]
SETTINGS = ({"temperature": 0.7}, {"temperature": 1.0}, {"top_p": 0.9}, {"temperature": 1.5})


def inverse(by_id: bool) -> Callable[..., int]:
    """Draws through the distribution's sums, of tokens in one order or the other."""

    def draw(logits, params, key):
        tokens, shares = sampling.probabilities(logits, params)
        if by_id:
            order = np.argsort(tokens)
            tokens, shares = tokens[order], shares[order]
        uniform = float(np.exp(-np.exp(-sampling.gumbel(key, np.array([0]))))[0])
        place = int(np.searchsorted(np.cumsum(shares), uniform))
        return int(tokens[min(place, len(tokens) - 1)])

    return draw


class Unshared:
    """New noise at each call."""

    def __init__(self) -> None:
        self._rng, self._draw = np.random.default_rng(0), sampling.draw

    def __call__(self, logits, params, key):
        return self._draw(logits, params, int(self._rng.integers(1 << 63)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("tokenizer")
    parser.add_argument("--target", default="fp32")
    parser.add_argument("--draft", default="int4")
    arguments = parser.parse_args()
    tokenizer = Llama2cTokenizer.from_file(arguments.tokenizer)
    config = EngineConfig(guesses=4, threads=1)
    ways = {
        "Gumbel": sampling.draw,
        "sums, by probability": inverse(by_id=False),
        "sums, by id": inverse(by_id=True),
        "not shared": Unshared(),
    }
    for setting in SETTINGS:
        params = SamplingParams(**setting, max_tokens=200, seed=0, n=4, ignore_eos=True)
        kept = []
        for name, draw in ways.items():
            with mock.patch.object(sampling, "draw", draw):
                options = {"tokenizer": tokenizer, "weights": arguments.target}
                llm = LLM(
                    arguments.model,
                    **options,
                    draft=arguments.model,
                    draft_weights=arguments.draft,
                    config=config,
                )
                found = llm.generate(OPENINGS, params)
                if name != "not shared":
                    plain = LLM(arguments.model, **options, config=EngineConfig(threads=1))
                    for one, other in zip(found, plain.generate(OPENINGS, params)):
                        assert one.completions == other.completions
            stats = llm.engine.stats()
            kept.append(f"{name} {stats['guesses_right'] / stats['tokens_guessed']:.3f}")
        print(setting, "|", " | ".join(kept), flush=True)


if __name__ == "__main__":
    main()
