"""Tokens a second of decoders with random weights of the shapes of real models.

Usage: python native/benchmarks/decoder.py [--shape NAME] [--format NAME] [--cache NAME] [--threads N] [--rounds N]

Prompts of 512 tokens at once, and tokens one by one for 1, 8 and 32 sequences, from short contexts. Bytes of all
weights times steps a second are compared with a plain sum over as much memory. Times are CPU time of the process
on one thread, wall-clock time on more; the least and the median of the rounds.
"""

import argparse
import ctypes
import statistics
import time
from collections.abc import Callable

import numpy as np

from oarlock import native
from oarlock.native import _library, quant
from oarlock.native.decoder import Cache, Decoder, Layer, Linear, Model, Norm, Rows

#: Vocabulary, width, layers, heads, heads of keys, feed-forward width: LLaMAs.
SHAPES = {
    "15m": (32000, 288, 6, 6, 6, 768),
    "135m": (32000, 768, 12, 12, 12, 2048),
    "615m": (32000, 2048, 11, 32, 4, 5632),
}
LENGTH, PROMPT, STEPS = 1024, 512, 8


def llama(shape: str, format: str, head_size: int | None = None) -> Model:
    vocab, D, layers, heads, kv_heads, F = SHAPES[shape]
    rng, K = np.random.default_rng(0), head_size or D // heads

    def matrix(inputs: int, outputs: int) -> quant.Matrix:
        w = rng.standard_normal((inputs, outputs), np.float32)
        return quant.Matrix.pack(w * np.float32(inputs**-0.5), format=format)

    def linear(inputs: int, outputs: int) -> Linear:
        return Linear(weight=matrix(inputs, outputs))

    norm, table = Norm(weight=np.ones(D, np.float32)), matrix(D, vocab)
    angles = np.outer(np.arange(LENGTH), 10000.0 ** (-np.arange(0, K, 2) / K))
    return Model(
        embedding=table,
        head=table,
        layers=tuple(
            Layer(
                attention_norm=norm,
                feed_forward_norm=norm,
                qkv=linear(D, (heads + 2 * kv_heads) * K),
                out=linear(heads * K, D),
                up=linear(D, 2 * F),
                down=linear(F, D),
            )
            for _ in range(layers)
        ),
        final_norm=norm,
        heads=heads,
        kv_heads=kv_heads,
        head_size=K,
        intermediate=F,
        max_length=LENGTH,
        cos=np.cos(angles),
        sin=np.sin(angles),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="135m")
    parser.add_argument("--format", default="int4")
    parser.add_argument("--cache", default="fp32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    team = arguments.threads
    clock = time.process_time if team == 1 else time.perf_counter
    print(native.info())

    def seconds(call: Callable[[], object]) -> tuple[float, float]:
        times = []
        for index in range(arguments.rounds + 1):
            start = clock()
            call()
            if index:  # the first round touches the memory
                times.append(clock() - start)
        return min(times), statistics.median(times)

    model = llama(arguments.shape, arguments.format)
    decoder = Decoder(model, most_rows=PROMPT)
    pages = PROMPT // 16 + 1
    cache = Cache(decoder, pages, arguments.cache)
    tokens = np.random.default_rng(1).integers(0, model.vocab, PROMPT)

    def prompt() -> None:
        decoder.forward(cache, [Rows(tokens, 0, range(pages))], wanted=[PROMPT - 1], threads=team)

    def steps(sequences: int) -> Callable[[], None]:
        def run() -> None:
            for place in range(STEPS):
                rows = [Rows([place + i], place, [i]) for i in range(sequences)]
                decoder.forward(cache, rows, wanted=range(sequences), threads=team)  # type: ignore[arg-type]

        return run

    flat = np.ones(1 << 26, np.float32)
    sums = np.empty(len(flat) // 65536, np.float32)
    pointers = [ctypes.c_void_p(one.ctypes.data) for one in (sums, flat)]
    library = _library.load()

    def stream() -> None:
        library.call(
            "oarlock_stream_sum", *pointers, ctypes.c_int64(len(flat)), ctypes.c_float(0), team
        )

    peak = flat.nbytes / seconds(stream)[1] / 1e9
    print(f"a sum over memory reads {peak:.1f} GB/s")
    least, median = seconds(prompt)
    print(f"prompt of {PROMPT}: {PROMPT / median:8.1f} tokens/s (best {PROMPT / least:.1f})")
    size = sum(one.nbytes for one in model.matrices())
    for sequences in (1, 8, 32):
        least, median = seconds(steps(sequences))
        rate, best = (STEPS * sequences / one for one in (median, least))
        share = size * STEPS / median / 1e9 / peak
        print(
            f"{sequences:2} at once: {rate:8.1f} tokens/s (best {best:.1f}); {share:.2f} of the bandwidth"
        )


if __name__ == "__main__":
    main()
