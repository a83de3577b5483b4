"""What LoRA adapters cost a decoder: milliseconds of a step without, with one, and with one for each text.

A LLaMA of random weights, 135 M, in four bits; adapters of all products, bfloat16. Variants take turns, so that a busy
machine slows them alike.

    python packages/llm/benchmarks/adapters.py [--rank 16] [--rounds 12]

Prints CPU milliseconds on one thread, the least of the rounds. Results: ``LOG.md``.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from oarlock.llm import models
from oarlock.llm.engine import adapters as packed
from oarlock.llm.engine import packing
from oarlock.llm.loading import Adapter, LowRank
from oarlock.native.decoder import Cache, Decoder, Rows

CONFIG = models.llama.LlamaConfig(
    vocab_size=32000,
    hidden_size=768,
    num_layers=12,
    num_heads=12,
    num_kv_heads=12,
    intermediate_size=2048,
    max_length=1024,
)
PARTS = {
    "q and v": ("query", "value"),
    "all": ("query", "key", "value", "out", "gate", "up", "down"),
}
PROMPT = 512


def draw(
    parameters: dict[str, np.ndarray], parts: tuple[str, ...], rank: int, seed: int
) -> Adapter:
    rng = np.random.default_rng(seed)
    changes = {}
    for name, value in parameters.items():
        if value.ndim == 2 and name.split(".")[-2] in parts:
            a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((value.shape[0], rank), (rank, value.shape[1])))  # fmt: skip
            changes[name] = LowRank(a=a, b=b, scale=1e-3)
    return Adapter(source=Path(f"seed {seed}"), changes=changes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=12)
    arguments = parser.parse_args()
    model = models.create("llama", CONFIG, seed=0)
    parameters = {name: one.numpy() for name, one in model.state_dict().items()}
    native = packing.pack("llama", CONFIG, parameters, weights="int4")
    decoder = Decoder(native, most_rows=PROMPT)
    cache = Cache(decoder, pages=200)

    def load(parts: str, seed: int) -> int:
        adapter = packed.pack(draw(parameters, PARTS[parts], arguments.rank, seed), native)
        return decoder.load_adapter(adapter)

    one, several = load("all", 0), [load("all", seed) for seed in range(1, 9)]
    variants = {
        "none": [-1] * 8,
        "q and v, one adapter": [load("q and v", 0)] * 8,
        "all, one adapter": [one] * 8,
        "all, eight adapters": several,
    }
    tokens = np.random.default_rng(1).integers(0, CONFIG.vocab_size, PROMPT)

    def step(texts: int, numbers: list[int]) -> None:
        numbers = sorted((numbers * (texts // 8 + 1))[:texts])
        rows = [
            Rows(tokens[:1], 40, [3 * i, 3 * i + 1, 3 * i + 2], n) for i, n in enumerate(numbers)
        ]
        decoder.forward(cache, rows, wanted=np.arange(texts), threads=1)

    def prompt(numbers: list[int]) -> None:
        rows = [Rows(tokens, 0, list(range(PROMPT // 16)), numbers[0])]
        decoder.forward(cache, rows, wanted=[PROMPT - 1], threads=1)

    cases = {f"{texts} texts": lambda n, texts=texts: step(texts, n) for texts in (1, 8, 32)}
    cases[f"prompt of {PROMPT}"] = prompt
    for case, run in cases.items():
        best = dict.fromkeys(variants, np.inf)
        for _ in range(arguments.rounds):
            for name, numbers in variants.items():
                start = time.process_time()
                run(numbers)
                best[name] = min(best[name], time.process_time() - start)
        print(case, *(f"| {name} {1e3 * value:.2f} ms" for name, value in best.items()))


if __name__ == "__main__":
    main()
